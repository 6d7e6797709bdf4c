// What an engine's refusal is about.

/** The port of this computer that it is about, where it is about one. */
export function portOf(message: string): number | undefined {
    if (!/already allocated|already in use|in use by|cannot publish|not publish|permission denied/i.test(message)) return;
    const found = /(?:\d{1,3}(?:\.\d{1,3}){3}:|\[[\da-f:]*\]:|localhost:|\bport )(\d{1,5})\b/i.exec(message);
    const port = Number(found?.[1]);
    return port > 0 && port < 65_536 ? port : undefined;
}
