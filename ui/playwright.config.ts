import { defineConfig } from "@playwright/test";

export default defineConfig({
    testDir: "tests",
    outputDir: process.env.SKIFF_ARTEFACTS ?? "test-results",
    globalSetup: "./tests/enter.ts",
    // One engine for all, and each test leaves it as it was.
    workers: 1,
    timeout: 150_000,
    expect: { timeout: 15_000 },
    reporter: "list",
    use: {
        viewport: { width: 1280, height: 800 },
        storageState: process.env.SKIFF_SESSION!,
        baseURL: new URL(process.env.SKIFF_LINK ?? "http://127.0.0.1").origin,
        launchOptions: {
            executablePath: process.env.SKIFF_CHROMIUM ?? "/usr/bin/chromium",
            // Tests run as root, where Chromium has no sandbox of its own.
            // A page whose files come from SKIFF_DIST counts as one from the net, which has to ask before it calls this machine.
            args: [
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-features=LocalNetworkAccessChecks",
            ],
        },
        permissions: ["clipboard-read", "clipboard-write"],
        screenshot: "only-on-failure",
    },
});
