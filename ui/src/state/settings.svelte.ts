// Settings of the daemon's, and what has to start anew for them.
import type { Configuration, Settings } from "../backend/types";
import { size } from "../lib/format";
import { text, ui } from "./ui.svelte";
import { backend, world } from "./world.svelte";

/** What a setting is at its place in the file. */
export function at(settings: Settings, place: string): unknown {
    return place
        .split(".")
        .reduce<unknown>((value, name) => (value as Record<string, unknown> | undefined)?.[name], settings);
}

/** The places where two settings differ. */
export function differences(a: Settings, b: Settings, places: string[]): string[] {
    return places.filter((place) => JSON.stringify(at(a, place)) !== JSON.stringify(at(b, place)));
}

class Config {
    now = $state.raw<Configuration>();
    failure = $state("");

    async load(): Promise<void> {
        try {
            await backend.daemon({ op: "settings" }, (event) => {
                if (event.event === "settings") this.now = event;
            });
            this.failure = "";
        } catch (error) {
            this.failure = (error as Error).message;
        }
    }

    /** Writes settings; says why that could not be done. */
    async save(settings: Settings): Promise<string | undefined> {
        try {
            await backend.daemon({ op: "configure", settings }, (event) => {
                if (event.event === "settings") this.now = event;
            });
            return undefined;
        } catch (error) {
            return (error as Error).message;
        }
    }
}

export const config = new Config();

const running = () => world.status?.machine.guest?.containers_running ?? 0;

/** Stops the guest and starts it again when the user knows what that ends. */
export async function restartGuest(): Promise<void> {
    const { yes } = await ui.ask({
        title: text.machine.restartTitle,
        body: text.machine.stopLoses(running()),
        action: text.machine.restart,
    });
    if (yes) await world.wake("restart");
}

/** Ends the daemon and starts a new one, which reads what is set. */
export async function restartDaemon(): Promise<void> {
    const { yes } = await ui.ask({
        title: text.settings.restartDaemonTitle,
        body: text.machine.stopLoses(running()),
        action: text.settings.restartDaemon,
    });
    if (!yes) return;
    if (await ui.try(text.settings.restartFailed, () => world.renew())) await config.load();
}

/** Has the guest give free space back. */
export const reclaim = (): Promise<boolean> =>
    ui.try(text.machine.reclaimFailed, () =>
        backend.daemon({ op: "reclaim" }, (event) => {
            if (event.event === "reclaimed") ui.tell("good", text.machine.reclaimed(size(event.bytes)));
        }),
    );
