//! `docker logs`.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::{Subject, scenarios};

scenarios![
    logs_keep_both_streams_in_order,
    logs_can_be_cut_by_tail_and_time,
    logs_can_be_followed,
    first_words_are_in_a_log_that_is_read_at_once,
    logs_outlive_the_container,
    logs_rotate_under_a_follower,
    log_options_are_checked_and_shown,
    noisy_container_holds_nobody_up,
];

fn logs_keep_both_streams_in_order(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .sh("run --name box busybox", "echo 1; sleep 0.1; echo 2 >&2; sleep 0.1; printf '3\\r\\nno newline'")?
        .ok()?;
    let logs = on.docker.run("logs box")?.ok()?.prints("1\n3\r\nno newline")?;
    ensure!(logs.err() == "2\n", "stderr\n{logs}");
    // A line of 40 kB is stored in parts and comes back in one.
    on.docker.sh("run --name long busybox", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end")?.ok()?;
    on.docker.run("logs long")?.ok()?.prints(&format!("{}\nend\n", "x".repeat(40_000)))?;
    Ok(())
}

fn logs_can_be_cut_by_tail_and_time(on: &Subject) -> anyhow::Result<()> {
    on.docker.sh("run --name box busybox", "echo a; echo b; sleep 1.5; echo c; echo d")?.ok()?;
    on.docker.run("logs --tail 3 box")?.ok()?.prints("b\nc\nd\n")?;
    on.docker.run("logs --tail 0 box")?.ok()?.prints("")?;
    on.docker.run("logs --tail all box")?.ok()?.prints("a\nb\nc\nd\n")?;
    let stamped = on.docker.run("logs -t box")?.ok()?;
    let text = stamped.out();
    let stamp = |word: &str| {
        let line = text.lines().find(|line| line.ends_with(&format!(" {word}")));
        Some(line?.split(' ').next()?.to_owned())
    };
    let (b, c) = (stamp("b").context("no stamp for b")?, stamp("c").context("no stamp for c")?);
    ensure!(b.len() == 30 && b.ends_with('Z') && b < c, "stamps are nanoseconds in UTC\n{stamped}");
    on.docker.args(&["logs", "--since", &c, "box"])?.ok()?.prints("c\nd\n")?;
    on.docker.args(&["logs", "--until", &b, "box"])?.ok()?.prints("a\nb\n")?;
    Ok(())
}

fn first_words_are_in_a_log_that_is_read_at_once(on: &Subject) -> anyhow::Result<()> {
    // A client that starts a container and reads its log, without the pause that a command line takes.
    let socket = on.docker.host().strip_prefix("unix://").context("no socket")?.to_owned();
    let call = |method: &str, path: &str, body: &[u8]| {
        skiff_testkit::http::unix_request(method, Path::new(&socket), path, body)
    };
    for round in 0..5 {
        let body = br#"{"Image":"busybox","Cmd":["echo","word"],"Tty":true}"#;
        let created = call("POST", &format!("/containers/create?name=box{round}"), body)?;
        ensure!(created.status == 201, "{}", created.text());
        call("POST", &format!("/containers/box{round}/start"), b"")?;
        let log = call("GET", &format!("/containers/box{round}/logs?stdout=1"), b"")?;
        // In a guest that is slow itself, 100 ms may be too short.
        ensure!(on.in_guest || log.text() == "word\r\n", "round {round}: {:?}", log.text());
    }
    Ok(())
}

fn logs_can_be_followed(on: &Subject) -> anyhow::Result<()> {
    let script = "echo first; while [ ! -e /go ]; do sleep 0.1; done; echo second; exit 3";
    on.docker.sh("run -d --name box busybox", script)?.ok()?;
    let follower = on.docker.start("logs -f box")?;
    follower.wait_for("first\n", on.patience(10))?;
    on.docker.run("exec box touch /go")?.ok()?;
    follower.finish(on.patience(10))?.ok()?.prints("first\nsecond\n")?;
    on.docker.run("logs -f --tail 1 box")?.ok()?.prints("second\n")?;
    // A follower that leaves disturbs nobody.
    on.sleeper("other")?;
    drop(on.docker.start("logs -f other")?);
    on.docker.run("exec other true")?.ok()?;
    Ok(())
}

fn logs_outlive_the_container(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run --name box busybox echo once")?.ok()?;
    on.docker.run("start -a box")?.ok()?;
    on.docker.run("logs box")?.ok()?.prints("once\nonce\n")?;
    on.docker.run("rm box")?.ok()?;
    on.docker.run("logs box")?.exits(1)?.complains("No such container: box")?;
    Ok(())
}

fn logs_rotate_under_a_follower(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .sh(
            "run -d --name box --log-opt max-size=20k --log-opt max-file=2 busybox",
            "while [ ! -e /go ]; do sleep 0.1; done; seq 1 100000; echo end >&2",
        )?
        .ok()?;
    let follower = on.docker.start("logs -f box")?;
    on.docker.run("exec box touch /go")?.ok()?;
    let all = follower.finish(on.patience(30))?.ok()?;
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    ensure!(all.out() == expected, "the follower has {} bytes of {}", all.out().len(), expected.len());
    ensure!(all.err() == "end\n", "stderr is {}", all.err());
    // Who comes later finds the newest whole lines.
    let late = on.docker.run("logs box")?.ok()?.out();
    ensure!(late.ends_with("\n99999\n100000\n"), "the end is missing: {} bytes", late.len());
    ensure!((40_000..80_000).contains(&late.len()), "{} bytes are kept of 40000", late.len());
    ensure!(expected.ends_with(&format!("\n{late}")), "not the newest lines");
    on.docker.run("logs --tail 3 box")?.ok()?.prints("99999\n100000\n")?.complains("end")?;
    Ok(())
}

fn log_options_are_checked_and_shown(on: &Subject) -> anyhow::Result<()> {
    for (options, complaint) in [
        ("--log-driver journald", r#"error looking up logging plugin journald: plugin "journald" not found"#),
        ("--log-driver fluentd", r#"error looking up logging plugin fluentd: plugin "fluentd" not found"#),
        ("--log-opt bogus=1", "unknown log opt 'bogus' for json-file log driver"),
        ("--log-opt max-file=0", "max-file cannot be less than 1"),
        ("--log-opt compress=true", "compress cannot be true when max-file is less than 2"),
        ("--log-driver local --log-opt labels=a", "unknown log opt 'labels' for log driver local"),
    ] {
        on.docker.run(&format!("create {options} busybox"))?.exits(1)?.complains(complaint)?;
    }
    on.docker.run("run --name mute --log-driver none busybox echo seen")?.ok()?.prints("seen\n")?;
    on.docker.run("logs mute")?.exits(1)?.complains("configured logging driver does not support reading")?;
    on.docker.run("run --name own --log-driver local --log-opt max-size=1m busybox echo kept")?.ok()?;
    on.docker.run("logs own")?.ok()?.prints("kept\n")?;
    on.docker
        .args(&[
            "inspect",
            "-f",
            "{{.HostConfig.LogConfig.Type}} {{.HostConfig.LogConfig.Config}} {{.LogPath}}",
            "own",
        ])?
        .ok()?
        .prints("local map[max-size:1m] \n")?;
    on.docker
        .args(&[
            "run",
            "--name",
            "box",
            "--label",
            "tier=a b",
            "--label",
            "other=1",
            "-e",
            "STAGE=x/y",
            "--log-opt",
            "labels=tier",
            "--log-opt",
            "env-regex=^STA",
            "--log-opt",
            "tag={{.Name}}",
            "busybox",
            "echo",
            "line",
        ])?
        .ok()?;
    on.docker.run("logs --details box")?.ok()?.prints("STAGE=x%2Fy,tag=box,tier=a+b line\n")?;
    let stamped = on.docker.run("logs --details -t box")?.ok()?.out();
    ensure!(stamped.ends_with("Z STAGE=x%2Fy,tag=box,tier=a+b line\n"), "{stamped}");
    on.docker.run("logs --details own")?.ok()?.prints(" kept\n")?;
    Ok(())
}

fn noisy_container_holds_nobody_up(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name noisy --log-opt max-size=2m busybox yes")?.ok()?;
    let _deaf = on.deaf_client("/containers/noisy/logs?follow=1&stdout=1")?;
    for _ in 0..5 {
        let started = std::time::Instant::now();
        on.docker.run("run --rm busybox echo quiet")?.ok()?.prints("quiet\n")?;
        ensure!(started.elapsed() < on.patience(5), "a quiet container took {:?}", started.elapsed());
    }
    on.docker.run("logs --tail 2 noisy")?.ok()?.prints("y\ny\n")?;
    if let Some(memory) = on.engine_memory()? {
        ensure!(memory < 200 << 20, "the engine holds {memory} bytes");
    }
    Ok(())
}
