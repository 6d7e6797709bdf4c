// The engine's calls that the interface makes, with their types.
import type { Ask, Backend, Method } from "./index";
import type {
    ContainerCreateBody,
    ContainerCreateResponse,
    ContainerInspectResponse,
    ContainerSummary,
    ContainerTopResponse,
    FilesystemChange,
    ImageDeleteResponseItem,
    ImageHistoryResponseItem,
    ImageInspect,
    ImageSummary,
    NetworkInspect,
    PastBuild,
    SystemInfo,
    SystemVersion,
    Volume,
    VolumeFiles,
} from "./types";

export type Verb = "start" | "stop" | "restart" | "pause" | "unpause" | "kill";

/** What dockerd says with `GET /system/df`, in the form of before API 1.52. */
export interface DiskUse {
    LayersSize?: number;
    Images?: ImageSummary[] | null;
    Containers?: ContainerSummary[] | null;
    Volumes?: Volume[] | null;
    BuildCache?: { ID: string; Size: number; InUse: boolean }[] | null;
}

export class Docker {
    constructor(private readonly backend: Backend) {}

    private async json<T>(ask: Ask): Promise<T> {
        return (await (await this.backend.ask(ask)).json()) as T;
    }

    private async done(method: Method, path: string, rest: Partial<Ask> = {}): Promise<void> {
        await this.backend.ask({ method, path, ...rest });
    }

    version = () => this.json<SystemVersion>({ path: "/version" });
    info = () => this.json<SystemInfo>({ path: "/info" });
    diskUse = () => this.json<DiskUse>({ path: "/system/df" });

    containers = () => this.json<ContainerSummary[]>({ path: "/containers/json", query: { all: true } });
    container = (id: string) => this.json<ContainerInspectResponse>({ path: `/containers/${id}/json` });
    top = (id: string) => this.json<ContainerTopResponse>({ path: `/containers/${id}/top`, query: { ps_args: "-ef" } });
    changes = (id: string) => this.json<FilesystemChange[] | null>({ path: `/containers/${id}/changes` });
    act = (id: string, verb: Verb) => this.done("POST", `/containers/${id}/${verb}`);
    rename = (id: string, name: string) => this.done("POST", `/containers/${id}/rename`, { query: { name } });
    removeContainer = (id: string, volumes: boolean) =>
        this.done("DELETE", `/containers/${id}`, { query: { force: true, v: volumes } });
    create = (name: string, body: ContainerCreateBody) =>
        this.json<ContainerCreateResponse>({
            method: "POST",
            path: "/containers/create",
            query: { name: name || undefined },
            json: body,
        });
    async exec(id: string, command: string[], tty: boolean): Promise<string> {
        const json = { AttachStdin: tty, AttachStdout: true, AttachStderr: true, Tty: tty, Cmd: command };
        const made = await this.json<{ Id: string }>({ method: "POST", path: `/containers/${id}/exec`, json });
        return made.Id;
    }
    execCode = async (id: string) => (await this.json<{ ExitCode: number | null }>({ path: `/exec/${id}/json` })).ExitCode;
    resizeExec = (id: string, w: number, h: number) => this.done("POST", `/exec/${id}/resize`, { query: { w, h } });
    archive = (id: string, path: string, signal?: AbortSignal) =>
        this.backend.ask({ path: `/containers/${id}/archive`, query: { path }, ...(signal ? { signal } : {}) });
    upload = (id: string, path: string, body: Blob) =>
        this.done("PUT", `/containers/${id}/archive`, { query: { path }, body });

    images = () => this.json<ImageSummary[]>({ path: "/images/json", query: { "shared-size": true } });
    image = (name: string) => this.json<ImageInspect>({ path: `/images/${name}/json` });
    history = (name: string) => this.json<ImageHistoryResponseItem[]>({ path: `/images/${name}/history` });
    tag = (name: string, repo: string, tag: string) => this.done("POST", `/images/${name}/tag`, { query: { repo, tag } });
    removeImage = (name: string, force: boolean) =>
        this.json<ImageDeleteResponseItem[]>({ method: "DELETE", path: `/images/${name}`, query: { force } });

    volumes = async () => (await this.json<{ Volumes: Volume[] | null }>({ path: "/volumes" })).Volumes ?? [];
    createVolume = (name: string) => this.done("POST", "/volumes/create", { json: { Name: name } });
    removeVolume = (name: string) => this.done("DELETE", `/volumes/${name}`);

    volumeFiles = (name: string, path: string) =>
        this.json<VolumeFiles>({ path: `/volumes/${name}/files`, query: { path } });
    volumeArchive = (name: string, path: string, signal?: AbortSignal) =>
        this.backend.ask({ path: `/volumes/${name}/archive`, query: { path }, ...(signal ? { signal } : {}) });
    uploadToVolume = (name: string, path: string, body: Blob) =>
        this.done("PUT", `/volumes/${name}/archive`, { query: { path }, body });

    builds = () => this.json<PastBuild[]>({ path: "/build/history" });
    forgetBuild = (id: string) => this.done("DELETE", `/build/history/${id}`);
    cancelBuild = (id: string) => this.done("POST", "/build/cancel", { query: { id } });
    pruneBuilds = () =>
        this.json<{ SpaceReclaimed: number }>({ method: "POST", path: "/build/prune", query: { all: true } });

    networks = () => this.json<NetworkInspect[]>({ path: "/networks" });
    network = (id: string) => this.json<NetworkInspect>({ path: `/networks/${id}` });
    createNetwork = (json: object) => this.done("POST", "/networks/create", { json });
    removeNetwork = (id: string) => this.done("DELETE", `/networks/${id}`);
}
