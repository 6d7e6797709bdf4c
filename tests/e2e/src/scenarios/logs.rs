//! `docker logs`.

use anyhow::{Context, ensure};

use crate::{Subject, scenarios};

scenarios![
    logs_keep_both_streams_in_order,
    logs_can_be_cut_by_tail_and_time,
    logs_can_be_followed,
    logs_outlive_the_container
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
