// What the interface asks, whoever carries it: a browser's page over HTTP and WebSockets, or a window's shell.
import type { Event, Request } from "./types";

export type Code = "refused" | "session" | "asleep" | "daemon" | "alone" | "engine" | "network";

/** Why something was not done, in words for people. */
export class Failure extends Error {
    constructor(
        readonly status: number,
        readonly code: Code,
        message: string,
        readonly hint?: string,
        readonly detail?: string,
    ) {
        super(message);
    }
}

export type Method = "GET" | "HEAD" | "POST" | "PUT" | "DELETE";

export interface Ask {
    method?: Method;
    path: string;
    query?: Record<string, string | number | boolean | object | undefined>;
    json?: unknown;
    body?: Blob;
    auth?: string;
    signal?: AbortSignal;
}

/** A request whose answer goes on. */
export interface Call {
    method: Method;
    path: string;
    query?: Ask["query"];
    body?: unknown;
    auth?: string;
    /** Whether the connection becomes a terminal's. */
    upgrade?: boolean;
    /** Whether an archive is sent over the channel until its `eof`. */
    upload?: boolean;
}

export interface Listener {
    begun?(contentType: string): void;
    /** More is sent only when this has been dealt with. */
    data(bytes: Uint8Array): void | Promise<void>;
    /** The last word: without a failure, all has come. */
    end(failure?: Failure): void;
}

export interface Channel {
    /** The promise is for those who send much: it ends when there is place for more. */
    send(bytes: Uint8Array<ArrayBuffer>): void | Promise<void>;
    /** Says that there will be no more input. */
    eof(): void;
    /** Tells a terminal's measures. */
    resize(columns: number, rows: number): void;
    close(): void;
}

/** What the user has chosen for the window itself. */
export interface Choices {
    /** Tell of containers that end badly. */
    notifications: boolean;
    /** Start with the session, without a window. */
    autostart: boolean;
    /** Go on in the tray when the window is closed. */
    keep_in_tray: boolean;
}

/** The program around the page, where there is one. */
export interface Shell {
    choices(): Promise<Choices>;
    choose(choices: Choices): Promise<void>;
}

export interface Backend {
    /** A window has a shell, a browser has none. */
    readonly shell?: Shell;
    /** Begins; says whether there is somebody to speak to. */
    enter(): Promise<void>;
    /** Asks the engine. */
    ask(ask: Ask): Promise<Response>;
    /** Opens a stream of the engine's. */
    open(call: Call, listener: Listener): Channel;
    /** Asks the daemon; each event is handed over as it comes. */
    daemon(request: Request, event: (event: Event) => void, signal?: AbortSignal): Promise<void>;
    /** Opens a shell in the guest. */
    logIn(columns: number, rows: number, listener: Listener): Channel;
    /** Reads something of the daemon's that goes on. */
    follow(request: Request, event: (event: Event) => void, end: (failure?: Failure) => void): () => void;
}

/** Writes a query as the engine reads it: objects are JSON, what is undefined is left out. */
export function queryOf(query: Ask["query"] = {}): string {
    const pairs = Object.entries(query).filter(([, value]) => value !== undefined);
    const text = pairs.map(([name, value]) => {
        const written = typeof value === "object" ? JSON.stringify(value) : String(value);
        return `${encodeURIComponent(name)}=${encodeURIComponent(written)}`;
    });
    return text.length ? `?${text.join("&")}` : "";
}
