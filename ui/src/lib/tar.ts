// Tar archives, as far as the engine's archive calls need them (POSIX.1-2024, pax, "ustar Interchange Format").

export interface Entry {
    name: string;
    kind: "file" | "directory" | "link" | "other";
    size: number;
    mode: number;
    /** Seconds since 1970. */
    modified: number;
    target: string;
}

const BLOCK = 512;

/** Reads an archive as it comes; the contents of files are handed over only where `wants` says so. */
export class TarReader {
    private pending = new Uint8Array(0);
    private skip = 0;
    private keep: { entry: Entry; parts: Uint8Array[]; left: number } | undefined;
    private long: { name?: string | undefined; target?: string | undefined } = {};

    constructor(
        private readonly entry: (entry: Entry, content: Uint8Array<ArrayBuffer> | undefined) => void,
        private readonly wants: (entry: Entry) => boolean = () => false,
    ) {}

    add(bytes: Uint8Array): void {
        let data = bytes;
        if (this.pending.length) {
            data = new Uint8Array(this.pending.length + bytes.length);
            data.set(this.pending);
            data.set(bytes, this.pending.length);
        }
        let at = 0;
        while (at < data.length) {
            if (this.keep && this.keep.left > 0) {
                const count = Math.min(this.keep.left, data.length - at);
                this.keep.parts.push(data.slice(at, at + count));
                this.keep.left -= count;
                at += count;
                if (this.keep.left > 0) break;
                this.finish();
                continue;
            }
            if (this.skip > 0) {
                const count = Math.min(this.skip, data.length - at);
                this.skip -= count;
                at += count;
                continue;
            }
            if (data.length - at < BLOCK) break;
            this.header(data.subarray(at, at + BLOCK));
            at += BLOCK;
        }
        this.pending = data.slice(at);
    }

    private finish(): void {
        const { entry, parts } = this.keep!;
        this.keep = undefined;
        const content = joined(parts);
        if (entry.name === "././@PaxHeader") {
            const records = paxRecords(new TextDecoder().decode(content));
            this.long = { name: records.get("path"), target: records.get("linkpath") };
        } else if (entry.name === "././@LongLink") this.long.name = new TextDecoder().decode(content).replace(/\0+$/, "");
        else if (entry.name === "././@LongTarget") this.long.target = new TextDecoder().decode(content).replace(/\0+$/, "");
        else this.entry(entry, content);
    }

    private header(block: Uint8Array): void {
        if (block.every((byte) => byte === 0)) return;
        const text = (start: number, length: number) => {
            const field = block.subarray(start, start + length);
            const end = field.indexOf(0);
            return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end));
        };
        const size = number(block.subarray(124, 136));
        const type = String.fromCharCode(block[156] || 48);
        const prefix = text(257, 5) === "ustar" ? text(345, 155) : "";
        const name = prefix ? `${prefix}/${text(0, 100)}` : text(0, 100);
        const kind = type === "5" ? "directory" : type === "2" ? "link" : "0\x007".includes(type) ? "file" : "other";
        const entry: Entry = {
            name: this.long.name ?? name,
            kind: type === "1" ? "file" : kind,
            size,
            mode: number(block.subarray(100, 108)),
            modified: number(block.subarray(136, 148)),
            target: this.long.target ?? text(157, 100),
        };
        const padded = Math.ceil(size / BLOCK) * BLOCK;
        // What stands before an entry and says more about it.
        const extra = { x: "././@PaxHeader", L: "././@LongLink", K: "././@LongTarget" }[type];
        if (extra || (entry.kind === "file" && this.wants(entry))) {
            this.keep = { entry: extra ? { ...entry, name: extra } : entry, parts: [], left: size };
            this.skip = padded - size;
            if (!extra) this.long = {};
            if (size === 0) this.finish();
            return;
        }
        this.skip = padded;
        if (type === "g") return;
        this.long = {};
        this.entry(entry, undefined);
    }
}

function joined(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
        whole.set(part, at);
        at += part.length;
    }
    return whole;
}

/** Octal digits, or base 256 where the first bit is set (GNU tar). */
function number(field: Uint8Array): number {
    if (((field[0] ?? 0) & 0x80) !== 0) {
        return field.subarray(1).reduce((sum, byte) => sum * 256 + byte, (field[0] ?? 0) & 0x7f);
    }
    const value = Number.parseInt(new TextDecoder().decode(field).replace(/\0.*$/, "").trim() || "0", 8);
    return Number.isFinite(value) ? value : 0;
}

function paxRecords(text: string): Map<string, string> {
    const records = new Map<string, string>();
    for (const line of text.split("\n")) {
        const match = /^\d+ ([^=]+)=(.*)$/.exec(line);
        if (match) records.set(match[1]!, match[2]!);
    }
    return records;
}

/** Makes an archive of files, all of them with this mode. */
export function archive(files: { name: string; content: Blob; modified: number }[], mode = 0o644): Blob {
    const parts: BlobPart[] = [];
    for (const file of files) {
        const name = new TextEncoder().encode(file.name);
        if (name.length > 100) {
            parts.push(
                header("././@LongLink", name.length + 1, 0, "L", 0o644),
                name,
                new Uint8Array(1),
                padding(name.length + 1),
            );
        }
        parts.push(header(file.name, file.content.size, file.modified, "0", mode), file.content, padding(file.content.size));
    }
    parts.push(new Uint8Array(BLOCK * 2));
    return new Blob(parts, { type: "application/x-tar" });
}

function padding(size: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

function header(name: string, size: number, modified: number, type: string, mode: number): Uint8Array<ArrayBuffer> {
    const block = new Uint8Array(BLOCK);
    const put = (at: number, text: string) => block.set(new TextEncoder().encode(text).subarray(0, 100), at);
    put(0, name);
    put(100, `${mode.toString(8).padStart(7, "0")}\0`);
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, size < 8 ** 11 ? `${size.toString(8).padStart(11, "0")}\0` : "");
    if (size >= 8 ** 11) {
        block[124] = 0x80;
        for (let index = 0, rest = size; index < 11; index++, rest = Math.floor(rest / 256)) block[135 - index] = rest % 256;
    }
    put(136, `${Math.floor(modified).toString(8).padStart(11, "0")}\0`);
    put(148, "        ");
    put(156, type);
    put(257, "ustar\0" + "00");
    const sum = block.reduce((total, byte) => total + byte, 0);
    put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
    return block;
}
