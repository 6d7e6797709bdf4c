// The transport of a browser's page: `skiff dashboard` at the other end.
import { type Ask, type Backend, type Code, Failure, queryOf } from "./index";
import { type Ears, Lines, type Pipe, Streams, told } from "./streams";
import type { Event, Request as Order } from "./types";

/** Belongs to this port alone, unlike a cookie. */
const KEY = "skiff-key";

export class HttpBackend extends Streams implements Backend {
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

    protected dial(ears: Ears): Pipe {
        const socket = new WebSocket(`ws://${location.host}/stream`, ["skiff", `key.${this.key()}`]);
        socket.binaryType = "arraybuffer";
        socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => ears.said(data);
        socket.onclose = () => ears.closed();
        return {
            send: (message) => {
                if (socket.readyState === WebSocket.OPEN) socket.send(message);
                else if (socket.readyState === WebSocket.CONNECTING)
                    socket.addEventListener("open", () => socket.send(message), { once: true });
            },
            close: () => socket.close(),
        };
    }
}
