// What terminals are connected to: a command in a container, or a shell in the guest.
import type { Channel, Failure } from "../backend";
import { backend, docker } from "./world.svelte";

export interface Ears {
    data(bytes: Uint8Array): void | Promise<void>;
    /** It is over: with an exit code where there is one, or for a reason. */
    end(code: number | undefined, reason?: string): void;
}

export interface Keys {
    send(bytes: Uint8Array<ArrayBuffer>): void;
    resize(columns: number, rows: number): void;
    close(): void;
}

export type Session = (columns: number, rows: number, ears: Ears) => Keys;

const reason = (failure?: Failure) => (failure && failure.code !== "network" ? failure.message : undefined);

/** A command with a terminal in a running container. */
export const inContainer =
    (id: string, command: string[]): Session =>
    (columns, rows, ears) => {
        let exec = "";
        let channel: Channel | undefined;
        let closed = false;
        let size = [columns, rows] as const;
        const resize = () => {
            if (exec && !closed) docker.resizeExec(exec, ...size).catch(() => undefined);
        };
        const end = async (failure?: Failure) => {
            if (closed) return;
            closed = true;
            const code = exec ? await docker.execCode(exec).catch(() => undefined) : undefined;
            ears.end(code ?? undefined, reason(failure));
        };
        docker.exec(id, command, true).then(
            (made) => {
                exec = made;
                if (closed) return;
                channel = backend.open(
                    { method: "POST", path: `/exec/${made}/start`, body: { Detach: false, Tty: true }, upgrade: true },
                    { begun: resize, data: (bytes) => ears.data(bytes), end: (failure) => void end(failure) },
                );
            },
            (failure: Failure) => void end(failure),
        );
        return {
            send: (bytes) => void channel?.send(bytes),
            resize: (columns, rows) => {
                size = [columns, rows];
                resize();
            },
            close: () => {
                closed = true;
                channel?.close();
            },
        };
    };

/** A shell in the guest, as root. */
export const inGuest: Session = (columns, rows, ears) =>
    backend.logIn(columns, rows, {
        data: (bytes) => ears.data(bytes),
        end: (failure) => ears.end(undefined, reason(failure)),
    });
