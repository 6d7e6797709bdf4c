// What is wrong, and what helps to find out.
import type { Finding, Request } from "../backend/types";
import { backend } from "./world.svelte";

/** Asks the daemon for findings. */
export async function findings(request: Request): Promise<Finding[]> {
    const list: Finding[] = [];
    await backend.daemon(request, (event) => {
        if (event.event === "finding") list.push(event);
    });
    return list;
}

export interface Part {
    name: string;
    text: string;
}

/** Asks for the report that helps others; nothing of it leaves this computer by itself. */
export async function report(): Promise<Part[]> {
    const parts: Part[] = [];
    await backend.daemon({ op: "diagnose" }, (event) => {
        if (event.event !== "report") return;
        const last = parts.at(-1);
        if (last?.name === event.name) last.text += event.text;
        else parts.push({ name: event.name, text: event.text });
    });
    return parts;
}
