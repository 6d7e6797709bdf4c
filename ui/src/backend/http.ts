// The transport of a browser's page: `skiff dashboard` at the other end.
import { type Ask, type Backend, type Call, type Channel, type Code, Failure, type Listener, queryOf } from "./index";
import type { Event, Request as Order } from "./types";

/** Belongs to this port alone, unlike a cookie. */
const KEY = "skiff-key";
/** Bytes that are dealt with before the other end is told. */
const CREDIT = 64 << 10;

type Told = { begun: { status: number; contentType: string } } | { error: { code: Code; message: string } } | { end: true };

export class HttpBackend implements Backend {
    async enter(): Promise<void> {
        const token = new URLSearchParams(location.hash.slice(1)).get("token");
        if (!token) return;
        // Used up, it is of no more interest to anybody who looks at the address.
        history.replaceState(null, "", "#/");
        const answer = await this.fetch("/session", { method: "POST", body: JSON.stringify({ token }) });
        const { key } = (await answer.json()) as { key: string };
        localStorage.setItem(KEY, key);
    }

    private async fetch(path: string, init: RequestInit): Promise<Response> {
        let answer: Response;
        try {
            answer = await fetch(path, init);
        } catch (error) {
            if (init.signal?.aborted) throw error;
            throw new Failure(0, "network", "the dashboard does not answer");
        }
        if (answer.ok) return answer;
        const text = await answer.text();
        let body: { message?: string; code?: Code } = {};
        try {
            body = JSON.parse(text) as typeof body;
        } catch {
            body = { message: text };
        }
        throw new Failure(answer.status, body.code ?? "refused", body.message || `status ${answer.status}`);
    }

    private key(): string {
        return localStorage.getItem(KEY) ?? "";
    }

    ask({ method = "GET", path, query, json, body, auth, signal }: Ask): Promise<Response> {
        const headers: Record<string, string> = { "x-skiff-key": this.key() };
        if (json !== undefined) headers["content-type"] = "application/json";
        if (body) headers["content-type"] = "application/x-tar";
        if (auth) headers["x-registry-auth"] = auth;
        const init: RequestInit = { method, headers, signal: signal ?? null };
        if (json !== undefined) init.body = JSON.stringify(json);
        if (body) init.body = body;
        return this.fetch(`/docker${path}${queryOf(query)}`, init);
    }

    async daemon(request: Order, event: (event: Event) => void, signal?: AbortSignal): Promise<void> {
        const headers = { "x-skiff-key": this.key() };
        const init = { method: "POST", headers, body: JSON.stringify(request), signal: signal ?? null };
        const answer = await this.fetch("/control", init);
        const lines = new Lines((line) => told(line, event));
        const reader = answer.body!.getReader();
        for (;;) {
            const { done, value } = await reader.read();
            if (done) return;
            lines.add(value);
        }
    }

    follow(request: Order, event: (event: Event) => void, end: (failure?: Failure) => void): () => void {
        const lines = new Lines((line) => told(line, event));
        const channel = this.socket({ control: request }, { data: (bytes) => lines.add(bytes), end });
        return () => channel.close();
    }

    open({ query, path, ...rest }: Call, listener: Listener): Channel {
        return this.socket({ docker: { ...rest, path: path + queryOf(query) } }, listener);
    }

    private socket(first: unknown, listener: Listener): Channel {
        const socket = new WebSocket(`ws://${location.host}/stream`, ["skiff", `key.${this.key()}`]);
        socket.binaryType = "arraybuffer";
        let over = false;
        let dealt = 0;
        const end = (failure?: Failure) => {
            if (over) return;
            over = true;
            listener.end(failure);
            socket.close();
        };
        let chain = Promise.resolve();
        socket.onopen = () => socket.send(JSON.stringify(first));
        socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
            if (typeof data === "string") {
                const message = JSON.parse(data) as Told;
                if ("begun" in message) listener.begun?.(message.begun.contentType);
                else if ("error" in message) end(new Failure(0, message.error.code, message.error.message));
                else chain = chain.then(() => end());
                return;
            }
            const size = data.byteLength;
            chain = chain
                .then(() => (over ? undefined : listener.data(new Uint8Array(data))))
                .then(() => {
                    dealt += size;
                    if (dealt < CREDIT && size < CREDIT) return;
                    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ credit: dealt }));
                    dealt = 0;
                });
        };
        socket.onclose = () => {
            // What has come is dealt with before the end is told.
            chain = chain.then(() => end(new Failure(0, "network", "the connection has ended")));
        };
        const ready = (send: () => void) => {
            if (socket.readyState === WebSocket.OPEN) send();
            else if (socket.readyState === WebSocket.CONNECTING) socket.addEventListener("open", send, { once: true });
        };
        return {
            send: (bytes) => ready(() => socket.send(bytes)),
            eof: () => ready(() => socket.send(JSON.stringify({ eof: null }))),
            close: () => {
                over = true;
                socket.close();
            },
        };
    }
}

/** Hands an event of the daemon's over; its last word may be that it failed. */
function told(line: string, hand: (event: Event) => void): void {
    const event = JSON.parse(line) as Event;
    if (event.event === "error") {
        throw new Failure(0, "engine", event.message, event.hint ?? undefined, event.detail ?? undefined);
    }
    hand(event);
}

/** Cuts bytes into lines. */
class Lines {
    private rest = "";
    private readonly decoder = new TextDecoder();

    constructor(private readonly line: (line: string) => void) {}

    add(bytes: Uint8Array): void {
        const lines = (this.rest + this.decoder.decode(bytes, { stream: true })).split("\n");
        this.rest = lines.pop() ?? "";
        for (const line of lines) if (line) this.line(line);
    }
}
