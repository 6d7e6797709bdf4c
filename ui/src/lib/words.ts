// Command lines as people type them.

/** Splits at spaces, but not within quotes; a backslash keeps what follows (POSIX.1-2024, 2.2). */
export function words(line: string): string[] {
    const found: string[] = [];
    let word: string | undefined;
    let quote = "";
    for (let index = 0; index < line.length; index++) {
        const char = line[index]!;
        if (quote) {
            if (char === quote) quote = "";
            else if (char === "\\" && quote === '"' && '"\\$`'.includes(line[index + 1] ?? " ")) word += line[++index]!;
            else word += char;
        } else if (char === "'" || char === '"') {
            quote = char;
            word ??= "";
        } else if (char === "\\" && index + 1 < line.length) word = (word ?? "") + line[++index]!;
        else if (/\s/.test(char)) {
            if (word !== undefined) found.push(word);
            word = undefined;
        } else word = (word ?? "") + char;
    }
    if (word !== undefined) found.push(word);
    return found;
}

/** Writes words so that a shell reads them as they are. */
export function quoted(list: readonly string[]): string {
    return list.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(" ");
}
