import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

const out = join(import.meta.dirname, "dist");

export default defineConfig({
    plugins: [
        svelte(),
        {
            // The directory and its .gitignore stay, so that cargo can watch it.
            name: "clean",
            apply: "build",
            buildStart() {
                for (const name of readdirSync(out).filter((name) => name !== ".gitignore")) {
                    rmSync(join(out, name), { recursive: true });
                }
            },
        },
    ],
    build: { outDir: out, emptyOutDir: false, target: "es2022", modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
    test: { include: ["src/**/*.test.ts"] },
});
