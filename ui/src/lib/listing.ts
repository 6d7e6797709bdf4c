// What a directory holds, as `ls -lAn` tells it (POSIX.1-2024, ls, STDOUT).

export interface Item {
    name: string;
    kind: "file" | "directory" | "link" | "other";
    size: number;
    mode: string;
    modified: string;
    target: string;
}

const LINE = /^([-a-z])([-rwxsStT]{9})\S?\s+\d+\s+\S+\s+\S+\s+(\d+(?:,\s*\d+)?)\s+([A-Z][a-z]{2}\s+\d+\s+[\d:]+)\s(.+)$/;

const KINDS: Record<string, Item["kind"]> = { "-": "file", d: "directory", l: "link" };

export function listing(text: string): Item[] {
    const found: Item[] = [];
    for (const line of text.split("\n")) {
        const match = LINE.exec(line.replace(/\r$/, ""));
        if (!match) continue;
        const [, type, mode, size, modified, rest] = match as unknown as [string, string, string, string, string, string];
        const kind: Item["kind"] = KINDS[type] ?? "other";
        const arrow = kind === "link" ? rest.indexOf(" -> ") : -1;
        found.push({
            name: arrow < 0 ? rest : rest.slice(0, arrow),
            kind,
            size: size.includes(",") ? 0 : Number(size),
            mode: type + mode,
            modified,
            target: arrow < 0 ? "" : rest.slice(arrow + 4),
        });
    }
    return sorted(found);
}

/** Directories first, then by name. */
export function sorted(list: Item[]): Item[] {
    return list.sort(
        (a, b) => Number(b.kind === "directory") - Number(a.kind === "directory") || a.name.localeCompare(b.name),
    );
}

/** The bits of a mode as `ls` writes them. */
export function modeText(kind: Item["kind"], mode: number): string {
    const type = { file: "-", directory: "d", link: "l", other: "?" }[kind];
    return (
        type +
        [6, 3, 0]
            .map((shift) => ["r", "w", "x"].map((letter, bit) => ((mode >> shift) & (4 >> bit) ? letter : "-")).join(""))
            .join("")
    );
}

/** A path joined with a name, `..` taken at its word. */
export function join(path: string, name: string): string {
    const parts = (name.startsWith("/") ? name : `${path}/${name}`).split("/");
    const kept: string[] = [];
    for (const part of parts) {
        if (part === "..") kept.pop();
        else if (part && part !== ".") kept.push(part);
    }
    return `/${kept.join("/")}`;
}
