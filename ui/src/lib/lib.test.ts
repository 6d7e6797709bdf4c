import { describe, expect, it } from "vitest";
import { Ignore } from "./ignore";
import { plain, spans } from "./ansi";
import { ago, duration, memory, percent, seconds, short, size } from "./format";
import { Frames } from "./frames";
import { score } from "./fuzzy";
import { join, listing, modeText } from "./listing";
import { LogBuffer } from "./logbuffer";
import { blank, body, bytes, faults } from "./options";
import { portOf } from "./refusal";
import { slice } from "./slice";
import { rate, sample } from "./stats";
import { archive, type Entry, TarReader } from "./tar";
import { quoted, words } from "./words";

const encode = (text: string) => new TextEncoder().encode(text);

describe("ansi", () => {
    it("keeps text without escapes as it is", () => {
        expect(spans("plain\ttext")).toEqual([{ text: "plain\ttext", style: "" }]);
    });
    it("reads colours, and forgets them at a reset", () => {
        expect(spans("\x1b[1;31mred\x1b[0m not \x1b[92mbright\x1b[39m")).toEqual([
            { text: "red", style: "b f1" },
            { text: " not ", style: "" },
            { text: "bright", style: "f10" },
        ]);
    });
    it("reads 256 colours and true colours in both notations", () => {
        expect(spans("\x1b[38;5;1ma\x1b[38;5;196mb\x1b[38;2;1;2;3mc\x1b[38;5;244md\x1b[48;5;4me")).toEqual([
            { text: "a", style: "f1" },
            { text: "b", style: "", color: "rgb(255 0 0)" },
            { text: "c", style: "", color: "rgb(1 2 3)" },
            { text: "d", style: "", color: "rgb(128 128 128)" },
            { text: "e", style: "g4", color: "rgb(128 128 128)" },
        ]);
    });
    it("leaves out what moves cursors, sets titles or is cut off", () => {
        expect(plain("a\x1b[2Kb\x1b]0;title\x07c\x1b(Bd\x07e\x1b[")).toBe("abcde[".replace("[", ""));
    });
    it("shows what a line was rewritten to", () => {
        expect(plain("10 %\r50 %\r100 %\r")).toBe("100 %");
    });
    it("survives anything", () => {
        for (let round = 0; round < 500; round++) {
            const text = Array.from({ length: 30 }, () => "\x1b[]0;m38\x07\r(K?ab"[Math.floor(Math.random() * 16)]).join("");

            expect(
                spans(text)
                    .map((span) => span.text)
                    .join(""),
            ).not.toMatch(/[\x00-\x08\x0b-\x1f]/);
        }
    });
});

describe("frames", () => {
    it("takes streams apart however they are cut", () => {
        const frame = (kind: number, text: string) => [kind, 0, 0, 0, 0, 0, 0, text.length, ...encode(text)];
        const all = new Uint8Array([...frame(1, "out"), ...frame(2, "error"), ...frame(1, ""), ...frame(1, "x")]);
        for (let cut = 1; cut <= all.length; cut++) {
            const seen = { stdout: "", stderr: "" };
            const frames = new Frames((output, bytes) => (seen[output] += new TextDecoder().decode(bytes)));
            for (let at = 0; at < all.length; at += cut) frames.add(all.subarray(at, at + cut));
            expect(seen).toEqual({ stdout: "outx", stderr: "error" });
        }
    });
});

describe("log buffer", () => {
    it("cuts lines, splits times off and keeps both outputs apart", () => {
        const buffer = new LogBuffer();
        buffer.add("stdout", encode("2026-01-01T00:00:00.1Z one\n2026-01-01T00:00:00.2Z tw"));
        buffer.add("stderr", encode("2026-01-01T00:00:00.3Z bad\n"));
        buffer.add("stdout", encode("o\n"));
        expect([0, 1, 2].map((index) => [buffer.at(index)?.output, buffer.at(index)?.text])).toEqual([
            ["stdout", "one"],
            ["stderr", "bad"],
            ["stdout", "two"],
        ]);
        expect(buffer.at(0)?.time).toBe("2026-01-01T00:00:00.1Z");
        buffer.add("stdout", encode("2026-01-01T00:00:00.4Z rest"));
        expect(buffer.length).toBe(3);
        buffer.finish();
        expect(buffer.at(3)?.text).toBe("rest");
    });
    it("keeps characters whole that are cut in the middle", () => {
        const buffer = new LogBuffer(undefined, false);
        const bytes = encode("grün ⛵\n");
        for (const byte of bytes) buffer.add("stdout", new Uint8Array([byte]));
        expect(buffer.at(0)?.text).toBe("grün ⛵");
    });
    it("lets the oldest go, and numbers stay", () => {
        const buffer = new LogBuffer({ lines: 3, characters: 1e9 }, false);
        for (let index = 0; index < 10; index++) buffer.add("stdout", encode(`${index}\n`));
        expect([buffer.length, buffer.first, buffer.total]).toEqual([3, 7, 10]);
        expect([0, 1, 2].map((index) => buffer.at(index)?.text)).toEqual(["7", "8", "9"]);
        expect(buffer.at(0)?.number).toBe(7);
        expect(buffer.search("8")).toEqual([8]);
        expect(buffer.search("8", 9)).toEqual([]);
    });
    it("is bounded by characters too, and goes on after that", () => {
        const buffer = new LogBuffer({ lines: 100, characters: 10 }, false);
        for (let index = 0; index < 300; index++) buffer.add("stdout", encode(`${String(index).padStart(4, "0")}\n`));
        expect(buffer.length).toBe(2);
        expect([buffer.at(0)?.text, buffer.at(1)?.text, buffer.at(2)]).toEqual(["0298", "0299", undefined]);
    });
    it("takes a million lines in little time", () => {
        const buffer = new LogBuffer(undefined, false);
        const piece = encode("a line of a program that has much to say\n".repeat(1000));
        for (let index = 0; index < 1100; index++) buffer.add("stdout", piece);
        expect([buffer.length, buffer.first]).toEqual([1_000_000, 100_000]);
    });
});

describe("format", () => {
    it("writes sizes as docker does", () => {
        expect([0, 999, 1000, 1234567, 99_990_000, 5e9].map(size)).toEqual([
            "0 B",
            "999 B",
            "1 kB",
            "1.23 MB",
            "100 MB",
            "5 GB",
        ]);
        expect([0, 1536, 2 ** 30].map(memory)).toEqual(["0 B", "1.5 KiB", "1 GiB"]);
        expect([size(-1), size(Number.NaN), percent(0), percent(250)]).toEqual(["–", "–", "0.0 %", "250 %"]);
    });
    it("writes times in two units at most", () => {
        expect([5, 65, 3700, 90000, 864000].map(duration)).toEqual(["5 s", "1 min", "1 h 1 min", "1 d 1 h", "10 d"]);
        expect(ago(1000, 1_060_000)).toBe("1 min ago");
        expect(ago("0001-01-01T00:00:00Z")).toBe("–");
        expect(short("sha256:0123456789abcdef")).toBe("0123456789ab");
    });
});

describe("words", () => {
    it("splits as a shell does, and writes what it splits the same way", () => {
        expect(words(`sh -c 'echo "a b"' x\\ y "" "q\\"r"`)).toEqual(["sh", "-c", 'echo "a b"', "x y", "", 'q"r']);
        for (const list of [
            ["a b", "it's", ""],
            ["--flag=1", "$HOME", "\\"],
        ])
            expect(words(quoted(list))).toEqual(list);
    });
});

describe("options", () => {
    it("makes a body of what was typed", () => {
        const typed = blank("nginx");
        typed.command = "nginx -g 'daemon off;'";
        typed.ports = [
            { host: "8080", container: "80", protocol: "tcp" },
            { host: "", container: "53", protocol: "udp" },
            { host: "", container: "", protocol: "tcp" },
        ];
        typed.variables = [{ name: "A", value: "b=c" }];
        typed.mounts = [{ source: "data", target: "/data", readOnly: true }];
        typed.memory = "512m";
        typed.cpus = "1.5";
        expect(faults(typed)).toEqual(new Set());
        const made = body(typed, words);
        expect(made.Cmd).toEqual(["nginx", "-g", "daemon off;"]);
        expect(made.HostConfig.PortBindings).toEqual({ "80/tcp": [{ HostPort: "8080" }], "53/udp": [{ HostPort: "" }] });
        expect(made.Env).toEqual(["A=b=c"]);
        expect(made.HostConfig.Binds).toEqual(["data:/data:ro"]);
        expect([made.HostConfig.Memory, made.HostConfig.NanoCpus]).toEqual([536870912, 1.5e9]);
    });
    it("says what makes no sense", () => {
        const typed = blank();
        typed.ports = [{ host: "99999", container: "80", protocol: "tcp" }];
        typed.mounts = [{ source: "a", target: "b", readOnly: false }];
        typed.variables = [{ name: "", value: "x" }];
        typed.memory = "much";
        typed.cpus = "-1";
        expect(faults(typed)).toEqual(new Set(["image", "memory", "cpus", "ports.0", "mounts.0", "variables.0"]));
        expect([bytes("1g"), bytes("2 GiB"), bytes("7"), bytes("x")]).toEqual([2 ** 30, 2 ** 31, 7, undefined]);
    });
});

describe("statistics", () => {
    it("are those of docker stats", () => {
        const raw = {
            cpu_stats: { cpu_usage: { total_usage: 300 }, system_cpu_usage: 2000, online_cpus: 2 },
            precpu_stats: { cpu_usage: { total_usage: 100 }, system_cpu_usage: 1000 },
            memory_stats: { usage: 100, limit: 1000, stats: { inactive_file: 30 } },
            networks: { eth0: { rx_bytes: 1, tx_bytes: 2 }, eth1: { rx_bytes: 10, tx_bytes: 20 } },
            blkio_stats: {
                io_service_bytes_recursive: [
                    { op: "Read", value: 5 },
                    { op: "write", value: 6 },
                ],
            },
            pids_stats: { current: 3 },
        };
        expect(sample(raw)).toEqual({
            cpu: 40,
            memory: 70,
            limit: 1000,
            received: 11,
            sent: 22,
            read: 5,
            written: 6,
            processes: 3,
        });
        expect(sample({})).toEqual({ cpu: 0, memory: 0, limit: 0, received: 0, sent: 0, read: 0, written: 0, processes: 0 });
        expect([rate(10, 4, 2), rate(3, 10, 1), rate(5, undefined, 1)]).toEqual([3, 3, 0]);
    });
});

describe("listings", () => {
    it("of busybox and coreutils are read", () => {
        const text = [
            "total 8",
            "drwxr-xr-x    2 0        0             4096 Nov 28 10:00 a dir",
            "lrwxrwxrwx 1 0 0 7 Jan  5  2024 bin -> usr/bin",
            "-rw-r--r--. 1 0 0 1234 Nov 28 10:00 file -> not a link",
            "crw-rw-rw- 1 0 0 1, 3 Nov 28 10:00 null",
            "rubbish",
        ].join("\n");
        expect(listing(text).map((item) => [item.kind, item.name, item.size, item.target])).toEqual([
            ["directory", "a dir", 4096, ""],
            ["link", "bin", 7, "usr/bin"],
            ["file", "file -> not a link", 1234, ""],
            ["other", "null", 0, ""],
        ]);
        expect(modeText("file", 0o754)).toBe("-rwxr-xr--");
        expect([join("/a/b", ".."), join("/", ".."), join("/a", "/x/./y"), join("/a", "../../b")]).toEqual([
            "/a",
            "/",
            "/x/y",
            "/b",
        ]);
    });
});

describe("tar", () => {
    it("reads what it has written, however it is cut", async () => {
        const long = `${"d/".repeat(60)}name`;
        const blob = archive([
            { name: "one", content: new Blob(["first"]), modified: 1000 },
            { name: long, content: new Blob(["x".repeat(513)]), modified: 1 },
            { name: "empty", content: new Blob([]), modified: 1 },
        ]);
        const bytes = new Uint8Array(await blob.arrayBuffer());
        for (const cut of [1, 7, 512, 700, bytes.length]) {
            const seen: [Entry, string][] = [];
            const reader = new TarReader(
                (entry, content) => seen.push([entry, new TextDecoder().decode(content)]),
                () => true,
            );
            for (let at = 0; at < bytes.length; at += cut) reader.add(bytes.subarray(at, at + cut));
            expect(seen.map(([entry, content]) => [entry.name, entry.size, content.length])).toEqual([
                ["one", 5, 5],
                [long, 513, 513],
                ["empty", 0, 0],
            ]);
            expect(seen[0]![1]).toBe("first");
        }
    });
});

describe("what a build leaves out", () => {
    it("is decided by the last rule that matches a file or a folder above it", () => {
        const ignore = new Ignore("# words\nnode_modules\n*.log\n**/*.tmp\n!keep.log\nsub/[ab]?.c\n/dist/\n");
        for (const out of ["node_modules/a/b.js", "x.log", "a/b/c.tmp", "c.tmp", "sub/a1.c", "dist/x"])
            expect(ignore.leaves(out), out).toBe(true);
        for (const stays of ["keep.log", "sub/x.log", "sub/c1.c", "src/node_modules.ts", "distance", "Dockerfile"])
            expect(ignore.leaves(stays), stays).toBe(false);
        const all = new Ignore("*\n!src\n");
        expect([all.leaves("a"), all.leaves("src/x.ts")]).toEqual([true, false]);
        expect(new Ignore("a+(b\n").leaves("a+(b")).toBe(true);
        expect(new Ignore("").leaves("x")).toBe(false);
    });
});

describe("search", () => {
    it("likes starts of words and runs, and refuses other letters", () => {
        expect(score("web", "x")).toBeUndefined();
        expect(score("Stop web", "sw")!).toBeGreaterThan(score("answer", "sw")!);
        expect(score("web-1", "web")!).toBeGreaterThan(score("wide embers", "web")!);
        expect(score("anything", "")).toBeLessThanOrEqual(0);
    });
});

describe("refusal", () => {
    it("finds the port that is taken", () => {
        const said = "driver failed programming external connectivity on endpoint web: ";
        expect(portOf(`${said}Bind for 0.0.0.0:8080 failed: port is already allocated`)).toBe(8080);
        expect(portOf("Bind for [::]:443 failed: port is already allocated")).toBe(443);
        expect(portOf("listen tcp4 127.0.0.1:81: bind: address already in use")).toBe(81);
    });
    it("finds none where it is about something else", () => {
        expect(portOf('Conflict. The container name "/web" is already in use by container "0123"')).toBeUndefined();
        expect(portOf("Get https://10.0.0.1:5000/v2/: no route to host")).toBeUndefined();
        expect(portOf("Bind for 0.0.0.0:99999 failed: port is already allocated")).toBeUndefined();
    });
});

describe("slice", () => {
    it("is what is seen and a little more, within the list", () => {
        expect(slice(1000, 45, 0, 450)).toEqual({ from: 0, to: 22 });
        expect(slice(1000, 45, 4500, 450)).toEqual({ from: 88, to: 122 });
        expect(slice(1000, 45, 1e9, 450)).toEqual({ from: 1000, to: 1000 });
        expect(slice(3, 45, 0, 450)).toEqual({ from: 0, to: 3 });
    });
});

describe("seconds", () => {
    it("are told exactly for steps and roughly for long builds", () => {
        expect([0, 1250, 59_900, 61_000, 3_700_000].map(seconds)).toEqual([
            "0.0 s",
            "1.3 s",
            "59.9 s",
            "1 min",
            "1 h 1 min",
        ]);
    });
});
