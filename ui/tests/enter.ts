// Uses the one-time link, once for all tests, and keeps the session.
import { existsSync } from "node:fs";
import { chromium } from "@playwright/test";

export default async function enter(): Promise<void> {
    // The link lets in once, and tests may run in several goes.
    if (existsSync(process.env.SKIFF_SESSION!)) return;
    const browser = await chromium.launch({
        executablePath: process.env.SKIFF_CHROMIUM ?? "/usr/bin/chromium",
        args: ["--no-sandbox"],
    });
    const page = await browser.newPage();
    await page.goto(process.env.SKIFF_LINK!);
    await page.getByRole("navigation", { name: "Views" }).waitFor();
    await page.getByText("Engine is running").waitFor({ timeout: 30_000 });
    await page.context().storageState({ path: process.env.SKIFF_SESSION! });
    await browser.close();
}
