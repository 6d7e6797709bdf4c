// What the interface knows of daemon and engine, kept true by the engine's events.
import { Docker } from "../backend/docker";
import { type Backend, type Channel, Failure } from "../backend";
import { HttpBackend } from "../backend/http";
import { isWindow, WindowBackend } from "../backend/window";
import type {
    ContainerSummary,
    EventMessage,
    ImageSummary,
    NetworkInspect,
    Progress,
    Status,
    Volume,
} from "../backend/types";

export const backend: Backend = isWindow() ? new WindowBackend() : new HttpBackend();
export const docker = new Docker(backend);

/** What stands between the user and the engine; `ready` is nothing. */
export type Phase =
    "loading" | "session" | "gone" | "daemon" | "asleep" | "starting" | "stopping" | "failed" | "engine" | "ready";

const POLL = 2000;
/** Events that are kept. */
const EVENTS = 2000;

interface Lists {
    containers: ContainerSummary[];
    images: ImageSummary[];
    volumes: Volume[];
    networks: NetworkInspect[];
}
type Kind = keyof Lists;
const KINDS: Kind[] = ["containers", "images", "volumes", "networks"];
/** Which lists an event is about. */
const AFFECTED: Record<string, Kind[]> = {
    container: ["containers", "networks"],
    image: ["images"],
    volume: ["volumes"],
    network: ["networks", "containers"],
};
/** Events that change nothing one sees in a list. */
const QUIET = /^(exec_|top|attach|resize|export|archive-path|extract-to-dir|health_status: running)/;

class World {
    phase = $state<Phase>("loading");
    failure = $state<Failure>();
    status = $state<Status>();
    /** Whether there is a daemon to be asked; an engine alone has none. */
    hasDaemon = $state(true);
    progress = $state<Progress>();
    containers = $state.raw<ContainerSummary[]>([]);
    images = $state.raw<ImageSummary[]>([]);
    volumes = $state.raw<Volume[]>([]);
    networks = $state.raw<NetworkInspect[]>([]);
    loaded = $state<Record<Kind, boolean>>({ containers: false, images: false, volumes: false, networks: false });
    events = $state.raw<EventMessage[]>([]);
    /** The time, for what is told as "so long ago". */
    now = $state(Date.now());

    private stream: Channel | undefined;
    private stale = new Set<Kind>();
    private timer: ReturnType<typeof setTimeout> | undefined;
    private busy = false;
    private pending: EventMessage[] = [];

    async start(): Promise<void> {
        try {
            await backend.enter();
        } catch (error) {
            this.stumble(error);
            return;
        }
        await this.poll();
        setInterval(() => {
            this.now = Date.now();
            if (!document.hidden) void this.poll();
        }, POLL);
        document.addEventListener("visibilitychange", () => (document.hidden ? undefined : void this.poll()));
    }

    /** Looks how daemon and guest are; this wakes nobody. */
    async poll(): Promise<void> {
        if (this.busy) return;
        this.busy = true;
        try {
            if (this.hasDaemon) await this.look();
            else if (!this.stream) this.listen();
        } catch (error) {
            this.stumble(error);
        } finally {
            this.busy = false;
        }
    }

    private async look(): Promise<void> {
        await backend.daemon({ op: "status" }, (event) => {
            if (event.event === "status") this.status = event;
        });
        const state = this.status?.machine.state;
        if (state === "running") {
            this.progress = undefined;
            if (!this.stream) this.listen();
            return;
        }
        this.stream?.close();
        this.stream = undefined;
        // Whether it was shut down or saved, the next use brings it back.
        this.phase = state === "stopped" || state === undefined ? "asleep" : state === "suspending" ? "stopping" : state;
    }

    private stumble(error: unknown): void {
        const failure = error instanceof Failure ? error : new Failure(0, "network", String(error));
        if (failure.code === "alone") {
            this.hasDaemon = false;
            this.listen();
            return;
        }
        this.failure = failure;
        this.stream?.close();
        this.stream = undefined;
        const phases: Partial<Record<Failure["code"], Phase>> = {
            session: "session",
            daemon: "daemon",
            asleep: "asleep",
            network: "gone",
        };
        this.phase = phases[failure.code] ?? "engine";
    }

    private listen(): void {
        let begun = false;
        const stream = backend.open(
            { method: "GET", path: "/events" },
            {
                begun: () => {
                    begun = true;
                    this.failure = undefined;
                    for (const kind of KINDS) this.stale.add(kind);
                    void this.refresh();
                },
                data: lines((line) => this.hear(JSON.parse(line) as EventMessage)),
                end: (failure) => {
                    if (this.stream === stream) this.stream = undefined;
                    // An engine that restarts comes back by itself: the next look finds out.
                    if (failure && (failure.code !== "network" || !begun)) this.stumble(failure);
                    else if (this.phase === "ready") this.phase = "engine";
                    void this.poll();
                },
            },
        );
        this.stream = stream;
    }

    private hear(event: EventMessage): void {
        this.pending.push(event);
        if (!QUIET.test(event.Action ?? "")) for (const kind of AFFECTED[event.Type ?? ""] ?? []) this.stale.add(kind);
        // Storms of events end in few requests.
        this.timer ??= setTimeout(() => {
            this.timer = undefined;
            this.events = [...this.pending.reverse(), ...this.events].slice(0, EVENTS);
            this.pending = [];
            void this.refresh();
        }, 120);
    }

    /** Asks anew for what has changed. */
    async refresh(...kinds: Kind[]): Promise<void> {
        const wanted = new Set([...kinds, ...this.stale]);
        this.stale.clear();
        try {
            await Promise.all([...wanted].map((kind) => this.fetch(kind)));
            if (this.stream) this.phase = "ready";
        } catch (error) {
            this.stumble(error);
        }
    }

    private async fetch(kind: Kind): Promise<void> {
        if (kind === "containers") this.containers = await docker.containers();
        else if (kind === "images") this.images = await docker.images();
        else if (kind === "volumes") this.volumes = await docker.volumes();
        else this.networks = await docker.networks();
        this.loaded[kind] = true;
    }

    /** Starts daemon and guest and tells how far they are. */
    async wake(op: "start" | "restart" = "start"): Promise<void> {
        this.phase = "starting";
        this.progress = { step: "", elapsed_ms: 0 };
        this.failure = undefined;
        this.stream?.close();
        this.stream = undefined;
        this.busy = true;
        try {
            await backend.daemon({ op }, (event) => {
                if (event.event === "progress") this.progress = event;
            });
        } catch (error) {
            this.failure = error instanceof Failure ? error : new Failure(0, "engine", String(error));
            this.phase = "failed";
            return;
        } finally {
            this.busy = false;
            this.progress = undefined;
        }
        await this.poll();
    }

    /** Ends the daemon, and with it the guest, and starts both anew. */
    async renew(): Promise<void> {
        this.phase = "stopping";
        this.stream?.close();
        this.stream = undefined;
        this.busy = true;
        try {
            await backend.daemon({ op: "shutdown" }, () => undefined);
        } catch (error) {
            // A connection that broke off, or nobody at its end, is what was wanted.
            if (error instanceof Failure && error.code !== "network" && error.code !== "daemon") {
                await this.poll();
                throw error;
            }
        } finally {
            this.busy = false;
        }
        await this.wake();
    }

    async sleep(): Promise<void> {
        this.phase = "stopping";
        this.stream?.close();
        this.stream = undefined;
        await backend.daemon({ op: "stop" }, () => undefined);
        await this.poll();
    }
}

/** Cuts bytes into lines. */
export function lines(line: (text: string) => void): (bytes: Uint8Array) => void {
    const decoder = new TextDecoder();
    let rest = "";
    return (bytes) => {
        const all = (rest + decoder.decode(bytes, { stream: true })).split("\n");
        rest = all.pop() ?? "";
        for (const one of all) if (one.trim()) line(one);
    };
}

export const world = new World();
