//! What limits do where there are some, and what is said about them where there are none.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::{Subject, scenarios};

scenarios![
    memory_over_its_limit_ends_the_container_as_dockers,
    more_processes_than_allowed_cannot_be_made,
    a_share_of_the_processor_is_kept_to,
    a_device_is_written_no_faster_than_allowed,
    limits_that_a_machine_cannot_set_are_discarded_with_a_warning,
    the_runtime_as_a_command_sets_the_limits_of_the_spec,
];

/// Whether the engine's machine has the controllers of cgroup v2.
fn limited(on: &Subject) -> anyhow::Result<bool> {
    Ok(on.docker.run("info --format {{.MemoryLimit}}")?.ok()?.out() == "true\n")
}

fn memory_over_its_limit_ends_the_container_as_dockers(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    let since = on.now()?;
    let fill = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    let run = docker.run(&format!("run --name box -m 16m --memory-swap 16m busybox {fill}"))?;
    if !limited(on)? {
        run.ok()?.complains("Your kernel does not support memory limit capabilities")?;
        return Ok(());
    }
    run.exits(137)?;
    let state = docker.inspect("box", "{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.Status}}")?;
    ensure!(state == "true 137 exited", "{state}");
    let events = format!("events --since {since} --until {} --filter container=box", on.now()?);
    let events = docker.command(&events).args(["--format", "{{.Action}}"]).run()?.ok()?;
    let at = |name: &str| events.out().lines().position(|line| line == name);
    ensure!(at("oom").is_some() && at("oom") < at("die"), "{events}");
    // Started again and ended by itself, it is no longer one that was killed for its memory.
    docker.run("rm box")?.ok()?;
    docker.sh("run --name box -m 16m --memory-swap 16m busybox", "exit 3")?.exits(3)?;
    ensure!(docker.inspect("box", "{{.State.OOMKilled}}")? == "false");
    // The limit is the whole container's, and is seen inside.
    docker.run("run --rm -m 64m --memory-swap 96m busybox cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max")
        .and_then(|done| {
            // A guest without swap has no file for it.
            ensure!(done.out().starts_with("67108864\n"), "{done}");
            Ok(())
        })
}

fn more_processes_than_allowed_cannot_be_made(on: &Subject) -> anyhow::Result<()> {
    let script = "for n in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all";
    let run = on.docker.sh("run --rm --pids-limit 5 busybox", script)?;
    if limited(on)? {
        ensure!(run.code != 0 && run.err().contains("can't fork") && !run.out().contains("all"), "{run}");
        return Ok(());
    }
    run.ok()?.prints("all\n")?.complains_anywhere("Your kernel does not support PIDs limit capabilities")?;
    Ok(())
}

/// Processor time and the moment, in nanoseconds, as the engine measures them.
fn usage(on: &Subject) -> anyhow::Result<(f64, f64)> {
    let answer = on.call("GET", "/containers/box/stats?stream=false&one-shot=true", "")?;
    let all: Value = serde_json::from_slice(&answer.body)?;
    let used = all["cpu_stats"]["cpu_usage"]["total_usage"].as_f64().context("no usage")?;
    let read = all["read"].as_str().context("no time")?;
    let (_, clock) = read.split_once('T').context("no clock")?;
    let mut parts = clock.trim_end_matches('Z').splitn(3, ':').map(str::parse::<f64>);
    let mut next = || -> anyhow::Result<f64> { Ok(parts.next().context("no part")??) };
    let (hours, minutes, seconds) = (next()?, next()?, next()?);
    Ok((used, ((hours * 60.0 + minutes) * 60.0 + seconds) * 1e9))
}

fn a_share_of_the_processor_is_kept_to(on: &Subject) -> anyhow::Result<()> {
    const SHARE: f64 = 0.4;
    let busy = "while :; do :; done & while :; do :; done";
    let run = on.docker.sh(&format!("run -d --name box --cpus {SHARE} busybox"), busy)?.ok()?;
    if !limited(on)? {
        run.complains("Your kernel does not support CPU CFS scheduler")?;
        return Ok(());
    }
    // What the machine does beside it can take time from a window, or delay the look at it; without a limit each would show
    // a multiple of the share.
    let mut seen = Vec::new();
    for _ in 0..6 {
        let (used, at) = usage(on)?;
        std::thread::sleep(std::time::Duration::from_secs(3));
        let (later_used, later) = usage(on)?;
        let share = (later_used - used) / (later - at);
        seen.push(share);
        if (share / SHARE - 1.0).abs() <= 0.1 {
            return Ok(());
        }
    }
    bail!("with --cpus {SHARE} it had {seen:.3?}")
}

fn a_device_is_written_no_faster_than_allowed(on: &Subject) -> anyhow::Result<()> {
    const MIB: f64 = 1_048_576.0;
    let docker = &on.docker;
    if !limited(on)? {
        let run = docker.run("run --rm --device-write-bps /dev/null:1mb busybox true")?.ok()?;
        run.complains(
            "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
        )?;
        return Ok(());
    }
    let find = "n=$(stat -c %d /data); sed -n s/^DEVNAME=//p /sys/dev/block/$((n >> 8)):$((n & 255))/uevent";
    let device = docker.sh("run --rm -v /data busybox", find)?.ok()?.out().trim().to_owned();
    ensure!(!device.is_empty(), "the volume lies on no device");
    // Hundredths of a second since the boot.
    let script = "cat /sys/fs/cgroup/io.max; now() { cut -d' ' -f1 /proc/uptime | tr -d .; }; a=$(now); \
        dd if=/dev/zero of=/data/x bs=256k count=12 conv=fsync 2>/dev/null; echo $(($(now) - a))";
    let run = docker
        .sh(&format!("run --rm -v /data --device-write-bps /dev/{device}:1mb busybox"), script)?
        .ok()?
        .out();
    let (max, took) = run.trim().split_once('\n').with_context(|| format!("no time: {run}"))?;
    ensure!(max.contains("wbps=1048576"), "{max}");
    let took: f64 = took.parse()?;
    let rate = 3.0 * MIB / (took / 100.0);
    // A busy machine only makes it slower.
    ensure!(rate < 1.2 * MIB, "written with {:.2} MiB/s", rate / MIB);
    Ok(())
}

fn limits_that_a_machine_cannot_set_are_discarded_with_a_warning(on: &Subject) -> anyhow::Result<()> {
    let options = "--memory 64m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 \
        --pids-limit 10 --blkio-weight 300 --device-read-bps /dev/null:1mb --device-write-iops /dev/null:10";
    if limited(on)? {
        // What the machine can do is done without a word, and what cgroup v2 lacks is said.
        let run = on.docker.run("run --rm --memory 64m --cpus 0.5 --pids-limit 10 busybox true")?.ok()?;
        ensure!(run.err().is_empty(), "{run}");
        let run = on.docker.run("run --rm --memory-swappiness 10 busybox true")?.ok()?;
        run.complains("Memory swappiness discarded")?;
        return Ok(());
    }
    let mut run = on.docker.run(&format!("run --rm {options} busybox echo ran"))?.ok()?.prints("ran\n")?;
    for what in [
        "memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        "memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        "CPU CFS scheduler or the cgroup is not mounted. CPU limits discarded.",
        "CPU shares or the cgroup is not mounted. Shares discarded.",
        "cpuset or the cgroup is not mounted. Cpuset discarded.",
        "PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
        "Block I/O weight or the cgroup is not mounted. Weight discarded.",
        "BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
        "IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
    ] {
        run = run.complains(&format!("WARNING: Your kernel does not support {what}"))?;
    }
    Ok(())
}

/// `skiff-agent oci` where cgroup v2 has its controllers: every resource of the spec ends in its file, and the commands about them.
fn the_runtime_as_a_command_sets_the_limits_of_the_spec(on: &Subject) -> anyhow::Result<()> {
    let Some(daemon) = on.daemon_under_test().filter(|_| on.in_guest) else { return Ok(()) };
    let files = [
        ("memory.max", "67108864"),
        ("memory.low", "1048576"),
        ("memory.high", "50331648"),
        ("pids.max", "50"),
        ("cpu.max", "30000 100000"),
        ("cpu.max.burst", "10000"),
        ("cpu.weight", "20"),
        ("cpuset.cpus", "0"),
        ("hugetlb.2MB.max", "4194304"),
    ];
    let show: Vec<String> = files.iter().map(|(file, _)| format!("cat /sys/fs/cgroup/{file}")).collect();
    let config = json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["busybox", "sh", "-c", format!("{}; exec busybox sleep 1000", show.join("; ")).replace("cat ", "busybox cat ")],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        ],
        "linux": {
            "cgroupsPath": "/e2e/box",
            "namespaces": (["pid", "mount", "ipc", "uts", "network", "cgroup"]).map(|kind| json!({"type": kind})),
            "resources": {
                "memory": {"limit": 67_108_864, "reservation": 1_048_576},
                "pids": {"limit": 50},
                "cpu": {"quota": 30_000, "period": 100_000, "burst": 10_000, "shares": 512, "cpus": "0"},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
                "unified": {"memory.high": "50331648"},
            },
        },
    });
    let ended = daemon
        .skiff("machine ssh --")?
        .args([include_str!("limits.sh")])
        .stdin(config.to_string())
        .timeout(on.patience(60))
        .run()?
        .ok()?;
    let wanted: String = files.iter().map(|(_, value)| format!("{value}\n")).collect();
    ended.prints(&format!("{wanted}paused\nrunning\npids 7\nkilled 137\ngone\n"))?;
    Ok(())
}
