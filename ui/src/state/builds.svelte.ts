// The history of builds. The engine tells no events of it: it is asked for as long as somebody looks.
import type { PastBuild } from "../backend/types";
import { size } from "../lib/format";
import { text, ui } from "./ui.svelte";
import { docker } from "./world.svelte";

const POLL = 2000;

/** Milliseconds that a build has taken. */
export const took = (build: PastBuild, now: number): number =>
    Math.max(0, (build.Completed ? Date.parse(build.Completed) : now) - Date.parse(build.Created));

class Builds {
    list = $state.raw<PastBuild[]>([]);
    loaded = $state(false);
    failure = $state("");

    async refresh(): Promise<void> {
        try {
            this.list = await docker.builds();
            this.failure = "";
        } catch (error) {
            this.failure = (error as Error).message;
        }
        this.loaded = true;
    }

    /** Keeps the list true until the answer is called. */
    watch(): () => void {
        void this.refresh();
        const timer = setInterval(() => document.hidden || void this.refresh(), POLL);
        return () => clearInterval(timer);
    }

    async prune(): Promise<void> {
        await ui.try(text.builds.pruneFailed, async () => {
            const { SpaceReclaimed } = await docker.pruneBuilds();
            ui.tell("good", text.builds.pruned(size(SpaceReclaimed)));
        });
    }

    async forget(build: PastBuild): Promise<boolean> {
        const done = await ui.try(text.failed("remove", build.Tags[0] ?? build.Id), () => docker.forgetBuild(build.Id));
        await this.refresh();
        return done;
    }
}

export const builds = new Builds();
