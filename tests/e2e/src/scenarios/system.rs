//! info, version, system df, prune, stats.

use std::io::{BufRead, BufReader};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{Subject, scenarios};

scenarios![
    info_and_version_are_complete,
    disk_usage_counts_what_is_there,
    prunes_keep_what_is_used,
    stats_measure_a_container,
    stats_streams_share_a_sampler_and_end_with_the_container,
];

fn json(on: &Subject, path: &str) -> anyhow::Result<Value> {
    let answer = on.call("GET", path, "")?;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    Ok(serde_json::from_slice(&answer.body)?)
}

fn info_and_version_are_complete(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    let info = on.docker.run("info")?.ok()?;
    for line in [
        " Containers: 1",
        "  Running: 1",
        "  Paused: 0",
        " Storage Driver: overlay2",
        " Logging Driver: json-file",
        " Cgroup Version: ",
        "  Log: json-file local none",
        " Swarm: inactive",
        " Runtimes: ",
        " Default Runtime: runc",
        " Security Options:",
        " Kernel Version: ",
        " Operating System: ",
        " OSType: linux",
        " Architecture: ",
        " CPUs: ",
        " Total Memory: ",
        " Docker Root Dir: ",
        " Insecure Registries:",
        "  127.0.0.0/8",
        " Registry Mirrors:",
        " Live Restore Enabled: true",
    ] {
        ensure!(info.out().contains(&format!("\n{line}")), "{line:?} is missing\n{info}");
    }
    let version = on.docker.run("version")?.ok()?;
    version.shows("API version:")?.shows("(minimum version 1.24)")?.shows("OS/Arch:")?;
    Ok(())
}

fn disk_usage_counts_what_is_there(on: &Subject) -> anyhow::Result<()> {
    on.docker.sh("run --name box busybox", "head -c 1000000 /dev/zero > /file")?.ok()?;
    let summary = on.docker.run("system df")?.ok()?;
    for kind in ["Images", "Containers", "Local Volumes", "Build Cache"] {
        ensure!(summary.out().lines().any(|line| line.starts_with(kind)), "{kind} is missing\n{summary}");
    }
    let verbose = on.docker.run("system df -v")?.ok()?;
    ensure!(
        verbose.out().lines().any(|line| line.ends_with(" box") && line.contains("1MB")),
        "no size of the container\n{verbose}"
    );
    let all = json(on, "/system/df")?;
    ensure!(all["LayersSize"].as_i64().unwrap_or(0) > 100_000, "{all}");
    let image = all["Images"].as_array().context("no images")?.first().context("no image")?.clone();
    ensure!(image["SharedSize"].as_i64().unwrap_or(-1) >= 0, "{image}");
    let container = &all["Containers"][0];
    let (own, root) = (container["SizeRw"].as_i64(), container["SizeRootFs"].as_i64());
    ensure!(own >= Some(1_000_000) && root > own, "{container}");
    let some = json(on, "/system/df?type=container")?;
    ensure!(some["Images"].is_null() && some["Containers"].is_array(), "{some}");
    let answer = on.call("GET", "/system/df?type=plugin", "")?;
    ensure!(answer.status == 400 && answer.text().contains("unknown object type: plugin"), "{answer:?}");
    Ok(())
}

fn prunes_keep_what_is_used(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("kept")?;
    on.docker.sh("run --name gone --label x=1 busybox", "head -c 500000 /dev/zero > /file")?.ok()?;
    on.docker.run("create --name labelled --label keep busybox")?.ok()?;
    on.docker.run("container prune -f --filter until=10m")?.ok()?.prints("Total reclaimed space: 0B\n")?;
    on.docker
        .run("container prune -f --filter nonsense=1")?
        .exits(1)?
        .complains("invalid filter 'nonsense'")?;
    let pruned = on.docker.run("container prune -f --filter label!=keep")?.ok()?;
    pruned.shows("Deleted Containers:")?.shows("Total reclaimed space: 500kB")?;
    on.docker.run("inspect gone")?.exits(1)?;
    on.docker.run("inspect labelled kept")?.ok()?;
    // Only what has no name and no container goes.
    on.docker.run("image prune -f")?.ok()?;
    on.docker.run("image inspect busybox")?.ok()?;
    let pruned = on.docker.run("image prune -a -f --filter label=none-has-this")?.ok()?;
    pruned.prints("Total reclaimed space: 0B\n")?;
    on.docker.run("create --name late -v /data busybox")?.ok()?;
    let pruned = on.docker.run("system prune -f --volumes --filter label!=keep")?.ok()?;
    pruned.shows("Deleted Containers:")?.shows("Deleted Volumes:")?.shows("Total reclaimed space:")?;
    on.docker.run("inspect late")?.exits(1)?;
    on.docker.run("inspect labelled kept")?.ok()?;
    Ok(())
}

fn stats_measure_a_container(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .sh("run -d --name busy busybox", "x=$(head -c 8000000 /dev/zero | tr '\\0' x); while :; do :; done")?
        .ok()?;
    on.docker.run("create --name idle busybox")?.ok()?;
    let shown =
        on.docker.args(&["stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.PIDs}}", "busy"])?;
    let text = shown.ok()?.out();
    let words: Vec<&str> = text.split_whitespace().collect();
    let percent: f64 = words.get(1).and_then(|word| word.trim_end_matches('%').parse().ok()).unwrap_or(0.0);
    ensure!(words.first() == Some(&"busy") && percent > 5.0, "{text}");
    let stats = json(on, "/containers/busy/stats?stream=0")?;
    let number = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    ensure!(
        number("/cpu_stats/cpu_usage/total_usage") > number("/precpu_stats/cpu_usage/total_usage"),
        "{stats}"
    );
    ensure!(number("/cpu_stats/system_cpu_usage") > number("/precpu_stats/system_cpu_usage"), "{stats}");
    ensure!(number("/cpu_stats/online_cpus") > 0 && number("/pids_stats/current") >= 1, "{stats}");
    ensure!(number("/memory_stats/usage") > 8_000_000, "{stats}");
    ensure!(number("/memory_stats/limit") > number("/memory_stats/usage"), "{stats}");
    ensure!(stats.pointer("/networks/eth0/rx_bytes").is_some(), "{stats}");
    let one = json(on, "/containers/busy/stats?stream=0&one-shot=1")?;
    ensure!(one["preread"] == "0001-01-01T00:00:00Z", "{one}");
    // One that does not run is not measured, which is no error.
    let idle = json(on, "/containers/idle/stats?stream=0")?;
    ensure!(idle["name"] == "/idle" && idle["read"] == "0001-01-01T00:00:00Z", "{idle}");
    let missing = on.call("GET", "/containers/nothing/stats", "")?;
    ensure!(missing.status == 404, "{missing:?}");
    Ok(())
}

fn stats_streams_share_a_sampler_and_end_with_the_container(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    let mut streams: Vec<_> = (0..20)
        .map(|_| on.deaf_client("/containers/box/stats").map(BufReader::new))
        .collect::<anyhow::Result<_>>()?;
    let mut reads = Vec::new();
    for stream in &mut streams {
        stream.get_ref().set_read_timeout(Some(on.patience(10)))?;
        let stats = loop {
            let mut line = String::new();
            ensure!(stream.read_line(&mut line)? > 0, "the stream has ended");
            if line.starts_with('{') {
                break serde_json::from_str::<Value>(&line)?;
            }
        };
        reads.push(stats["read"].as_str().unwrap_or_default().to_owned());
    }
    reads.sort();
    reads.dedup();
    ensure!(reads.len() <= 4, "twenty clients have {} measurements", reads.len());
    on.docker.run("rm -f box")?.ok()?;
    for mut stream in streams {
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut rest)?;
        ensure!(rest.ends_with(b"0\r\n\r\n"), "the stream goes on");
    }
    Ok(())
}
