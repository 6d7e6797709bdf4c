// Uses the one-time link, once for all tests, and keeps the session.
import { chromium } from "@playwright/test";

export default async function enter(): Promise<void> {
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
