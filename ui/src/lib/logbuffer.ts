// The lines of a log, the last million of them.
import type { Output } from "./frames";
import { plain } from "./ansi";

export interface Line {
    /** Number since the beginning, from 0. */
    number: number;
    /** What came before the first space where the engine was asked for times. */
    time: string;
    text: string;
    output: Output;
}

export interface Limits {
    lines: number;
    /** Characters of all lines together. */
    characters: number;
}

const DEFAULT: Limits = { lines: 1_000_000, characters: 256 << 20 };
/** A line longer than this is cut: nobody reads it, and it would stop the page. */
const LONGEST = 16 << 10;

/** Keeps lines in a ring. The oldest go when there are too many. */
export class LogBuffer {
    private ring: (Line | undefined)[] = [];
    private start = 0;
    private count = 0;
    private characters = 0;
    /** How many lines there have been. */
    total = 0;
    private partial: Record<Output, string> = { stdout: "", stderr: "" };
    private decoders: Record<Output, TextDecoder> = { stdout: new TextDecoder(), stderr: new TextDecoder() };

    constructor(
        private readonly limits: Limits = DEFAULT,
        private readonly timed = true,
    ) {}

    get length(): number {
        return this.count;
    }

    /** The number of the oldest line that is still here. */
    get first(): number {
        return this.total - this.count;
    }

    at(index: number): Line | undefined {
        return index < 0 || index >= this.count ? undefined : this.ring[(this.start + index) % this.ring.length];
    }

    /** Adds output; lines come out of it when their end has come. */
    add(output: Output, bytes: Uint8Array): void {
        const text = this.decoders[output].decode(bytes, { stream: true });
        const pieces = text.split("\n");
        pieces[0] = this.partial[output] + (pieces[0] ?? "");
        let rest = pieces.pop() ?? "";
        if (rest.length > LONGEST * 2) rest = rest.slice(0, LONGEST * 2);
        this.partial[output] = rest;
        for (const piece of pieces) this.push(output, piece);
    }

    /** Takes what has no end as a line: there will be no more. */
    finish(): void {
        for (const output of ["stdout", "stderr"] as const) {
            if (this.partial[output]) this.push(output, this.partial[output]);
            this.partial[output] = "";
        }
    }

    private push(output: Output, raw: string): void {
        const space = this.timed ? raw.indexOf(" ") : -1;
        const time = space > 0 ? raw.slice(0, space) : "";
        let text = space > 0 ? raw.slice(space + 1) : raw;
        if (text.length > LONGEST) text = `${text.slice(0, LONGEST)}…`;
        const line = { number: this.total, time, text, output };
        this.total += 1;
        this.characters += text.length;
        if (this.count < this.ring.length) {
            this.ring[(this.start + this.count) % this.ring.length] = line;
            this.count += 1;
        } else if (this.ring.length < this.limits.lines) {
            // The ring grows while it has not begun to turn.
            if (this.start > 0) {
                this.ring = [...this.ring.slice(this.start), ...this.ring.slice(0, this.start)];
                this.start = 0;
            }
            this.ring.push(line);
            this.count += 1;
        } else {
            this.drop();
            this.ring[(this.start + this.count) % this.ring.length] = line;
            this.count += 1;
        }
        while (this.characters > this.limits.characters && this.count > 1) this.drop();
    }

    private drop(): void {
        this.characters -= this.ring[this.start]?.text.length ?? 0;
        this.ring[this.start] = undefined;
        this.start = (this.start + 1) % this.ring.length;
        this.count -= 1;
    }

    /** Numbers of lines with `needle` in them, from `from` on; without regard to case. */
    search(needle: string, from = 0): number[] {
        const wanted = needle.toLowerCase();
        const found: number[] = [];
        if (!wanted) return found;
        for (let index = Math.max(0, from - this.first); index < this.count; index++) {
            const line = this.at(index);
            if (line && plain(line.text).toLowerCase().includes(wanted)) found.push(line.number);
        }
        return found;
    }

    /** All of it as text. */
    text(withTimes: boolean): string[] {
        const parts: string[] = [];
        for (let index = 0; index < this.count; index++) {
            const line = this.at(index)!;
            parts.push(`${withTimes && line.time ? `${line.time} ` : ""}${plain(line.text)}\n`);
        }
        return parts;
    }
}
