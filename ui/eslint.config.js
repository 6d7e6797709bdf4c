import js from "@eslint/js";
import svelte from "eslint-plugin-svelte";
import ts from "typescript-eslint";
import config from "./svelte.config.js";

const from = (...patterns) => ({ "no-restricted-imports": ["error", { patterns }] });

export default ts.config(
    { ignores: ["dist", "node_modules", "test-results", "src/backend/types.ts"] },
    js.configs.recommended,
    ...ts.configs.recommended,
    ...svelte.configs.recommended,
    {
        files: ["**/*.svelte", "**/*.svelte.ts"],
        languageOptions: { parserOptions: { parser: ts.parser, extraFileExtensions: [".svelte"], svelteConfig: config } },
    },
    {
        rules: {
            "no-undef": "off",
            "svelte/no-navigation-without-resolve": "off",
            // Maps within a computation are not state; control characters are what a terminal's output is made of.
            "svelte/prefer-svelte-reactivity": "off",
            "no-control-regex": "off",
            "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
        },
    },
    // Who may import whom: the design system knows no engine, pure logic knows nothing, features don't know each other's parts.
    {
        files: ["src/lib/**"],
        rules: from({ group: ["**/backend/**", "**/state/**", "**/features/**", "**/components/**", "**/app/**"] }),
    },
    { files: ["src/components/**"], rules: from({ group: ["**/backend/**", "**/features/**"] }) },
    {
        files: ["src/backend/**"],
        rules: from({ group: ["**/state/**", "**/features/**", "**/components/**", "**/app/**"] }),
    },
    { files: ["src/state/**"], rules: from({ group: ["**/features/**", "**/components/**"] }) },
);
