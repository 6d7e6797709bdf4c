// How quick the page is with long lists and a flood of lines. Absolute times are told, not held: what is held is that the page
// draws few rows and keeps little, however much there is.
import { type CDPSession, type Page } from "@playwright/test";
import { expect, test } from "./fixture";

const MANY = Number(process.env.SKIFF_SCALE ?? "200");

declare global {
    interface Window {
        interactions: { name: string; duration: number }[];
        pictures: number[];
    }
}

/** The browser's own measure of each input, from the event to the next picture. */
async function watch(page: Page): Promise<void> {
    await page.evaluate(() => {
        window.interactions = [];
        window.pictures = [];
        const observer = new PerformanceObserver((list) => {
            for (const entry of list.getEntries() as (PerformanceEntry & { interactionId?: number })[])
                if (entry.interactionId) window.interactions.push({ name: entry.name, duration: entry.duration });
        });
        observer.observe({ type: "event", buffered: false, durationThreshold: 16 } as PerformanceObserverInit);
        let before = performance.now();
        const tick = (now: number) => {
            window.pictures.push(now - before);
            before = now;
            requestAnimationFrame(tick);
        };
        requestAnimationFrame(tick);
    });
}

async function tell(page: Page, what: string, cdp: CDPSession): Promise<number> {
    // The last events are told with the next picture.
    await page.waitForTimeout(300);
    const { interactions, pictures } = await page.evaluate(() => ({
        interactions: window.interactions,
        pictures: window.pictures,
    }));
    const sorted = interactions.map((one) => one.duration).sort((a, b) => a - b);
    const at = (list: number[], share: number) => Math.round(list[Math.floor((list.length - 1) * share)] ?? 0);
    const gaps = [...pictures].sort((a, b) => a - b);
    await cdp.send("HeapProfiler.collectGarbage");
    const { metrics } = await cdp.send("Performance.getMetrics");
    const heap = metrics.find((metric) => metric.name === "JSHeapUsedSize")!.value;
    console.log(
        `scale: ${what}: inputs over 16 ms ${sorted.length}, median ${at(sorted, 0.5)} ms, longest ${at(sorted, 1)} ms; ` +
            `frames p95 ${at(gaps, 0.95)} ms, longest ${at(gaps, 1)} ms; heap ${(heap / 1e6).toFixed(1)} MB`,
    );
    return heap;
}

async function scroll(page: Page): Promise<void> {
    for (let step = 0; step < 12; step += 1) {
        await page.mouse.wheel(0, 900);
        await page.waitForTimeout(40);
    }
}

test("long lists are searched, chosen from and scrolled", async ({ page }) => {
    const cdp = await page.context().newCDPSession(page);
    await cdp.send("Performance.enable");
    await page.goto("/#/containers");
    // The newest come first; the oldest are not drawn.
    await expect(page.getByLabel(`Select many-${MANY - 1}`, { exact: true })).toHaveCount(1);
    await expect(page.getByLabel("Select many-17", { exact: true })).toHaveCount(0);
    await watch(page);
    await page.mouse.move(640, 400);
    await scroll(page);
    expect(await page.getByRole("row").count()).toBeLessThan(150);
    await page.getByRole("searchbox").pressSequentially("many-17", { delay: 30 });
    await expect(page.getByLabel("Select many-17", { exact: true })).toBeVisible();
    await page.getByRole("searchbox").fill("");
    await page.getByLabel("Select all", { exact: true }).check();
    await page.getByLabel("Select all", { exact: true }).uncheck();
    await page.keyboard.press("Control+k");
    await page.keyboard.type("logs of many 77", { delay: 30 });
    await expect(page.getByRole("dialog").getByRole("option").first()).toContainText("many-77");
    await page.keyboard.press("Escape");
    await tell(page, `${MANY} containers`, cdp);

    await page.goto("/#/images");
    await expect(page.getByRole("row").nth(20)).toBeAttached();
    await watch(page);
    await scroll(page);
    expect(await page.getByRole("row").count()).toBeLessThan(150);
    await page.getByRole("searchbox").pressSequentially("image-17", { delay: 30 });
    await page.getByRole("searchbox").fill("");
    await page.getByLabel("Order").selectOption("size");
    await page.getByLabel("Order").selectOption("name");
    await tell(page, `${MANY} images`, cdp);
});

test("a container that prints 50,000 lines a second leaves the page alive and its memory bounded", async ({ page }) => {
    const cdp = await page.context().newCDPSession(page);
    await cdp.send("Performance.enable");
    await page.goto("/#/containers/torrent");
    const log = page.getByRole("log");
    await expect(log).toContainText("torrent");
    await watch(page);
    const lines = async () => Number((await page.getByText(/^[\d,]+ lines/).innerText()).replace(/\D/g, ""));
    const before = await lines();
    const begun = Date.now();
    await page.getByLabel("Search the log").pressSequentially("line 4999", { delay: 40 });
    await page.getByLabel("Times").check();
    await page.getByLabel("Times").uncheck();
    await page.getByLabel("Search the log").fill("");
    await page.waitForTimeout(Number(process.env.SKIFF_SCALE ? 20_000 : 3000));
    const first = await tell(page, "a flood, early", cdp);
    console.log(
        `scale: ${Math.round(((await lines()) - before) / ((Date.now() - begun) / 1000))} lines a second are shown or counted`,
    );
    await page.waitForTimeout(Number(process.env.SKIFF_SCALE ? 20_000 : 3000));
    const second = await tell(page, "a flood, later", cdp);
    expect(await log.locator(".line").count()).toBeLessThan(100);
    // What is kept has a bound: as much later comes, as much goes.
    expect(second).toBeLessThan(Math.max(first, 150e6) * 1.6);
});
