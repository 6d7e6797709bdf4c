// What the page shows beside its contents: where it is, what it tells, what it asks.
import { Failure } from "../backend";
import { portOf } from "../lib/refusal";
import { text } from "../text/en";

interface Toast {
    id: number;
    kind: "good" | "bad";
    title: string;
    body?: string | undefined;
    /** What can be done about it. */
    action?: Action | undefined;
}

interface Action {
    label: string;
    run: () => unknown;
}

export interface Question {
    title: string;
    /** What is lost. */
    body: string;
    action: string;
    option?: string;
    answer: (yes: boolean, option: boolean) => void;
}

class Ui {
    path = $state(read());
    toasts = $state<Toast[]>([]);
    question = $state<Question>();
    palette = $state(false);
    keys = $state(false);
    theme = $state(localStorage.getItem("skiff-theme") ?? "system");
    private next = 1;

    constructor() {
        addEventListener("hashchange", () => (this.path = read()));
    }

    go(...parts: string[]): void {
        location.hash = `#/${parts.map(encodeURIComponent).join("/")}`;
    }

    tell(kind: Toast["kind"], title: string, body?: string, action?: Action): void {
        const id = this.next++;
        this.toasts.push({ id, kind, title, body, action });
        if (kind === "good") setTimeout(() => this.dismiss(id), action ? 10_000 : 4000);
    }

    dismiss(id: number): void {
        this.toasts = this.toasts.filter((toast) => toast.id !== id);
    }

    /** Does something, and says why it could not be done. */
    async try(what: string, work: () => Promise<unknown>): Promise<boolean> {
        try {
            await work();
            return true;
        } catch (error) {
            const message = error instanceof Failure ? error.message : String(error);
            const port = portOf(message);
            const explain = { label: text.overview.explain, run: () => this.go("troubleshoot", "port", String(port)) };
            this.tell("bad", what, message, port ? explain : undefined);
            return false;
        }
    }

    /** Asks before something is lost. */
    ask(question: Omit<Question, "answer">): Promise<{ yes: boolean; option: boolean }> {
        return new Promise((resolve) => {
            this.question = {
                ...question,
                answer: (yes, option) => {
                    this.question = undefined;
                    resolve({ yes, option });
                },
            };
        });
    }

    setTheme(theme: string): void {
        this.theme = theme;
        localStorage.setItem("skiff-theme", theme);
    }
}

function read(): string[] {
    return location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
}

/** The address of a view. */
export function href(...parts: string[]): string {
    return `#/${parts.map(encodeURIComponent).join("/")}`;
}

export const ui = new Ui();
export { text };
