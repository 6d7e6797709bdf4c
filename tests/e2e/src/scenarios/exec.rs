//! `docker exec`.

use anyhow::ensure;
use skiff_testkit::image::noise;

use crate::{Subject, scenarios};

scenarios![
    exec_gives_output_and_exit_code,
    exec_applies_user_workdir_and_environment,
    exec_takes_input,
    exec_on_a_terminal,
    exec_in_the_background_runs_on,
    exec_of_what_cannot_run_has_dockers_exit_codes,
    exec_shares_the_containers_world,
    shared_namespaces_need_a_running_and_willing_container,
    a_second_start_is_told_on_the_stream,
];

fn exec_gives_output_and_exit_code(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    on.docker.run("exec box echo inside")?.ok()?.prints("inside\n")?;
    let both = on.docker.sh("exec box", "echo out; echo err >&2; exit 4")?.exits(4)?.prints("out\n")?;
    ensure!(both.err().starts_with("err\n"), "stderr\n{both}");
    on.docker.sh("exec box", "kill -9 $$")?.exits(137)?;
    Ok(())
}

fn exec_applies_user_workdir_and_environment(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name box -e BASE=1 busybox sleep 1000")?.ok()?;
    let shown =
        on.docker.sh("exec -u app -w /tmp -e ADDED=2 box", "id -un; pwd; echo $BASE$ADDED; echo $HOME")?;
    shown.ok()?.prints("app\n/tmp\n12\n/home/app\n")?;
    on.docker.run("exec -u nosuch box id")?.exits(126)?.shows("unable to find user nosuch")?;
    Ok(())
}

fn exec_takes_input(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    let bytes = noise(1_000_000, 3);
    let echoed = on.docker.feed("exec -i box cat", bytes.clone())?.ok()?;
    ensure!(echoed.stdout == bytes, "{} bytes in, {} out", bytes.len(), echoed.stdout.len());
    on.docker.command("exec -i box").args(["sh", "-c", "cat > /tmp/file"]).stdin("stored\n").run()?.ok()?;
    on.docker.run("exec box cat /tmp/file")?.ok()?.prints("stored\n")?;
    Ok(())
}

fn exec_on_a_terminal(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    let mut session = on.docker.terminal("exec -it box sh")?;
    session.expect("# ", on.patience(10))?;
    session.send("tty; until [ \"$(stty size)\" = '24 80' ]; do sleep 0.05; done; echo size ok\r")?;
    session.expect("/dev/pts/", on.patience(10))?;
    session.expect("\r\nsize ok\r\n", on.patience(10))?;
    session.send("exit 8\r")?;
    let code = session.wait(on.patience(10))?;
    ensure!(code == 8, "exit code {code}\n{}", session.transcript());
    Ok(())
}

fn exec_in_the_background_runs_on(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    on.docker.sh("exec -d box", "sleep 0.3; echo done > /tmp/done")?.ok()?.prints("")?;
    skiff_testkit::wait_until("the background command", on.patience(10), || {
        on.docker.run("exec box cat /tmp/done").is_ok_and(|read| read.out() == "done\n").then_some(())
    })
}

fn exec_of_what_cannot_run_has_dockers_exit_codes(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    on.docker
        .run("exec box nosuchprogram")?
        .exits(127)?
        .complains_anywhere("executable file not found in $PATH")?;
    on.docker.run("exec box /etc/passwd")?.exits(126)?.complains_anywhere("permission denied")?;
    on.docker.run("kill box")?.ok()?;
    on.docker.run("wait box")?.ok()?;
    on.docker.run("exec box true")?.exits(1)?.complains("is not running")?;
    on.docker.run("exec nosuchbox true")?.exits(1)?.complains("No such container: nosuchbox")?;
    Ok(())
}

fn exec_shares_the_containers_world(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name box --hostname shared busybox sleep 1000")?.ok()?;
    let ip = on.docker.inspect("box", "{{.NetworkSettings.IPAddress}}")?;
    on.docker.run("exec box hostname")?.ok()?.prints("shared\n")?;
    on.docker.run("exec box ip -4 addr show eth0")?.ok()?.shows(&ip)?;
    on.docker.run("exec box ps")?.ok()?.shows("sleep 1000")?;
    on.docker.run("exec box grep CapEff /proc/self/status")?.ok()?.prints("CapEff:\t00000000a80425fb\n")?;
    // A command started in the container dies with it.
    let client = on.docker.start("exec box sleep 1000")?;
    skiff_testkit::wait_until("the second sleep", on.patience(10), || {
        on.docker.run("top box").is_ok_and(|top| top.out().matches("sleep 1000").count() == 2).then_some(())
    })?;
    on.docker.run("kill box")?.ok()?;
    client.finish(on.patience(10))?.exits(137)?;
    Ok(())
}

fn shared_namespaces_need_a_running_and_willing_container(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name donor busybox sleep 1000")?.ok()?;
    let id = on.docker.inspect("donor", "{{.Id}}")?;
    let line = "run -d --name guest --pid container:donor --network container:donor";
    on.docker.command(line).args(["busybox", "sleep", "999"]).run()?.ok()?;
    // By id: names may change.
    let modes = on.docker.inspect("guest", "{{.HostConfig.PidMode}} {{.HostConfig.NetworkMode}}")?;
    ensure!(modes == [format!("container:{id}").as_str(); 2].join(" "), "modes {modes}");
    on.docker.run("rename donor other")?.ok()?;
    on.docker.run("restart -t 0 guest")?.ok()?;
    on.docker.run("exec guest ps")?.ok()?.shows("sleep 1000")?.shows("sleep 999")?;
    on.docker.run("run -d --name private busybox sleep 1000")?.ok()?;
    on.docker
        .run("run --ipc container:private busybox true")?
        .exits(125)?
        .complains("non-shareable IPC (hint: use IpcMode:shareable for the donor container)")?;
    on.docker.run("rm -f guest")?.ok()?;
    on.docker.run("stop -t 0 other")?.ok()?;
    on.docker
        .run("run --network container:other busybox true")?
        .exits(125)?
        .complains(&format!("cannot join network of a non running container: {id}"))?;
    on.docker
        .run("run --ipc container:other busybox true")?
        .exits(125)?
        .complains(&format!("failed to join IPC namespace: container {id} is not running"))?;
    on.docker
        .run("run --pid container:nosuch busybox true")?
        .exits(125)?
        .complains("No such container: nosuch")?;
    Ok(())
}

/// Compose attaches to an exec, which starts it, and then starts it: that one has to succeed.
fn a_second_start_is_told_on_the_stream(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    let made = on.call("POST", "/containers/box/exec", r#"{"Cmd":["sleep","100"],"AttachStdout":true}"#)?;
    let made: serde_json::Value = serde_json::from_slice(&made.body)?;
    let id = made["Id"].as_str().unwrap_or_default();
    let start =
        |detach: bool| on.call("POST", &format!("/exec/{id}/start"), &format!("{{\"Detach\":{detach}}}"));
    ensure!(start(true)?.status == 200);
    let refused = start(true)?;
    ensure!(refused.status == 409, "{refused:?}");
    let told = start(false)?;
    let text = String::from_utf8_lossy(&told.body).into_owned();
    ensure!(
        told.status == 200 && text.ends_with(&format!("exec command {id} is already running\r\n")),
        "{told:?}"
    );
    Ok(())
}
