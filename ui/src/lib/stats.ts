// What the engine's statistics say, as people know them from `docker stats`.

export interface Raw {
    cpu_stats?: {
        cpu_usage?: { total_usage?: number | null } | null;
        system_cpu_usage?: number | null;
        online_cpus?: number | null;
    } | null;
    precpu_stats?: Raw["cpu_stats"];
    memory_stats?: { usage?: number | null; limit?: number | null; stats?: Record<string, number> | null } | null;
    networks?: Record<string, { rx_bytes?: number | null; tx_bytes?: number | null }> | null;
    blkio_stats?: { io_service_bytes_recursive?: { op?: string | null; value?: number | null }[] | null } | null;
    pids_stats?: { current?: number | null } | null;
}

export interface Sample {
    /** Percent of one processor. */
    cpu: number;
    memory: number;
    limit: number;
    received: number;
    sent: number;
    read: number;
    written: number;
    processes: number;
}

/** Works one answer out; counters stay counters. */
export function sample(raw: Raw): Sample {
    const now = raw.cpu_stats;
    const before = raw.precpu_stats;
    const used = (now?.cpu_usage?.total_usage ?? 0) - (before?.cpu_usage?.total_usage ?? 0);
    const passed = (now?.system_cpu_usage ?? 0) - (before?.system_cpu_usage ?? 0);
    const cpu = before?.system_cpu_usage && passed > 0 && used >= 0 ? (used / passed) * (now?.online_cpus || 1) * 100 : 0;
    const memory = raw.memory_stats;
    // The cache goes when somebody wants the memory (cgroup v2; v1 calls it otherwise).
    const cache = memory?.stats?.inactive_file ?? memory?.stats?.total_inactive_file ?? 0;
    const usage = memory?.usage ?? 0;
    const networks = Object.values(raw.networks ?? {});
    const blocks = (op: string) =>
        (raw.blkio_stats?.io_service_bytes_recursive ?? []).reduce(
            (sum, one) => sum + ((one.op ?? "").toLowerCase() === op ? (one.value ?? 0) : 0),
            0,
        );
    return {
        cpu,
        memory: cache < usage ? usage - cache : usage,
        limit: memory?.limit ?? 0,
        received: networks.reduce((sum, one) => sum + (one.rx_bytes ?? 0), 0),
        sent: networks.reduce((sum, one) => sum + (one.tx_bytes ?? 0), 0),
        read: blocks("read"),
        written: blocks("write"),
        processes: raw.pids_stats?.current ?? 0,
    };
}

/** How much more each second; a counter that starts anew counts from zero. */
export function rate(now: number, before: number | undefined, seconds: number): number {
    if (before === undefined || seconds <= 0) return 0;
    return Math.max(0, now >= before ? now - before : now) / seconds;
}
