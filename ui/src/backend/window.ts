// The transport of the desktop's window: its shell carries the messages in both directions.
import { Channel, invoke } from "@tauri-apps/api/core";
import { type Ask, type Backend, type Choices, queryOf, type Shell } from "./index";
import { type Ears, type Pipe, Streams } from "./streams";
import type { Event, Request as Order } from "./types";

/** Bytes of an upload in one message. */
const PIECE = 256 << 10;

/** Whether this page is in a window of the desktop's. */
export const isWindow = (): boolean => "__TAURI_INTERNALS__" in window;

export class WindowBackend extends Streams implements Backend {
    readonly shell: Shell = {
        choices: () => invoke<Choices>("choices"),
        choose: (choices) => invoke("choose", { choices }),
    };

    async enter(): Promise<void> {
        // Streams of a page that was left or loaded anew.
        await invoke("enter");
    }

    async ask({ method = "GET", path, query, json, body, auth, signal }: Ask): Promise<Response> {
        return new Promise((resolve, reject) => {
            // Nothing is read further than the page has taken.
            let taken: (() => void) | undefined;
            let out: ReadableStreamDefaultController<Uint8Array> | undefined;
            let over = false;
            const stream = new ReadableStream<Uint8Array>(
                {
                    start: (controller) => void (out = controller),
                    pull: () => taken?.(),
                    cancel: () => channel.close(),
                },
                new ByteLengthQueuingStrategy({ highWaterMark: 1 << 18 }),
            );
            const channel = this.open(
                {
                    method,
                    path: path + queryOf(query),
                    ...(json === undefined ? {} : { body: json }),
                    ...(auth ? { auth } : {}),
                    ...(body ? { upload: true } : {}),
                },
                {
                    begun: (type) => resolve(new Response(stream, { headers: { "content-type": type } })),
                    data: (bytes) => {
                        out?.enqueue(bytes);
                        if ((out?.desiredSize ?? 1) > 0) return;
                        return new Promise<void>((resolve) => (taken = resolve));
                    },
                    end: (failure) => {
                        over = true;
                        if (failure) {
                            reject(failure);
                            out?.error(failure);
                        } else out?.close();
                    },
                },
            );
            signal?.addEventListener("abort", () => {
                const reason = new DOMException("aborted", "AbortError");
                channel.close();
                taken?.();
                reject(reason);
                if (!over) out?.error(reason);
            });
            if (body) void upload(body, channel);
        });
    }

    daemon(request: Order, event: (event: Event) => void, signal?: AbortSignal): Promise<void> {
        return new Promise((resolve, reject) => {
            const stop = this.follow(request, event, (failure) => (failure ? reject(failure) : resolve()));
            signal?.addEventListener("abort", () => {
                stop();
                reject(new DOMException("aborted", "AbortError"));
            });
        });
    }

    protected dial(ears: Ears): Pipe {
        // A message is text as a JSON value, or bytes; null is the end.
        const channel = new Channel<object | ArrayBuffer | null>((message) => {
            if (message === null) ears.closed();
            else ears.said(message instanceof ArrayBuffer ? message : JSON.stringify(message));
        });
        let closed = false;
        const id = invoke<number>("pipe_open", { channel });
        // One after the other: calls may overtake each other.
        let chain: Promise<unknown> = id;
        id.catch(() => ears.closed());
        return {
            send: (message) => {
                const sent = chain.then(async () => {
                    if (closed) return;
                    const to = await id;
                    if (typeof message === "string") await invoke("pipe_tell", { id: to, text: message });
                    else await invoke("pipe_send", message, { headers: { "skiff-pipe": String(to) } });
                });
                // A pipe that has ended tells so by itself.
                chain = sent.catch(() => undefined);
                return chain as Promise<void>;
            },
            close: () => {
                if (closed) return;
                closed = true;
                void id.then((id) => invoke("pipe_close", { id })).catch(() => undefined);
            },
        };
    }
}

async function upload(body: Blob, channel: { send(bytes: Uint8Array<ArrayBuffer>): void | Promise<void>; eof(): void }) {
    for (let at = 0; at < body.size; at += PIECE) {
        await channel.send(new Uint8Array(await body.slice(at, at + PIECE).arrayBuffer()));
    }
    channel.eof();
}
