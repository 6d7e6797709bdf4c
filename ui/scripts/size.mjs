// What a browser has to fetch, compressed: the promise is 600 kB.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const LIMIT = 600_000;
const dist = join(import.meta.dirname, "../dist");
const files = readdirSync(dist, { recursive: true, withFileTypes: true }).filter(
    (file) => file.isFile() && file.name !== ".gitignore",
);
const total = files.reduce((sum, file) => sum + gzipSync(readFileSync(join(file.parentPath, file.name))).length, 0);
console.log(`interface: ${Math.round(total / 1000)} kB gzip of ${LIMIT / 1000}`);
if (total > LIMIT) {
    console.error("interface: larger than promised");
    process.exit(1);
}
