// A build under way: a folder goes to the engine, and its steps are told as they come.
import type { Failure } from "../backend";
import { Ignore } from "../lib/ignore";
import { archive } from "../lib/tar";
import { Steps } from "./steps.svelte";
import { backend, lines } from "./world.svelte";

/** Bytes of the context in one message. */
const PIECE = 256 << 10;
interface Line {
    id?: string;
    error?: string;
    errorDetail?: { message?: string };
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

/** A name that nobody else has: the build is found in the history by it. */
const unique = (): string =>
    [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export class Build {
    readonly steps = new Steps();
    state = $state<"waiting" | "sending" | "running" | "done" | "failed">("waiting");
    failure = $state("");
    /** The image's id. */
    image = $state("");
    sent = $state(0);
    total = $state(0);
    private id = "";
    private channel: { close(): void } | undefined;

    async run(files: File[], wanted: Wanted): Promise<boolean> {
        this.steps.clear();
        this.failure = this.image = "";
        this.state = "sending";
        // The browser does not tell which files are executable: all are, as when docker builds on Windows.
        const body = archive(await context(files), 0o755);
        this.total = body.size;
        this.sent = 0;
        this.id = unique();
        const query = {
            version: 2,
            buildid: this.id,
            t: wanted.tag || undefined,
            dockerfile: wanted.dockerfile || undefined,
            target: wanted.target || undefined,
            nocache: wanted.fresh || undefined,
        };
        return new Promise((resolve) => {
            const end = (failure?: Failure) => {
                if (failure) this.failure ||= failure.message;
                this.state = this.failure ? "failed" : "done";
                resolve(this.state === "done");
            };
            const channel = backend.open(
                { method: "POST", path: "/build", query, upload: true },
                {
                    begun: () => this.steps.follow(this.id),
                    data: lines((line) => this.hear(JSON.parse(line) as Line)),
                    end,
                },
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
        if (line.errorDetail ?? line.error) this.failure = line.errorDetail?.message ?? line.error ?? "";
        else if (line.id === "moby.image.id") this.image = line.aux?.ID ?? "";
    }

    cancel(): void {
        this.channel?.close();
        this.state = "waiting";
        this.steps.clear();
    }
}
