// `.dockerignore`: which files of a folder are no part of a build's context.

interface Rule {
    keep: boolean;
    pattern: RegExp;
}

export class Ignore {
    private readonly rules: Rule[];

    constructor(text: string) {
        this.rules = text
            .replace(/^\ufeff/, "")
            .split("\n")
            .filter((line) => !line.startsWith("#"))
            .map((line) => line.trim())
            .filter(Boolean)
            .map((line) => ({ keep: line.startsWith("!"), pattern: pattern(line.replace(/^!/, "").trim()) }));
    }

    /** The last rule that matches a file, or a folder above it, decides. */
    leaves(path: string): boolean {
        const parts = path.split("/");
        const names = parts.map((_, index) => parts.slice(0, index + 1).join("/"));
        let out = false;
        for (const rule of this.rules) if (names.some((name) => rule.pattern.test(name))) out = !rule.keep;
        return out;
    }
}

/** As Go's `filepath.Match`, with `**` for any number of folders. */
function pattern(glob: string): RegExp {
    const clean = glob
        .split("/")
        .filter((part) => part && part !== ".")
        .join("/");
    let text = "";
    for (let at = 0; at < clean.length; at++) {
        const rest = clean.slice(at);
        const group = /^\[\^?[^\]]+\]/.exec(rest)?.[0];
        if (rest.startsWith("**/")) {
            text += "(?:.*/)?";
            at += 2;
        } else if (rest.startsWith("**")) {
            text += ".*";
            at += 1;
        } else if (rest[0] === "*") text += "[^/]*";
        else if (rest[0] === "?") text += "[^/]";
        else if (group) {
            text += group.replace(/\\/g, "\\\\");
            at += group.length - 1;
        } else if (rest[0] === "\\" && rest[1]) {
            text += escaped(rest[1]);
            at += 1;
        } else text += escaped(rest[0]!);
    }
    return new RegExp(`^${text}$`);
}

const escaped = (character: string): string => character.replace(/[\\^$.*+?()[\]{}|/]/, "\\$&");
