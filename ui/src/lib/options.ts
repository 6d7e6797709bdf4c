// What people type into the create dialog, as the engine wants it; what makes no sense is said so.

export interface Typed {
    image: string;
    command: string;
    ports: { host: string; container: string; protocol: string }[];
    variables: { name: string; value: string }[];
    mounts: { source: string; target: string; readOnly: boolean }[];
    network: string;
    restart: string;
    memory: string;
    cpus: string;
    user: string;
    directory: string;
    tty: boolean;
    remove: boolean;
    privileged: boolean;
}

export function blank(image = ""): Typed {
    return {
        image,
        command: "",
        ports: [],
        variables: [],
        mounts: [],
        network: "bridge",
        restart: "no",
        memory: "",
        cpus: "",
        user: "",
        directory: "",
        tty: true,
        remove: false,
        privileged: false,
    };
}

/** Bytes of a size like `512m` or `2 GiB`; undefined when it is none. */
export function bytes(text: string): number | undefined {
    const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
    if (!match) return undefined;
    const power = " kmgt".indexOf((match[2] || " ").toLowerCase());
    return Math.round(Number(match[1]) * 1024 ** power);
}

const isPort = (text: string) => /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65535;

/** Names of what makes no sense, by field. */
export function faults(typed: Typed): Set<string> {
    const found = new Set<string>();
    if (!typed.image.trim()) found.add("image");
    if (typed.memory && (bytes(typed.memory) ?? 0) < 6 << 20) found.add("memory");
    if (typed.cpus && !(Number(typed.cpus) > 0)) found.add("cpus");
    for (const [index, port] of typed.ports.entries()) {
        if (!port.host && !port.container) continue;
        if (!isPort(port.container) || (port.host && !isPort(port.host))) found.add(`ports.${index}`);
    }
    for (const [index, mount] of typed.mounts.entries()) {
        if (!mount.source && !mount.target) continue;
        if (!mount.source || !mount.target.startsWith("/")) found.add(`mounts.${index}`);
    }
    for (const [index, one] of typed.variables.entries()) if (one.value && !one.name) found.add(`variables.${index}`);
    return found;
}

/** The body of a create call. */
export function body(typed: Typed, split: (line: string) => string[]) {
    const ports = typed.ports.filter((port) => port.container);
    const key = (port: { container: string; protocol: string }) => `${port.container}/${port.protocol}`;
    const command = split(typed.command);
    const bindings: Record<string, { HostPort: string }[]> = {};
    for (const port of ports) (bindings[key(port)] ??= []).push({ HostPort: port.host });
    return {
        Image: typed.image.trim(),
        Cmd: command.length ? command : null,
        Env: typed.variables.filter((one) => one.name).map((one) => `${one.name}=${one.value}`),
        ExposedPorts: Object.fromEntries(ports.map((port) => [key(port), {}])),
        Tty: typed.tty,
        OpenStdin: typed.tty,
        User: typed.user,
        WorkingDir: typed.directory,
        HostConfig: {
            PortBindings: bindings,
            Binds: typed.mounts
                .filter((mount) => mount.source && mount.target)
                .map((mount) => `${mount.source}:${mount.target}${mount.readOnly ? ":ro" : ""}`),
            NetworkMode: typed.network,
            RestartPolicy: { Name: typed.restart as "no" },
            AutoRemove: typed.remove,
            Privileged: typed.privileged,
            Memory: typed.memory ? (bytes(typed.memory) ?? 0) : 0,
            NanoCpus: typed.cpus ? Math.round(Number(typed.cpus) * 1e9) : 0,
        },
    };
}
