// A pull or push under way, layer by layer.
import { Failure } from "../backend";
import type { CreateImageInfo } from "../backend/types";
import { backend, lines } from "./world.svelte";

export interface Layer {
    id: string;
    status: string;
    current: number;
    total: number;
}

interface Line extends CreateImageInfo {
    error?: string;
}

/** Splits a reference into name and tag (or digest), as the engine wants them. */
export function reference(text: string): { name: string; tag: string } {
    const at = text.indexOf("@");
    if (at > 0) return { name: text.slice(0, at), tag: text.slice(at + 1) };
    const colon = text.lastIndexOf(":");
    if (colon > text.lastIndexOf("/")) return { name: text.slice(0, colon), tag: text.slice(colon + 1) };
    return { name: text, tag: "latest" };
}

export class Transfer {
    layers = $state<Layer[]>([]);
    /** What is said about the whole. */
    said = $state("");
    state = $state<"waiting" | "running" | "done" | "failed">("waiting");
    failure = $state("");
    private channel: { close(): void } | undefined;

    pull(image: string): Promise<boolean> {
        const { name, tag } = reference(image);
        return this.run({ path: "/images/create", query: { fromImage: name, tag } });
    }

    push(image: string, login?: { username: string; password: string }): Promise<boolean> {
        const { name, tag } = reference(image);
        const server =
            name.includes("/") && /[.:]|^localhost/.test(name.split("/")[0]!)
                ? name.split("/")[0]!
                : "https://index.docker.io/v1/";
        const json = JSON.stringify(login ? { ...login, serveraddress: server } : {});
        const auth = btoa(String.fromCharCode(...new TextEncoder().encode(json)))
            .replaceAll("+", "-")
            .replaceAll("/", "_");
        return this.run({ path: `/images/${name}/push`, query: { tag }, auth });
    }

    private run(call: { path: string; query: Record<string, string>; auth?: string }): Promise<boolean> {
        this.layers = [];
        this.failure = this.said = "";
        this.state = "running";
        return new Promise((resolve) => {
            const end = (failure?: Failure) => {
                if (failure) this.failure ||= failure.message;
                this.state = this.failure ? "failed" : "done";
                resolve(this.state === "done");
            };
            this.channel = backend.open(
                { method: "POST", ...call },
                { data: lines((line) => this.hear(JSON.parse(line) as Line)), end },
            );
        });
    }

    private hear(line: Line): void {
        if (line.errorDetail ?? line.error) {
            this.failure = line.errorDetail?.message ?? line.error ?? "";
            return;
        }
        if (!line.id || line.status?.startsWith("Pulling from")) {
            this.said = line.status ?? "";
            return;
        }
        let layer = this.layers.find((one) => one.id === line.id);
        if (!layer) {
            this.layers.push({ id: line.id, status: "", current: 0, total: 0 });
            layer = this.layers.at(-1)!;
        }
        layer.status = line.status ?? "";
        layer.current = line.progressDetail?.current ?? layer.current;
        layer.total = line.progressDetail?.total ?? layer.total;
        if (/complete|exists|pushed/i.test(layer.status)) layer.current = layer.total = Math.max(layer.total, 1);
    }

    cancel(): void {
        this.channel?.close();
        this.state = "waiting";
        this.layers = [];
    }
}
