import { readFileSync } from "node:fs";
import { join } from "node:path";
import { AxeBuilder } from "@axe-core/playwright";
import { expect, type Page, test as base } from "@playwright/test";

/** Each test fails when the page talks to anybody else, throws, or breaks its own policy. */
export const test = base.extend<{ page: Page }>({
    page: async ({ page, baseURL }, use) => {
        const strangers: string[] = [];
        const errors: string[] = [];
        page.on("request", (request) => {
            const url = request.url();
            if (!url.startsWith(`${baseURL}/`) && !/^(data|blob):/.test(url)) strangers.push(url);
        });
        page.on("websocket", (socket) => {
            if (!socket.url().startsWith(baseURL!.replace("http", "ws"))) strangers.push(socket.url());
        });
        page.on("pageerror", (error) => errors.push(error.stack ?? error.message));
        page.on("console", (message) => {
            if (/Content Security Policy/.test(message.text())) errors.push(message.text());
        });
        if (process.env.SKIFF_DIST) await fresh(page, process.env.SKIFF_DIST);
        await use(page);
        expect(strangers, "requests to others").toEqual([]);
        expect(errors, "errors in the page").toEqual([]);
    },
});

/** For work on the interface: its files come from a directory instead of the program. */
async function fresh(page: Page, dist: string): Promise<void> {
    await page.route(/\/(assets\/.*)?(#.*)?$/, async (route) => {
        const path = new URL(route.request().url()).pathname;
        const answer = await route.fetch({ url: new URL("/", route.request().url()).href });
        const headers = answer.headers();
        const nonce = /nonce-([\w-]+)/.exec(headers["content-security-policy"] ?? "")?.[1] ?? "";
        const type = path.endsWith(".js")
            ? "text/javascript"
            : path.endsWith(".css")
              ? "text/css"
              : path.endsWith(".svg")
                ? "image/svg+xml"
                : "text/html";
        const body = readFileSync(join(dist, path === "/" ? "index.html" : path), "utf8").replace("__NONCE__", nonce);
        await route.fulfill({ status: 200, headers: { ...headers, "content-type": type }, body });
    });
}

/** What axe finds fault with. */
export async function accessible(page: Page): Promise<void> {
    const { violations } = await new AxeBuilder({ page }).analyze();
    const found = violations.map(
        (one) => `${one.id}: ${one.nodes.map((node) => `${node.target.join(" ")} ${node.failureSummary ?? ""}`).join("; ")}`,
    );
    expect(found).toEqual([]);
}

const SIZES = [
    { width: 1280, height: 800 },
    { width: 900, height: 600 },
];

/** Pictures of the page in both sizes and both themes, and axe's view of each theme. */
export async function picture(page: Page, name: string): Promise<void> {
    const directory = process.env.SKIFF_SHOTS ?? "test-results/shots";
    for (const scheme of ["light", "dark"] as const) {
        await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
        for (const size of SIZES) {
            await page.setViewportSize(size);
            await page.waitForTimeout(120);
            const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
            expect(overflow, `${name} is wider than the window`).toBeLessThanOrEqual(0);
            await page.screenshot({ path: join(directory, `${name}-${size.width}-${scheme}.png`) });
        }
        await accessible(page);
    }
    // A window of the usual size at 200 %.
    await page.setViewportSize({ width: 640, height: 400 });
    await page.waitForTimeout(60);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(overflow, `${name} is wider than the window at 200 %`).toBeLessThanOrEqual(0);
    await page.screenshot({ path: join(directory, `${name}-zoomed.png`) });
    await page.setViewportSize(SIZES[0]!);
}

export { expect };
