//! Restart policies.

use anyhow::ensure;
use skiff_testkit::wait_until;

use crate::{Subject, scenarios};

scenarios![
    on_failure_tries_as_often_as_it_may,
    on_failure_leaves_a_success_alone,
    always_starts_again_until_the_user_stops_it,
    a_stop_holds_at_whatever_moment_of_a_run_it_comes,
    restarts_come_slower_and_slower,
    a_container_between_restarts_can_be_stopped_killed_and_removed,
    restart_policies_that_make_no_sense_are_refused,
    update_changes_the_restart_policy_and_the_limits,
];

fn restarts(on: &Subject, name: &str, count: u32) -> anyhow::Result<()> {
    wait_until(&format!("{count} restarts of {name}"), on.patience(20), || {
        let now: u32 = on.docker.inspect(name, "{{.RestartCount}}").ok()?.parse().ok()?;
        (now >= count).then_some(())
    })
}

fn on_failure_tries_as_often_as_it_may(on: &Subject) -> anyhow::Result<()> {
    on.docker.sh("run -d --name box --restart on-failure:3 busybox", "echo run; exit 4")?.ok()?;
    restarts(on, "box", 3)?;
    on.docker.run("wait box")?.ok()?.prints("4\n")?;
    let state = on.docker.inspect("box", "{{.RestartCount}} {{.State.Status}} {{.State.Restarting}}")?;
    ensure!(state == "3 exited false", "state {state}");
    on.docker.run("logs box")?.ok()?.prints("run\nrun\nrun\nrun\n")?;
    // A start of the user's is a new life.
    on.docker.run("start box")?.ok()?;
    ensure!(on.docker.inspect("box", "{{.RestartCount}}")?.parse::<u32>()? < 3);
    Ok(())
}

fn on_failure_leaves_a_success_alone(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name box --restart on-failure busybox true")?.ok()?;
    on.docker.run("wait box")?.ok()?.prints("0\n")?;
    let state = on.docker.inspect("box", "{{.RestartCount}} {{.State.Status}}")?;
    ensure!(state == "0 exited", "state {state}");
    Ok(())
}

fn always_starts_again_until_the_user_stops_it(on: &Subject) -> anyhow::Result<()> {
    for policy in ["always", "unless-stopped"] {
        on.docker.sh(&format!("run -d --name box --restart {policy} busybox"), "sleep 0.1")?.ok()?;
        restarts(on, "box", 1)?;
        on.docker.run("stop -t 0 box")?.ok()?;
        std::thread::sleep(std::time::Duration::from_millis(1000));
        let state = on.docker.inspect("box", "{{.State.Status}}")?;
        ensure!(state == "exited", "{policy}: {state} after a stop");
        on.docker.run("rm box")?.ok()?;
    }
    // What is killed from inside comes back as well.
    on.docker
        .sh("run -d --name box --restart always busybox", "trap 'exit 3' TERM; sleep 1000 & wait")?
        .ok()?;
    on.docker.run("exec box kill -TERM 1")?;
    restarts(on, "box", 1)?;
    on.docker.wait_for_status("box", "running", on.patience(5))
}

fn a_stop_holds_at_whatever_moment_of_a_run_it_comes(on: &Subject) -> anyhow::Result<()> {
    // Stops that hit the end of a run, which is when the restart policy decides, must neither fail nor be forgotten.
    let names: Vec<String> = (0..16).map(|number| format!("box{number}")).collect();
    for (name, number) in names.iter().zip(0u32..) {
        let delay = format!("sleep 0.0{}", 20 + 2 * number);
        on.docker.sh(&format!("run -d --name {name} --restart always busybox"), &delay)?.ok()?;
        on.docker
            .run(&format!("{} {name}", if number % 2 == 0 { "stop -t 0" } else { "stop -t 1" }))?
            .ok()?;
    }
    std::thread::sleep(std::time::Duration::from_millis(1000));
    for name in names {
        let state = on.docker.inspect(&name, "{{.State.Status}}")?;
        ensure!(state == "exited", "{name}: {state} after a stop");
    }
    Ok(())
}

fn restarts_come_slower_and_slower(on: &Subject) -> anyhow::Result<()> {
    let since = on.now()?;
    on.docker.run("run -d --name box --restart on-failure:3 busybox false")?.ok()?;
    restarts(on, "box", 3)?;
    let command = format!("events --since {since} --until {} --filter container=box", on.now()?);
    let events =
        on.docker.command(&command).args(["--format", "{{.TimeNano}} {{.Action}}"]).run()?.ok()?.out();
    let times = |action: &str| -> Vec<u64> {
        let of = |line: &str| line.strip_suffix(action)?.trim().parse().ok();
        events.lines().filter_map(of).collect()
    };
    let (starts, ends) = (times(" start"), times(" die"));
    ensure!(starts.len() == 4 && ends.len() >= 3, "{events}");
    for (at, least) in [100, 200, 400].into_iter().enumerate() {
        let pause = starts[at + 1].saturating_sub(ends[at]) / 1_000_000;
        ensure!(pause >= least, "restart {at} came after {pause} ms\n{events}");
    }
    Ok(())
}

/// Waits until a container is in a pause of its back-off that is long enough to do something in.
fn between_restarts(on: &Subject, name: &str) -> anyhow::Result<()> {
    on.docker.run(&format!("run -d --name {name} --restart always busybox false"))?.ok()?;
    restarts(on, name, 4)?;
    on.docker.wait_for_status(name, "restarting", on.patience(10))?;
    let state = on.docker.inspect(name, "{{.State.Running}} {{.State.Restarting}} {{.State.Pid}}")?;
    ensure!(state == "true true 0", "state {state}");
    let list = on.docker.run("ps --filter status=restarting --format {{.Status}}")?.ok()?.out();
    ensure!(list.starts_with("Restarting (1) "), "{list:?}");
    on.docker.run(&format!("exec {name} true"))?.exits(1)?.complains("is restarting, wait until")?;
    Ok(())
}

fn a_container_between_restarts_can_be_stopped_killed_and_removed(on: &Subject) -> anyhow::Result<()> {
    between_restarts(on, "stopped")?;
    on.docker.run("stop stopped")?.ok()?;
    between_restarts(on, "killed")?;
    on.docker.run("kill killed")?.ok()?;
    for name in ["stopped", "killed"] {
        let state = on.docker.inspect(name, "{{.State.Status}} {{.State.Restarting}} {{.State.ExitCode}}")?;
        ensure!(state == "exited false 1", "{name}: {state}");
    }
    between_restarts(on, "removed")?;
    on.docker.run("rm removed")?.exits(1)?.complains("container is restarting")?;
    on.docker.run("rm -f removed")?.ok()?;
    on.docker.run("run --name removed busybox true")?.ok()?;
    std::thread::sleep(std::time::Duration::from_millis(1700));
    let running = on.docker.run("ps -q")?.ok()?.out();
    ensure!(running.is_empty(), "{running} runs again");
    Ok(())
}

fn restart_policies_that_make_no_sense_are_refused(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run("create --restart sometimes busybox")?
        .exits(1)?
        .complains("invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'")?;
    on.docker
        .run("create --restart always:3 busybox")?
        .exits(1)?
        .complains("invalid restart policy: maximum retry count can only be used with 'on-failure'")?;
    Ok(())
}

fn update_changes_the_restart_policy_and_the_limits(on: &Subject) -> anyhow::Result<()> {
    let since = on.now()?;
    on.docker.run("run -d --name box --restart always busybox false")?.ok()?;
    on.docker.run("update --restart on-failure:4 box")?.ok()?.shows("box\n")?;
    restarts(on, "box", 4)?;
    on.docker.run("wait box")?.ok()?.prints("1\n")?;
    ensure!(on.docker.inspect("box", "{{.RestartCount}}")? == "4");
    on.docker.run("run -d --rm --name gone busybox sleep 1000")?.ok()?;
    on.docker
        .run("update --restart always gone")?
        .exits(1)?
        .complains("Restart policy cannot be updated because AutoRemove is enabled for the container")?;
    on.docker.run("update -m 64m --memory-swap 128m --cpus 0.5 --pids-limit 50 gone")?.ok()?;
    let limits = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
    let limits = on.docker.inspect("gone", limits)?;
    ensure!(limits == "67108864 134217728 500000000 50", "limits {limits}");
    let limited = on.docker.run("info --format {{.MemoryLimit}}")?.ok()?.out() == "true\n";
    if limited {
        on.docker
            .run("exec gone cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max")?
            .ok()?
            .prints("67108864\n50\n")?;
    }
    on.docker.run("update -m 256m gone")?.exits(1)?.complains("update the memoryswap at the same time")?;
    on.docker
        .run("update --cpu-quota 50000 gone")?
        .exits(1)?
        .complains("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")?;
    on.docker.run("update -m 1m gone")?.exits(1)?.complains("Minimum memory limit allowed is 6MB")?;
    let command = format!("events --since {since} --until {} --filter event=update", on.now()?);
    let events = on.docker.command(&command).args(["--format", "{{.Actor.Attributes.name}}"]).run()?.ok()?;
    events.prints("box\ngone\n")?;
    Ok(())
}
