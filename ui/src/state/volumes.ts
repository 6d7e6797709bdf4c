// What is done with volumes, and what is said about it.
import type { ContainerSummary, Volume } from "../backend/types";
import { size } from "../lib/format";
import { text } from "../text/en";
import { save } from "./files";
import { ui } from "./ui.svelte";
import { docker, world } from "./world.svelte";

/** The containers that have a volume. */
export const usersOf = (name: string): ContainerSummary[] =>
    world.containers.filter((one) => one.Mounts?.some((mount) => mount.Type === "volume" && mount.Name === name));

/** Saves the files of a volume as an archive. */
export const exportVolume = (name: string): Promise<boolean> =>
    ui.try(text.failed("export", name), async () => {
        const answer = await docker.volumeArchive(name, "/");
        save(await answer.blob(), `${name}.tar`);
    });

/** Removes a volume when the user knows what goes; says whether it went. */
export async function removeVolume(volume: Volume, bytes: number): Promise<boolean> {
    const { yes } = await ui.ask({
        title: text.volumes.removeOne(volume.Name),
        body: text.volumes.removeLoses(bytes >= 0 ? size(bytes) : ""),
        action: text.remove,
    });
    if (!yes) return false;
    const gone = await ui.try(text.failed("remove", volume.Name), () => docker.removeVolume(volume.Name));
    await world.refresh("volumes");
    return gone;
}
