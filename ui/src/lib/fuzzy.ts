// How well a text answers what somebody typed.

/** The better, the higher; undefined when it does not answer at all. Letters must come in order, runs and starts of words count. */
export function score(text: string, typed: string): number | undefined {
    const [hay, needle] = [text.toLowerCase(), typed.toLowerCase().replaceAll(" ", "")];
    let [at, total, run] = [0, 0, 0];
    for (const letter of needle) {
        const found = hay.indexOf(letter, at);
        if (found < 0) return undefined;
        run = found === at && at > 0 ? run + 1 : 0;
        const starts = found === 0 || /[^a-z0-9]/.test(hay[found - 1]!);
        total += 1 + run * 2 + (starts ? 4 : 0);
        at = found + 1;
    }
    return total - hay.length / 100;
}
