// The steps of a build, as its tale says them: one under way, or one of the history.
import type { Failure } from "../backend";
import type { BuildTold } from "../backend/types";
import { backend, lines } from "./world.svelte";

/** Characters of what a step prints that are kept. */
const KEPT = 200_000;

export interface Step {
    id: string;
    name: string;
    /** Milliseconds since 1970. */
    started: number | undefined;
    completed: number | undefined;
    cached: boolean;
    error: string;
    printed: string;
    /** What is on its way: layers of an image, files of the context. */
    parts: { name: string; current: number; total: number }[];
}

export type StepState = "waiting" | "running" | "cached" | "done" | "failed";

export function stateOf(step: Step): StepState {
    if (step.error) return "failed";
    if (step.cached) return "cached";
    if (step.completed !== undefined) return "done";
    return step.started === undefined ? "waiting" : "running";
}

export class Steps {
    list = $state<Step[]>([]);
    warnings = $state<{ text: string; url: string }[]>([]);
    over = $state(false);
    failure = $state("");
    private channel: { close(): void } | undefined;

    /** Reads what a build has told, and what it tells. */
    follow(id: string): void {
        this.clear();
        this.channel = backend.open(
            { method: "GET", path: `/build/history/${id}` },
            {
                data: lines((line) => this.hear(JSON.parse(line) as BuildTold)),
                end: (failure?: Failure) => {
                    this.over = true;
                    this.failure = failure?.message ?? "";
                },
            },
        );
    }

    clear(): void {
        this.close();
        this.list = [];
        this.warnings = [];
        this.over = false;
        this.failure = "";
    }

    close(): void {
        this.channel?.close();
        this.channel = undefined;
    }

    private hear(told: BuildTold): void {
        if (told.Kind === "warning") {
            this.warnings.push({ text: told.Text, url: told.Url });
            return;
        }
        const step = this.step(told.Kind === "step" ? told.Id : told.Step);
        if (told.Kind === "log") {
            step.printed = (step.printed + told.Text).slice(-KEPT);
        } else if (told.Kind === "part") {
            const part = step.parts.find((one) => one.name === told.Name);
            if (part) Object.assign(part, { current: told.Current, total: told.Total });
            else step.parts.push({ name: told.Name, current: told.Current, total: told.Total });
        } else {
            step.name = told.Name;
            step.cached = told.Cached;
            step.error = told.Error;
            if (told.Started) step.started = Date.parse(told.Started);
            if (told.Completed) step.completed = Date.parse(told.Completed);
        }
    }

    private step(id: string): Step {
        const known = this.list.find((one) => one.id === id);
        if (known) return known;
        this.list.push({
            id,
            name: "",
            started: undefined,
            completed: undefined,
            cached: false,
            error: "",
            printed: "",
            parts: [],
        });
        return this.list.at(-1)!;
    }
}
