//! create, start, stop, kill, restart, wait, rename, top, rm.

use anyhow::ensure;

use crate::{Subject, scenarios};

scenarios![
    stop_lets_the_container_end_by_itself,
    stop_kills_what_does_not_listen,
    restart_starts_anew,
    wait_gives_the_exit_code,
    rename_and_remove,
    top_lists_the_processes,
    automatic_removal_happens_also_in_the_background,
    starting_and_stopping_twice_is_no_error,
    a_prefix_of_the_id_is_enough,
];

fn stop_lets_the_container_end_by_itself(on: &Subject) -> anyhow::Result<()> {
    let script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done";
    on.docker.sh("run -d --name box busybox", script)?.ok()?;
    skiff_testkit::wait_until("the trap", on.patience(10), || {
        on.docker.run("logs box").is_ok_and(|logs| logs.out().contains("up")).then_some(())
    })?;
    on.docker.run("stop box")?.ok()?.prints("box\n")?;
    let state = on
        .docker
        .inspect("box", "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}} {{.State.Pid}}")?;
    ensure!(state == "exited 5 false 0", "state {state}");
    on.docker.run("logs box")?.ok()?.prints("up\nbye\n")?;
    Ok(())
}

fn stop_kills_what_does_not_listen(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    on.docker.run("stop -t 1 box")?.ok()?;
    let state = on.docker.inspect("box", "{{.State.Status}} {{.State.ExitCode}}")?;
    ensure!(state == "exited 137", "state {state}");
    Ok(())
}

fn restart_starts_anew(on: &Subject) -> anyhow::Result<()> {
    on.docker.sh("run -d --name box busybox", "date >> /starts; exec sleep 1000")?.ok()?;
    let before = on.docker.inspect("box", "{{.State.StartedAt}} {{.State.Pid}}")?;
    on.docker.run("restart -t 0 box")?.ok()?.prints("box\n")?;
    let after = on.docker.inspect("box", "{{.State.StartedAt}} {{.State.Pid}}")?;
    ensure!(before != after, "still {after}");
    skiff_testkit::wait_until("the second start", on.patience(10), || {
        on.docker.run("exec box wc -l /starts").is_ok_and(|count| count.out().starts_with("2 ")).then_some(())
    })
}

fn wait_gives_the_exit_code(on: &Subject) -> anyhow::Result<()> {
    on.docker.sh("run -d --name box busybox", "while [ ! -e /go ]; do sleep 0.1; done; exit 11")?.ok()?;
    let waiter = on.docker.start("wait box")?;
    on.docker.run("exec box touch /go")?.ok()?;
    waiter.finish(on.patience(10))?.ok()?.prints("11\n")?;
    on.docker.run("wait box")?.ok()?.prints("11\n")?;
    Ok(())
}

fn rename_and_remove(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("old")?;
    on.docker.run("rename old new")?.ok()?;
    on.docker.run("inspect old")?.exits(1)?.complains("No such object: old")?;
    let name = on.docker.inspect("new", "{{.Name}}")?;
    ensure!(name == "/new", "name {name}");
    on.docker.run("rm new")?.exits(1)?.complains("container is running")?;
    on.docker.run("rm -f new")?.ok()?.prints("new\n")?;
    on.docker.run("ps -aq")?.ok()?.prints("")?;
    // The name is free again.
    on.docker.run("run --rm --name old busybox true")?.ok()?;
    Ok(())
}

fn top_lists_the_processes(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    let top = on.docker.run("top box")?.ok()?.shows("sleep 1000")?;
    let head = top.out().lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(head == "UID PID PPID C STIME TTY TIME CMD", "head {head:?}");
    Ok(())
}

fn automatic_removal_happens_also_in_the_background(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --rm --name box busybox sleep 0.2")?.ok()?;
    skiff_testkit::wait_until("the container to be gone", on.patience(10), || {
        on.docker.run("ps -aq").is_ok_and(|list| list.stdout.is_empty()).then_some(())
    })
}

fn starting_and_stopping_twice_is_no_error(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    on.docker.run("start box")?.ok()?.prints("box\n")?;
    on.docker.run("stop -t 0 box")?.ok()?;
    on.docker.run("stop -t 0 box")?.ok()?.prints("box\n")?;
    on.docker.run("kill box")?.exits(1)?.complains("is not running")?;
    on.docker.run("start box")?.ok()?;
    on.docker.wait_for_status("box", "running", on.patience(5))
}

fn a_prefix_of_the_id_is_enough(on: &Subject) -> anyhow::Result<()> {
    let id = on.docker.run("create busybox true")?.ok()?.out().trim().to_owned();
    ensure!(id.len() == 64, "id {id:?}");
    let found = on.docker.inspect(&id[..6], "{{.Id}}")?;
    ensure!(found == id, "{found} is not {id}");
    on.docker.run(&format!("rm {}", &id[..12]))?.ok()?;
    Ok(())
}
