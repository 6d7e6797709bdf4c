import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, picture, test } from "./fixture";

test("containers are grouped by project, started and stopped, searched for and removed with a warning", async ({ page }) => {
    await page.goto("/#/containers");
    const row = (name: string) => page.getByRole("row").filter({ has: page.getByRole("link", { name, exact: true }) });
    await expect(row("web")).toContainText("Running");
    await expect(page.getByRole("button", { name: /^shop 2 of 2 running/ })).toBeVisible();
    await expect(row("web").getByRole("link", { name: /^\d+:80$/ })).toHaveAttribute("href", /^http:\/\/localhost:\d+\/$/);
    await picture(page, "containers");

    await page.keyboard.press("/");
    await page.keyboard.type("busybox job");
    await expect(row("web")).toBeHidden();
    await expect(row("job")).toContainText("Exited, code 3");
    await row("job").getByRole("button", { name: "Start job" }).click();
    await expect(row("job")).toContainText("Running");
    await row("job").getByRole("button", { name: "Actions for job" }).click();
    await page.getByRole("menuitem", { name: "Pause" }).click();
    await expect(row("job")).toContainText("Paused");
    await row("job").getByRole("button", { name: "Actions for job" }).click();
    await page.getByRole("menuitem", { name: "Resume" }).click();
    await expect(row("job")).toContainText("Running");
    await row("job").getByRole("button", { name: "Stop job" }).click();
    await expect(row("job")).toContainText("Exited", { timeout: 30_000 });
    // What can be taken back is offered for a while.
    await page.getByRole("button", { name: "Undo" }).last().click();
    await expect(row("job")).toContainText("Running");
    await row("job").getByRole("button", { name: "Stop job" }).click();
    await expect(row("job")).toContainText("Exited", { timeout: 30_000 });
    await page.getByRole("searchbox").fill("");

    await page.getByLabel("Select job").check();
    await page.getByLabel("Select all of shop").check();
    await expect(page.getByText("3 containers selected")).toBeVisible();
    await page.getByRole("toolbar").getByRole("button", { name: "Remove" }).click();
    const dialog = page.getByRole("dialog");
    await expect(dialog).toContainText("lost for good");
    await expect(dialog).toContainText("2 of them are running and will be killed");
    await picture(page, "containers-remove");
    await page.keyboard.press("Escape");
    await expect(row("job")).toBeVisible();
    await page.getByLabel("Select all of shop").uncheck();
    await page.getByRole("toolbar").getByRole("button", { name: "Remove" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await expect(row("job")).toHaveCount(0);
});

test("a container is made with options, a shell in it is typed into, and it goes again", async ({ page }) => {
    await page.goto("/#/containers");
    await page.getByRole("button", { name: "New container" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("button", { name: "Create and start" }).click();
    await expect(dialog.getByRole("alert")).toContainText("an image is needed");
    await dialog.getByLabel("Image", { exact: false }).first().fill("busybox");
    await dialog.getByPlaceholder("web", { exact: true }).fill("made");
    await dialog.getByRole("button", { name: "Publish a port" }).click();
    await dialog.getByLabel("Container port").fill("8000");
    await dialog.getByRole("button", { name: "Set a variable" }).click();
    await dialog.getByLabel("Name of the variable").fill("GREETING");
    await dialog.getByLabel("Value of the variable").fill("hello there");
    await dialog.getByRole("button", { name: "Mount something" }).click();
    await dialog.getByLabel("Volume or host path").fill("notes");
    await dialog.getByLabel("Path in the container").fill("/notes");
    await dialog.getByText("More options").click();
    await picture(page, "create");
    await dialog.getByRole("button", { name: "Create and start" }).click();

    await expect(page.getByRole("heading", { name: "made" })).toBeVisible();
    await expect(page.getByRole("tab", { name: "Terminal" })).toHaveAttribute("aria-selected", "true");
    const rows = page.locator(".xterm-rows:visible");
    await expect(rows).toContainText("#");
    await page.keyboard.type('echo "$GREETING" > /notes/file; cat /notes/file; stty size\n');
    await expect(rows).toContainText("hello there");
    const size = async () =>
        (await rows.innerText())
            .match(/(\d+) (\d+)\s*\n?\s*\/ #/)
            ?.slice(1)
            .map(Number) ?? [];
    await expect.poll(async () => (await size())[1] ?? 0).toBeGreaterThan(90);
    await page.setViewportSize({ width: 900, height: 600 });
    await page.keyboard.type("clear; stty size\n");
    await expect.poll(async () => (await size())[1] ?? 999).toBeLessThan(120);
    await page.setViewportSize({ width: 1280, height: 800 });
    await page.getByLabel("Command (default: a shell)").fill("sh -c 'echo second; exit 5'");
    await page.keyboard.press("Enter");
    await expect(rows).toContainText("Ended with code 5");
    await picture(page, "terminal");

    await page.getByRole("tab", { name: "Files" }).click();
    await page.getByRole("button", { name: "notes", exact: true }).click();
    await page.getByRole("button", { name: "file", exact: true }).click();
    await expect(page.getByRole("dialog")).toContainText("hello there");
    await page.keyboard.press("Escape");
    await page
        .locator("input[type=file]")
        .setInputFiles({ name: "sent.txt", mimeType: "text/plain", buffer: Buffer.from("from the browser") });
    await expect(page.getByRole("button", { name: "sent.txt", exact: true })).toBeVisible();
    await picture(page, "files");
    const coming = page.waitForEvent("download");
    await page.getByRole("button", { name: "Actions for sent.txt" }).click();
    await page.getByRole("menuitem", { name: "Download" }).click();
    const stream = await (await coming).createReadStream();
    expect((await stream.toArray()).join("")).toBe("from the browser");

    await page.getByRole("tab", { name: "Settings" }).click();
    await expect(page.getByRole("tabpanel")).toContainText("hello there");
    await picture(page, "environment");
    await page.getByRole("tab", { name: "Processes" }).click();
    await expect(page.getByRole("tabpanel")).toContainText("PID");
    await page.getByRole("tab", { name: "Changes" }).click();
    await expect(page.getByRole("tabpanel")).toContainText("/notes");
    await page.getByRole("tab", { name: "Inspect" }).click();
    await page.getByLabel("Search keys and values").fill("GREETING");
    await expect(page.getByRole("tabpanel")).toContainText("GREETING=hello there");
    await picture(page, "inspect");
    await page.getByRole("button", { name: "Remove" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await expect(page).toHaveURL(/#\/containers$/);
});

test("a log follows, is coloured and searched, and a flood of lines leaves the page alive", async ({ page }) => {
    await page.goto("/#/containers/colours");
    const log = page.getByRole("log");
    await expect(log).toContainText("tick");
    await expect(log.locator("i.f2").first()).toHaveText("green");
    await page.getByLabel("Search the log").fill("needle");
    await expect(page.getByText("1 of 1")).toBeVisible();
    await expect(log.locator(".hit")).toHaveText("needle");
    await page.getByLabel("Times").check();
    await expect(log.locator("time").first()).toHaveText(/^\d\d:\d\d:\d\d\.\d{3}$/);
    await picture(page, "logs");
    await page.getByLabel("Times").uncheck();
    const coming = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save" }).click();
    expect((await coming).suggestedFilename()).toBe("colours.log");

    await page.goto("/#/containers/flood");
    await expect(page.getByText("200,001 lines")).toBeVisible({ timeout: 45_000 });
    await expect(log).toContainText("the last line");
    // The rows that are drawn are few, however long the list is.
    expect(await log.locator(".line").count()).toBeLessThan(100);
    await log.evaluate((element) => (element.scrollTop = element.scrollHeight / 2));
    await expect(log.locator(".line").first()).toContainText(/line (99|100)\d{3}/);
    await page.getByLabel("Search the log").fill("line 123456 ");
    await expect(log.locator(".hit")).toBeVisible();
});

test("statistics are drawn and health is told", async ({ page }) => {
    await page.goto("/#/containers/web/stats");
    await expect(page.getByRole("img", { name: /^Memory: [\d.]+/ })).toBeVisible();
    await page.waitForTimeout(3500);
    await picture(page, "stats");
    await page.getByRole("tab", { name: "Health" }).click();
    await expect(page.getByRole("tabpanel")).toContainText("passed");
    await page.keyboard.press("ArrowRight");
    await expect(page.getByRole("tab", { name: "Inspect" })).toHaveAttribute("aria-selected", "true");
});

test("an image is pulled layer by layer, looked into, named, and removed", async ({ page }) => {
    const image = process.env.SKIFF_IMAGE!;
    await page.goto("/#/images");
    await page.getByRole("button", { name: "Pull an image" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Image", { exact: false }).fill("no.such.host.invalid/x");
    await dialog.getByRole("button", { name: "Pull" }).click();
    await expect(dialog.getByRole("alert")).not.toBeEmpty({ timeout: 30_000 });
    await dialog.getByLabel("Image", { exact: false }).fill(image);
    await dialog.getByRole("button", { name: "Pull" }).click();
    await expect(dialog.getByRole("progressbar").first()).toBeVisible();
    await expect(dialog).toContainText("Downloaded newer image");
    await picture(page, "pull");
    await dialog.getByRole("button", { name: "Close" }).last().click();
    await picture(page, "images");
    const name = image.slice(0, image.lastIndexOf(":"));
    await page.getByRole("link", { name, exact: true }).click();
    await expect(page.getByRole("heading", { name: "Layers" })).toBeVisible();
    await picture(page, "image");
    await page.getByRole("link", { name: "Back" }).click();
    await page.getByRole("button", { name: `Actions for ${image}` }).click();
    await page.getByRole("menuitem", { name: "Tag" }).click();
    await page.getByLabel("Name", { exact: true }).fill(`${name}:renamed`);
    await page.getByRole("button", { name: "Add name" }).click();
    await expect(page.getByRole("button", { name: `Actions for ${name}:renamed` })).toBeVisible();
    await page.getByRole("button", { name: `Actions for ${name}:renamed` }).click();
    await page.getByRole("menuitem", { name: "Push" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Push" }).click();
    await expect(page.getByText(`Pushed ${name}:renamed`)).toBeVisible();
    await page.getByRole("button", { name: "Clean up" }).click();
    await page.getByLabel("Also images with a name that no container uses").check();
    await expect(page.getByRole("dialog")).toContainText(`${name}:renamed`);
    await picture(page, "prune");
    await page
        .getByRole("dialog")
        .getByRole("button", { name: /^Remove \d+ image/ })
        .click();
    await expect(page.getByRole("link", { name, exact: true })).toHaveCount(0);
    await expect(page.getByRole("link", { name: "busybox" })).toBeVisible();
});

test("a folder is built step by step, from the cache the second time, and fails with the reason", async ({ page }) => {
    const folder = mkdtempSync(join(tmpdir(), "skiff-build-"));
    try {
        writeFileSync(join(folder, ".dockerignore"), "secret\n");
        writeFileSync(join(folder, "secret"), "not for the engine");
        writeFileSync(join(folder, "hello.sh"), "echo hello from the folder\n");
        writeFileSync(
            join(folder, "Dockerfile"),
            "FROM busybox\nCOPY . /app\nRUN sh /app/hello.sh && test ! -e /app/secret\nFROM busybox AS other\nRUN echo the other stage; exit 7\n",
        );
        await page.goto("/#/builds");
        await page.getByRole("button", { name: "Build an image" }).click();
        const dialog = page.getByRole("dialog");
        const step = (words: string) => dialog.getByRole("listitem").filter({ hasText: words });
        await dialog.getByLabel("Folder").setInputFiles(folder);
        await expect(dialog).toContainText("4 files chosen");
        await dialog.getByLabel("Name", { exact: true }).fill("from/folder:1");
        await dialog.getByRole("button", { name: "Build", exact: true }).click();
        await expect(dialog.getByRole("alert")).toContainText("7");
        await expect(step("RUN echo the other stage")).toContainText("failed");
        await picture(page, "build");

        writeFileSync(
            join(folder, "Dockerfile"),
            "FROM busybox\nCOPY . /app\nRUN sh /app/hello.sh && test ! -e /app/secret\n",
        );
        for (const state of ["done", "cached"]) {
            await dialog.getByLabel("Folder").setInputFiles(folder);
            await dialog.getByRole("button", { name: "Build", exact: true }).click();
            await expect(dialog.getByRole("status")).toContainText("Built from/folder:1");
            await expect(step("RUN sh /app/hello.sh")).toContainText(state);
        }
        await dialog.getByRole("button", { name: "Close" }).last().click();

        // All three are in the history, with what they printed and how long they took.
        const rows = page.getByRole("row").filter({ hasText: "from/folder:1" });
        await expect(rows).toHaveCount(3);
        await expect(rows.first()).toContainText("Done");
        await expect(rows.first()).toContainText(/[1-9] of \d+/);
        await expect(rows.last()).toContainText("Failed");
        await picture(page, "builds");
        await rows.last().getByRole("link").click();
        await expect(page.getByRole("alert")).toContainText("7");
        await expect(page.getByRole("list", { name: "Steps" })).toContainText("the other stage");
        await picture(page, "build-details");
        await page.getByRole("button", { name: "Remove" }).click();
        await expect(page).toHaveURL(/#\/builds$/);
        await expect(rows).toHaveCount(2);
        await rows.last().getByRole("link").click();
        await page.getByText("RUN sh /app/hello.sh").first().click();
        await expect(page.getByRole("list", { name: "Steps" })).toContainText("hello from the folder");
        await page.getByRole("link", { name: "Image", exact: true }).click();
        await expect(page.getByRole("heading", { name: "from/folder:1" })).toBeVisible();
        await page.getByRole("link", { name: "Back" }).click();
        await page.getByRole("button", { name: "Actions for from/folder:1" }).click();
        await page.getByRole("menuitem", { name: "Remove" }).click();
        await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
        await expect(page.getByRole("link", { name: "from/folder", exact: true })).toHaveCount(0);
    } finally {
        rmSync(folder, { recursive: true });
    }
});

test("volumes and networks are made, shown with who uses them, and removed", async ({ page }) => {
    await page.goto("/#/volumes");
    await page.getByRole("button", { name: "New volume" }).click();
    await page.getByRole("dialog").getByLabel("Name", { exact: false }).fill("scratch");
    await page.keyboard.press("Enter");
    await expect(page.getByRole("row", { name: /scratch/ })).toContainText("No container");
    await expect(page.getByRole("row", { name: /^data/ })).toContainText("web");
    await expect(page.getByRole("button", { name: "Remove data" })).toBeDisabled();
    await picture(page, "volumes");
    // Its files come and go without a container around them.
    await page.getByRole("link", { name: "scratch", exact: true }).click();
    await expect(page.getByText("Nothing in here.")).toBeVisible();
    await page
        .locator("input[type=file]")
        .setInputFiles({ name: "note.txt", mimeType: "text/plain", buffer: Buffer.from("kept in a volume") });
    await page.getByRole("button", { name: "note.txt", exact: true }).click();
    await expect(page.getByRole("dialog")).toContainText("kept in a volume");
    await page.keyboard.press("Escape");
    await picture(page, "volume");
    const saving = page.waitForEvent("download");
    await page.getByRole("button", { name: "Export" }).click();
    const saved = await saving;
    expect(saved.suggestedFilename()).toBe("scratch.tar");
    const buffer = Buffer.concat(await (await saved.createReadStream()).toArray());
    await page.getByRole("link", { name: "Back" }).click();
    await page.getByRole("button", { name: "Import" }).click();
    await page
        .getByRole("dialog")
        .getByLabel("Archive")
        .setInputFiles({ name: "scratch.tar", mimeType: "application/x-tar", buffer });
    await page.getByRole("dialog").getByLabel("Volume", { exact: false }).fill("copied");
    await page.getByRole("dialog").getByRole("button", { name: "Import" }).click();
    await expect(page.getByRole("heading", { name: "copied" })).toBeVisible();
    await page.getByRole("button", { name: "note.txt", exact: true }).click();
    await expect(page.getByRole("dialog")).toContainText("kept in a volume");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Remove copied" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await expect(page).toHaveURL(/#\/volumes$/);
    await page.getByRole("button", { name: "Remove scratch" }).click();
    await expect(page.getByRole("dialog")).toContainText("lost for good");
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await expect(page.getByRole("row", { name: /scratch/ })).toHaveCount(0);

    await page.keyboard.press("g");
    await page.keyboard.press("n");
    await page.getByRole("button", { name: "New network" }).click();
    await page.getByRole("dialog").getByLabel("Name", { exact: true }).fill("side");
    await page.keyboard.press("Enter");
    await expect(page.getByRole("region", { name: "side" })).toContainText("No running container");
    await expect(page.getByRole("region", { name: "shop_default" })).toContainText("shop-db-1");
    await picture(page, "networks");
    await page.getByRole("button", { name: "Remove side" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await expect(page.getByRole("region", { name: "side" })).toHaveCount(0);
});

test("the overview measures, events are told, and the palette leads everywhere", async ({ page }) => {
    await page.goto("/#/overview");
    await expect(page.getByText("Busiest containers")).toBeVisible();
    await expect(page.getByRole("region", { name: "Disk" })).toContainText(/Images[\s\S]*[MkG]B/);
    await page.waitForTimeout(4000);
    await picture(page, "overview");
    await page.keyboard.press("Control+k");
    await page.keyboard.type("paweb");
    await expect(page.getByRole("option").first()).toContainText("Pause web");
    await picture(page, "palette");
    await page.keyboard.press("Enter");
    await page.keyboard.press("g");
    await page.keyboard.press("e");
    await expect(page.getByRole("row", { name: /pause web/ })).toBeVisible();
    await page.keyboard.press("Control+k");
    await page.keyboard.type("resume web");
    await page.keyboard.press("Enter");
    await expect(page.getByRole("row", { name: /unpause web/ })).toBeVisible();
    await page.getByLabel("Search events").fill("unpause");
    await expect(page.getByRole("row", { name: / pause web/ })).toHaveCount(0);
    await page.getByLabel("Search events").fill("");
    await picture(page, "events");
    await page.getByRole("heading", { name: "Events" }).click();
    await page.keyboard.press("?");
    await expect(page.getByRole("dialog")).toContainText("Keyboard shortcuts");
});

test("the machine is shown and explained, stopped with a warning, and started again by a button only", async ({ page }) => {
    await page.goto("/#/machine");
    await expect(page.getByText("Docker socket")).toBeVisible();
    await picture(page, "machine");
    await page.getByRole("tab", { name: "Log" }).click();
    await expect(page.getByRole("tabpanel")).toContainText("daemon is ready");
    await picture(page, "machine-log");
    await page.getByRole("button", { name: "Stop the guest" }).click();
    await expect(page.getByRole("dialog")).toContainText("will be stopped");
    await page.getByRole("dialog").getByRole("button", { name: "Stop the guest" }).click();
    await expect(page.getByText("Guest is off")).toBeVisible({ timeout: 45_000 });
    await page.getByRole("link", { name: "Containers" }).click();
    await expect(page.getByRole("heading", { name: "The guest is off" })).toBeVisible();
    await picture(page, "asleep");
    // Looking does not start it.
    await page.reload();
    await page.waitForTimeout(3000);
    await expect(page.getByRole("heading", { name: "The guest is off" })).toBeVisible();
    await page.getByRole("button", { name: "Start the guest" }).click();
    await expect(page.getByRole("row", { name: /web/ })).toBeVisible({ timeout: 45_000 });
});

test("settings are changed with a word on what restarts, and what makes no sense is refused", async ({ page }) => {
    await page.goto("/#/settings");
    await page.getByRole("group", { name: "Appearance" }).getByRole("button", { name: "Dark" }).click();
    await expect(page.locator("html")).toHaveAttribute("data-theme", "dark");
    await page.getByRole("group", { name: "Appearance" }).getByRole("button", { name: "As the system" }).click();
    await page.getByLabel("HTTP", { exact: true }).fill("http://me:hidden@proxy.example:3128");
    const bar = page.getByRole("region", { name: "1 change" });
    await expect(bar).toContainText("True once the daemon has been restarted");
    await picture(page, "settings");
    await bar.getByRole("button", { name: "Save" }).click();
    await expect(page.getByText("The daemon still runs with other settings.")).toBeVisible();
    await expect(bar).toHaveCount(0);
    await page.getByRole("button", { name: "Add a mirror" }).click();
    await page.getByLabel("Mirror", { exact: true }).fill("nonsense");
    await page.keyboard.press("Tab");
    await page.getByRole("region", { name: "1 change" }).getByRole("button", { name: "Save" }).click();
    await expect(page.getByText(/"nonsense" is not an http/)).toBeVisible();
    await page.getByRole("button", { name: "Discard" }).click();
    await expect(page.getByLabel("Mirror", { exact: true })).toHaveCount(0);

    // The report has what was set, and not what is secret.
    await page.keyboard.press("Escape");
    await page.getByRole("heading", { name: "Settings" }).click();
    await page.keyboard.press("g");
    await page.keyboard.press("t");
    // It asks QEMU and others, each a program to start.
    const needs = page.getByRole("region", { name: "What Skiff needs" }).getByRole("listitem").first();
    await expect(needs).toBeVisible({ timeout: 60_000 });
    await page.getByRole("button", { name: "Check the network" }).click();
    await expect(page.getByRole("region", { name: "Network and ports" }).getByRole("listitem").first()).toBeVisible({
        timeout: 60_000,
    });
    await page.getByRole("button", { name: "Make a report" }).click();
    await page.getByText("settings.json", { exact: true }).click();
    await expect(page.getByLabel("settings.json")).toContainText("proxy.example");
    await expect(page.getByLabel("settings.json")).not.toContainText("hidden");
    await picture(page, "troubleshoot");
    const saving = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save" }).click();
    const report = Buffer.concat(await (await (await saving).createReadStream()).toArray()).toString();
    expect(report).toContain("===== daemon.log =====");
    expect(report).not.toContain("hidden");

    await page.goto("/#/settings");
    await page.getByLabel("HTTP", { exact: true }).fill("");
    await page.getByRole("region", { name: "1 change" }).getByRole("button", { name: "Save" }).click();
    await expect(page.getByText("The daemon still runs with other settings.")).toHaveCount(0);
});

test("without its session the page says what to do and shows nothing", async ({ browser, baseURL }) => {
    const context = await browser.newContext({ storageState: { cookies: [], origins: [] } });
    const page = await context.newPage();
    await page.goto(`${baseURL}/#token=AAAA`);
    await expect(page.getByRole("heading", { name: "This browser needs a new link" })).toBeVisible();
    expect(page.url()).not.toContain("token");
    await expect(page.getByText("web", { exact: true })).toHaveCount(0);
    await page.goto(process.env.SKIFF_LINK!);
    await expect(page.getByRole("heading", { name: "This browser needs a new link" })).toBeVisible();
    await picture(page, "session");
    await context.close();
});
