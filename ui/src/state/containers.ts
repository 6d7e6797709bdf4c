// What is done with containers, one or many, and what is said about it.
import type { ContainerSummary } from "../backend/types";
import type { Verb } from "../backend/docker";
import { text } from "../text/en";
import { ui } from "./ui.svelte";
import { docker, world } from "./world.svelte";

export const nameOf = (container: ContainerSummary): string =>
    (container.Names?.[0] ?? container.Id ?? "").replace(/^\//, "");
export const projectOf = (container: ContainerSummary): string => container.Labels?.["com.docker.compose.project"] ?? "";
export const runs = (container: ContainerSummary): boolean =>
    container.State === "running" || container.State === "paused" || container.State === "restarting";

/** Which of what can be done makes sense now. */
export function can(container: ContainerSummary, verb: Verb): boolean {
    const state = container.State;
    if (verb === "start") return state === "exited" || state === "created" || state === "dead";
    if (verb === "pause") return state === "running";
    if (verb === "unpause") return state === "paused";
    return state === "running" || state === "paused" || state === "restarting";
}

/** What takes a verb back. */
const BACK: Partial<Record<Verb, Verb>> = { stop: "start", pause: "unpause" };

export async function act(list: ContainerSummary[], verb: Verb): Promise<void> {
    const able = list.filter((container) => can(container, verb));
    const done = await Promise.all(
        able.map((container) => ui.try(text.failed(verb, nameOf(container)), () => docker.act(container.Id!, verb))),
    );
    const back = BACK[verb];
    const changed = able.filter((_, index) => done[index]);
    if (!back || !changed.length) return;
    const what = changed.length === 1 ? nameOf(changed[0]!) : text.containers.many(changed.length);
    // What is said of them is of before: the way back is asked for by their ids alone.
    const undo = () =>
        Promise.all(changed.map((one) => ui.try(text.failed(back, nameOf(one)), () => docker.act(one.Id!, back))));
    ui.tell("good", text.did[verb]!(what), undefined, { label: text.undo, run: undo });
}

/** Removes containers when the user knows what goes; says whether they went. */
export async function remove(list: ContainerSummary[]): Promise<boolean> {
    const running = list.filter(runs).length;
    const { yes, option } = await ui.ask({
        title: list.length === 1 ? text.containers.removeOne(nameOf(list[0]!)) : text.containers.removeMany(list.length),
        body: text.containers.removeLoses(list.length, running),
        action: text.remove,
        option: text.containers.removeVolumes,
    });
    if (!yes) return false;
    const done = await Promise.all(
        list.map((container) =>
            ui.try(text.failed("remove", nameOf(container)), () => docker.removeContainer(container.Id!, option)),
        ),
    );
    await world.refresh("containers");
    return done.every(Boolean);
}
