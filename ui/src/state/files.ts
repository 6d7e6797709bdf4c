// Files of a container: through its own `ls` while it runs, else through the engine's archives. And those of a volume.
import { Frames } from "../lib/frames";
import { type Item, join, listing, modeText, sorted } from "../lib/listing";
import { type Entry, TarReader } from "../lib/tar";
import { backend, docker } from "./world.svelte";

/** Bytes of an archive that are read for the sake of a list. */
const ENOUGH = 64 << 20;

export interface Directory {
    items: Item[];
    /** Whether there may be more. */
    cut: boolean;
}

/** Whose files are shown. */
export interface Place {
    /** Changes when it is another one. */
    key: string;
    list(path: string): Promise<Directory>;
    archive(path: string, signal?: AbortSignal): Promise<Response>;
    upload(path: string, archive: Blob): Promise<void>;
}

export const ofContainer = (id: string, running: boolean): Place => ({
    key: id,
    list: (path) => list(id, path, running),
    archive: (path, signal) => docker.archive(id, path, signal),
    upload: (path, archive) => docker.upload(id, path, archive),
});

export const ofVolume = (name: string): Place => ({
    key: name,
    list: async (path) => {
        const { Files, Cut } = await docker.volumeFiles(name, path);
        const items = Files.map((file) => ({
            name: file.Name,
            kind: file.Kind,
            size: file.Size,
            mode: modeText(file.Kind, file.Mode),
            modified: new Date(file.Modified).toLocaleString(),
            target: file.Target,
        }));
        return { items: sorted(items), cut: Cut };
    },
    archive: (path, signal) => docker.volumeArchive(name, path, signal),
    upload: (path, archive) => docker.uploadToVolume(name, path, archive),
});

async function list(id: string, path: string, running: boolean): Promise<Directory> {
    if (running) {
        const text = await ask(id, ["ls", "-lAn", "--", `${path.replace(/\/$/, "")}/`]).catch(() => undefined);
        if (text !== undefined) return { items: listing(text), cut: false };
    }
    return fromArchive(id, path);
}

/** What a command says, if it ends well. */
async function ask(id: string, command: string[]): Promise<string> {
    const exec = await docker.exec(id, command, false);
    let text = "";
    const decoder = new TextDecoder();
    await new Promise<void>((resolve, reject) => {
        const frames = new Frames((output, bytes) => {
            if (output === "stdout") text += decoder.decode(bytes, { stream: true });
        });
        backend.open(
            { method: "POST", path: `/exec/${exec}/start`, body: { Detach: false, Tty: false }, upgrade: true },
            { data: (bytes) => frames.add(bytes), end: (failure) => (failure ? reject(failure) : resolve()) },
        );
    });
    const code = await docker.execCode(exec);
    if (code !== 0) throw new Error(`exit code ${code}`);
    return text;
}

async function fromArchive(id: string, path: string): Promise<Directory> {
    const stop = new AbortController();
    const answer = await docker.archive(id, path === "/" ? "/." : `${path}/.`, stop.signal);
    const found = new Map<string, Item>();
    let root: string | undefined;
    const reader = new TarReader((entry: Entry) => {
        const whole = entry.name.replace(/\/$/, "");
        // The first entry is the directory itself.
        if (root === undefined) {
            root = whole;
            return;
        }
        const name = (root === "." ? whole.replace(/^\.\//, "") : whole.slice(root.length + 1)).replace(/^\//, "");
        if (!name || name.includes("/")) return;
        found.set(name, {
            name,
            kind: entry.kind,
            size: entry.size,
            mode: modeText(entry.kind, entry.mode),
            modified: entry.modified ? new Date(entry.modified * 1000).toLocaleString() : "",
            target: entry.kind === "link" ? entry.target : "",
        });
    });
    const bytes = answer.body!.getReader();
    let total = 0;
    for (;;) {
        const { done, value } = await bytes.read();
        if (done) break;
        total += value.length;
        reader.add(value);
        if (total > ENOUGH) {
            stop.abort();
            break;
        }
    }
    return { items: sorted([...found.values()]), cut: total > ENOUGH };
}

/** The contents of one file. */
export async function read(place: Place, path: string, limit = Number.POSITIVE_INFINITY): Promise<Uint8Array<ArrayBuffer>> {
    const answer = await place.archive(path);
    let content: Uint8Array<ArrayBuffer> | undefined;
    let size = 0;
    let link = "";
    const reader = new TarReader(
        (entry, bytes) => {
            if (entry.kind === "link") link = entry.target;
            size = entry.size;
            content = bytes ?? content;
        },
        (entry) => entry.size <= limit,
    );
    const bytes = answer.body!.getReader();
    for (;;) {
        const { done, value } = await bytes.read();
        if (done) break;
        reader.add(value);
        if (size > limit) {
            await bytes.cancel();
            break;
        }
    }
    if (link) return read(place, join(path.replace(/\/[^/]*$/, ""), link), limit);
    if (!content) throw new TooLarge(size);
    return content;
}

/** A file that is not shown because of its size. */
export class TooLarge extends Error {
    constructor(readonly size: number) {
        super("the file is too large");
    }
}

/** Hands a blob to the browser as a download. */
export function save(blob: Blob, name: string): void {
    const url = URL.createObjectURL(blob);
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
