// The colours of a program's output, as spans of text. Whatever else steers a terminal is left out.

export interface Span {
    text: string;
    /** Names of styles: `b` bold, `d` dim, `i` italic, `u` underlined, `f0`…`f15` and `g0`…`g15` colours of text and ground. */
    style: string;
    /** A colour beyond the sixteen. */
    color?: string;
}

interface State {
    bold: boolean;
    dim: boolean;
    italic: boolean;
    underline: boolean;
    fore: string;
    ground: string;
    color: string | undefined;
}

const PLAIN: State = { bold: false, dim: false, italic: false, underline: false, fore: "", ground: "", color: undefined };
/** CSI sequences, OSC sequences, other escapes, and control characters but the tab (ECMA-48). */

const SEQUENCE =
    /\x1b\[([0-9;:?<=>]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f]/g;

/** Cuts a line into spans. */
export function spans(line: string): Span[] {
    if (!needsWork(line)) return [{ text: line, style: "" }];
    const found: Span[] = [];
    let state = { ...PLAIN };
    let at = 0;
    const add = (text: string) => {
        if (!text) return;
        const style = styleOf(state);
        found.push(state.color ? { text, style, color: state.color } : { text, style });
    };
    // A carriage return starts the line anew: progress bars end as what they said last.
    const text = lastRewrite(line);
    for (const match of text.matchAll(SEQUENCE)) {
        add(text.slice(at, match.index));
        at = match.index + match[0].length;
        if (match[2] === "m") state = apply(state, match[1] ?? "");
    }
    add(text.slice(at));
    return found;
}

/** The text of a line without anything that steers. */
export function plain(line: string): string {
    return needsWork(line) ? lastRewrite(line).replace(SEQUENCE, "") : line;
}

function needsWork(line: string): boolean {
    for (let index = 0; index < line.length; index++) {
        const code = line.charCodeAt(index);
        if ((code < 32 && code !== 9) || code === 127) return true;
    }
    return false;
}

function lastRewrite(line: string): string {
    const text = line.endsWith("\r") ? line.slice(0, -1) : line;
    const index = text.lastIndexOf("\r");
    return index < 0 ? text : text.slice(index + 1);
}

function styleOf(state: State): string {
    const names = [
        state.bold && "b",
        state.dim && "d",
        state.italic && "i",
        state.underline && "u",
        state.fore,
        state.ground,
    ];
    return names.filter(Boolean).join(" ");
}

function ink(state: State, fore: string, color?: string): void {
    state.fore = fore;
    state.color = color;
}

function apply(before: State, parameters: string): State {
    const state = { ...before };
    const codes = parameters.split(/[;:]/).map((code) => Number(code || 0));
    for (let index = 0; index < codes.length; index++) {
        const code = codes[index] ?? 0;
        if (code === 0) Object.assign(state, PLAIN);
        else if (code === 1) state.bold = true;
        else if (code === 2) state.dim = true;
        else if (code === 3) state.italic = true;
        else if (code === 4) state.underline = true;
        else if (code === 22) state.bold = state.dim = false;
        else if (code === 23) state.italic = false;
        else if (code === 24) state.underline = false;
        else if (code >= 30 && code <= 37) ink(state, `f${code - 30}`);
        else if (code >= 90 && code <= 97) ink(state, `f${code - 82}`);
        else if (code === 39) ink(state, "");
        else if (code >= 40 && code <= 47) state.ground = `g${code - 40}`;
        else if (code >= 100 && code <= 107) state.ground = `g${code - 92}`;
        else if (code === 49) state.ground = "";
        else if (code === 38 || code === 48) {
            const [named, color, used] = extended(codes.slice(index + 1));
            index += used;
            if (code === 38) ink(state, named === undefined ? "" : `f${named}`, color);
            else state.ground = named === undefined ? "" : `g${named}`;
        }
    }
    return state;
}

/** A colour of 256 or of millions: its number among the sixteen or its value, and how many codes it took. */
function extended(codes: number[]): [number | undefined, string | undefined, number] {
    const byte = (value: number | undefined) => Math.max(0, Math.min(255, value ?? 0));
    if (codes[0] === 5) {
        const number = byte(codes[1]);
        if (number < 16) return [number, undefined, 2];
        if (number >= 232) {
            const grey = (number - 232) * 10 + 8;
            return [undefined, `rgb(${grey} ${grey} ${grey})`, 2];
        }
        const level = (step: number) => (step === 0 ? 0 : step * 40 + 55);
        const cube = number - 16;
        const [red, green, blue] = [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level);
        return [undefined, `rgb(${red} ${green} ${blue})`, 2];
    }
    if (codes[0] === 2) return [undefined, `rgb(${byte(codes[1])} ${byte(codes[2])} ${byte(codes[3])})`, 4];
    return [undefined, undefined, 1];
}
