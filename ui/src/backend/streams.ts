// Streams of engine and daemon over messages, whatever carries those; `crates/dashboard/src/stream.rs` is at the other end.
import { type Call, type Channel, type Code, Failure, type Listener, queryOf } from "./index";
import type { Event, Request as Order } from "./types";

/** Bytes that are dealt with before the other end is told. */
const CREDIT = 64 << 10;

type Told =
    | { begun: { status: number; contentType: string } }
    | { error: { status?: number; code: Code; message: string } }
    | { end: true };

/** A way for messages: text is JSON. */
export interface Pipe {
    /** What is sent before the pipe is open waits. */
    send(message: string | Uint8Array<ArrayBuffer>): void | Promise<void>;
    close(): void;
}

export interface Ears {
    said(message: string | ArrayBuffer): void;
    /** No more will be said. */
    closed(): void;
}

export abstract class Streams {
    protected abstract dial(ears: Ears): Pipe;

    follow(request: Order, event: (event: Event) => void, end: (failure?: Failure) => void): () => void {
        const lines = new Lines((line) => told(line, event));
        const data = (bytes: Uint8Array) => {
            try {
                lines.add(bytes);
            } catch (error) {
                // The daemon's last word was that it failed.
                channel.close();
                end(error instanceof Failure ? error : new Failure(0, "engine", String(error)));
            }
        };
        const channel: Channel = this.begin({ control: request }, { data, end });
        return () => channel.close();
    }

    open({ query, path, ...rest }: Call, listener: Listener): Channel {
        return this.begin({ docker: { ...rest, path: path + queryOf(query) } }, listener);
    }

    logIn(columns: number, rows: number, listener: Listener): Channel {
        return this.begin({ shell: { columns, rows } }, listener);
    }

    protected begin(first: unknown, listener: Listener): Channel {
        let over = false;
        let dealt = 0;
        const end = (failure?: Failure) => {
            if (over) return;
            over = true;
            listener.end(failure);
            pipe.close();
        };
        let chain = Promise.resolve();
        const pipe = this.dial({
            said: (message) => {
                if (typeof message === "string") {
                    const told = JSON.parse(message) as Told;
                    if ("begun" in told) listener.begun?.(told.begun.contentType);
                    else if ("error" in told) end(new Failure(told.error.status ?? 0, told.error.code, told.error.message));
                    else chain = chain.then(() => end());
                    return;
                }
                const size = message.byteLength;
                chain = chain
                    .then(() => (over ? undefined : listener.data(new Uint8Array(message))))
                    .then(() => {
                        dealt += size;
                        if (over || (dealt < CREDIT && size < CREDIT)) return;
                        void pipe.send(JSON.stringify({ credit: dealt }));
                        dealt = 0;
                    });
            },
            closed: () => {
                // What has come is dealt with before the end is told.
                chain = chain.then(() => end(new Failure(0, "network", "the connection has ended")));
            },
        });
        void pipe.send(JSON.stringify(first));
        return {
            send: (bytes) => pipe.send(bytes),
            eof: () => void pipe.send(JSON.stringify({ eof: null })),
            resize: (columns, rows) => void pipe.send(JSON.stringify({ resize: [columns, rows] })),
            close: () => {
                over = true;
                pipe.close();
            },
        };
    }
}

/** Hands an event of the daemon's over; its last word may be that it failed. */
export function told(line: string, hand: (event: Event) => void): void {
    const event = JSON.parse(line) as Event;
    if (event.event === "error") {
        throw new Failure(0, "engine", event.message, event.hint ?? undefined, event.detail ?? undefined);
    }
    hand(event);
}

/** Cuts bytes into lines. */
export class Lines {
    private rest = "";
    private readonly decoder = new TextDecoder();

    constructor(private readonly line: (line: string) => void) {}

    add(bytes: Uint8Array): void {
        const lines = (this.rest + this.decoder.decode(bytes, { stream: true })).split("\n");
        this.rest = lines.pop() ?? "";
        for (const line of lines) if (line) this.line(line);
    }
}
