// Output and errors of a container in one stream: a header of eight bytes before each piece (Docker API, "Stream format").

export type Output = "stdout" | "stderr";

/** Cuts a stream of frames into the pieces of both outputs; pieces come as soon as there is any of them. */
export class Frames {
    private header = new Uint8Array(8);
    private have = 0;
    private left = 0;
    private output: Output = "stdout";

    constructor(private readonly piece: (output: Output, bytes: Uint8Array) => void) {}

    add(bytes: Uint8Array): void {
        let at = 0;
        while (at < bytes.length) {
            if (this.left === 0) {
                const count = Math.min(8 - this.have, bytes.length - at);
                this.header.set(bytes.subarray(at, at + count), this.have);
                this.have += count;
                at += count;
                if (this.have < 8) return;
                this.have = 0;
                this.output = this.header[0] === 2 ? "stderr" : "stdout";
                this.left = new DataView(this.header.buffer).getUint32(4);
                continue;
            }
            const count = Math.min(this.left, bytes.length - at);
            this.piece(this.output, bytes.subarray(at, at + count));
            this.left -= count;
            at += count;
        }
    }
}
