// Which rows of a long list are drawn.

export interface Slice {
    from: number;
    to: number;
}

/** Rows that are drawn beyond what is seen, so that quick scrolling shows no gap. */
const MARGIN = 12;

/** The rows that a window shows whose top is `above` pixels below the list's. */
export function slice(many: number, row: number, above: number, height: number): Slice {
    const from = Math.max(0, Math.min(many, Math.floor(above / row) - MARGIN));
    const to = Math.min(many, Math.max(from, Math.ceil((above + height) / row) + MARGIN));
    return { from, to };
}
