// A build under way: a folder goes to the engine, and its steps are told as they come.
import type { Failure } from "../backend";
import { Ignore } from "../lib/ignore";
import { archive } from "../lib/tar";
import { backend, lines } from "./world.svelte";

/** Bytes of the context in one message. */
const PIECE = 256 << 10;
/** Lines of one step that are kept. */
const LINES = 2000;

export interface Step {
    name: string;
    lines: string[];
    state: "running" | "cached" | "done" | "failed";
    begun: number;
    took: number;
}

interface Line {
    stream?: string;
    error?: string;
    errorDetail?: { message?: string };
    status?: string;
    aux?: { ID?: string };
}

export interface Wanted {
    tag: string;
    dockerfile: string;
    target: string;
    fresh: boolean;
}

/** A folder as the browser hands it over, without what it is told to leave out. */
export async function context(files: File[]): Promise<{ name: string; content: Blob; modified: number }[]> {
    // The first part of each path is the folder's own name.
    const inside = (file: File) => file.webkitRelativePath.split("/").slice(1).join("/") || file.name;
    const listed = files.find((file) => inside(file) === ".dockerignore");
    const ignore = new Ignore(listed ? await listed.text() : "");
    return files
        .map((file) => ({ name: inside(file), content: file, modified: file.lastModified / 1000 }))
        .filter(({ name }) => !ignore.leaves(name) || name === ".dockerignore" || /(^|\/)[^/]*Dockerfile$/.test(name));
}

export class Build {
    steps = $state<Step[]>([]);
    state = $state<"waiting" | "sending" | "running" | "done" | "failed">("waiting");
    failure = $state("");
    /** The image's id. */
    image = $state("");
    sent = $state(0);
    total = $state(0);
    private channel: { close(): void } | undefined;

    async run(files: File[], wanted: Wanted): Promise<boolean> {
        this.steps = [];
        this.failure = this.image = "";
        this.state = "sending";
        // The browser does not tell which files are executable: all are, as when docker builds on Windows.
        const body = archive(await context(files), 0o755);
        this.total = body.size;
        this.sent = 0;
        const query = {
            t: wanted.tag || undefined,
            dockerfile: wanted.dockerfile || undefined,
            target: wanted.target || undefined,
            nocache: wanted.fresh || undefined,
            rm: true,
        };
        return new Promise((resolve) => {
            const end = (failure?: Failure) => {
                if (failure) this.failure ||= failure.message;
                this.finish(this.failure ? "failed" : "done");
                this.state = this.failure ? "failed" : "done";
                resolve(this.state === "done");
            };
            const channel = backend.open(
                { method: "POST", path: "/build", query, upload: true },
                { data: lines((line) => this.hear(JSON.parse(line) as Line)), end },
            );
            this.channel = channel;
            void (async () => {
                for (let at = 0; at < body.size && this.state === "sending"; at += PIECE) {
                    await channel.send(new Uint8Array(await body.slice(at, at + PIECE).arrayBuffer()));
                    this.sent = Math.min(body.size, at + PIECE);
                }
                channel.eof();
                if (this.state === "sending") this.state = "running";
            })();
        });
    }

    private hear(line: Line): void {
        if (line.errorDetail ?? line.error) {
            this.failure = line.errorDetail?.message ?? line.error ?? "";
            return;
        }
        if (line.aux?.ID) this.image = line.aux.ID;
        const said = line.stream ?? (line.status ? `${line.status}\n` : "");
        const step = /^Step \d+\/\d+ : (.*)/.exec(said);
        if (step) {
            this.finish("done");
            this.steps.push({ name: step[1]!.trim(), lines: [], state: "running", begun: Date.now(), took: 0 });
            return;
        }
        const last = this.steps.at(-1);
        if (!last) return;
        if (/^\s*---> Using cache/.test(said)) last.state = "cached";
        else if (!/^\s*--->/.test(said) && said.trim()) {
            last.lines.push(...said.replace(/\n$/, "").split("\n"));
            if (last.lines.length > LINES) last.lines.splice(0, last.lines.length - LINES);
        }
    }

    private finish(state: "done" | "failed"): void {
        const last = this.steps.at(-1);
        if (!last || last.took) return;
        last.took = Math.max(1, Date.now() - last.begun);
        if (last.state === "running") last.state = state;
    }

    cancel(): void {
        this.channel?.close();
        this.state = "waiting";
        this.steps = [];
    }
}
