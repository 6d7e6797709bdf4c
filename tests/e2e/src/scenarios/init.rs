//! `docker run --init`.

use anyhow::ensure;

use crate::{Subject, scenarios};

scenarios![
    an_init_reaps_orphans_and_passes_signals_on,
    an_init_ends_with_the_code_of_its_command,
    an_init_gives_its_command_the_terminal,
];

fn an_init_reaps_orphans_and_passes_signals_on(on: &Subject) -> anyhow::Result<()> {
    let script = "trap 'echo bye; exit 5' TERM; trap 'echo hangup' HUP; sh -c 'sleep 0.1 & exec true'; \
                  echo up; while :; do sleep 0.1; done";
    on.docker.sh("run -d --name box --init busybox", script)?.ok()?;
    on.docker.run("exec box cat /proc/1/cmdline")?.ok()?.shows("/sbin/docker-init\0--\0sh\0-c\0")?;
    skiff_testkit::wait_until("the orphan's end", on.patience(10), || {
        let zombies = on.docker.sh("exec box", "grep -l 'State:.*Z' /proc/[0-9]*/status").ok()?;
        let logs = on.docker.run("logs box").ok()?;
        (logs.out().contains("up") && zombies.out().is_empty()).then_some(())
    })?;
    on.docker.run("kill -s HUP box")?.ok()?;
    skiff_testkit::wait_until("the hangup", on.patience(10), || {
        on.docker.run("logs box").is_ok_and(|logs| logs.out().contains("hangup")).then_some(())
    })?;
    on.docker.run("stop box")?.ok()?;
    let state = on.docker.inspect("box", "{{.State.ExitCode}} {{.HostConfig.Init}} {{.Path}}")?;
    ensure!(state == "5 true sh", "state {state}");
    on.docker.run("logs box")?.ok()?.prints("up\nhangup\nbye\n")?;
    on.docker.args(&["info", "--format", "{{.InitBinary}}"])?.ok()?.prints("docker-init\n")?;
    Ok(())
}

fn an_init_ends_with_the_code_of_its_command(on: &Subject) -> anyhow::Result<()> {
    let line = "run --rm --init --user 1000 --read-only --cap-drop ALL busybox";
    on.docker.sh(line, "id -u; kill -9 $$")?.exits(137)?.prints("1000\n")?;
    on.docker.sh("run --rm --init busybox", "exit 9")?.exits(9)?;
    on.docker
        .run("run --rm --init busybox nosuchprogram")?
        .exits(127)?
        .complains_anywhere("exec nosuchprogram failed: No such file or directory")?;
    // Without a process namespace of its own there is nothing for an init to do.
    on.docker
        .run("run --rm --init --pid host busybox cat /proc/self/cmdline")?
        .ok()?
        .prints("cat\0/proc/self/cmdline\0")?;
    // The program itself is out of reach.
    on.docker
        .sh("run --rm --init busybox", "echo x > /sbin/docker-init")?
        .exits(1)?
        .complains_anywhere("Read-only")?;
    Ok(())
}

fn an_init_gives_its_command_the_terminal(on: &Subject) -> anyhow::Result<()> {
    let mut session = on.docker.terminal("run -it --init --name box busybox sh")?;
    session.expect("# ", on.patience(10))?;
    // Not before the command runs: until then the shell reads by its own rules.
    session.send("echo rea''dy; cat; echo cat ended $?\r")?;
    session.expect("\r\nready\r\n", on.patience(10))?;
    session.send("line\r")?;
    session.expect("line\r\nline\r\n", on.patience(10))?;
    session.send("\u{3}")?;
    session.expect("# ", on.patience(10))?;
    session.send("exit 8\r")?;
    let code = session.wait(on.patience(10))?;
    ensure!(code == 8, "exit code {code}\n{}", session.transcript());
    Ok(())
}
