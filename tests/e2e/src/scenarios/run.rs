//! `docker run` without a terminal: output, input, exit codes, isolation.

use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use skiff_testkit::image::{Compression, Layer, digest, noise};
use skiff_testkit::{Finished, Image};

use crate::{Subject, scenarios};

scenarios![
    output_and_exit_codes_reach_the_caller,
    missing_and_unrunnable_commands_have_dockers_exit_codes,
    a_signal_gives_128_plus_its_number,
    a_real_time_signal_arrives_by_kill_and_by_stop,
    input_is_piped_in,
    binary_input_and_output_stay_clean,
    big_output_arrives_whole,
    environment_user_workdir_and_entrypoint_are_applied,
    a_container_is_isolated_as_docker_does_it,
    a_read_only_root_file_system_refuses_writes,
    bytes_written_are_gone_with_the_container,
    many_runs_in_parallel_all_succeed,
    a_stopped_client_loses_no_output,
    a_short_run_is_there_for_who_asks_after_its_start,
];

fn output_and_exit_codes_reach_the_caller(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    docker.run("run --rm busybox echo hello")?.ok()?.prints("hello\n")?;
    docker.sh("run --rm busybox", "exit 3")?.exits(3)?;
    let both = docker.sh("run --rm busybox", "echo out; echo err >&2; exit 4")?.exits(4)?.prints("out\n")?;
    ensure!(both.err() == "err\n", "stderr is {:?}", both.err());
    docker.run("run --rm busybox false")?.exits(1)?;
    docker.run("ps -aq")?.ok()?.prints("")?;
    Ok(())
}

fn missing_and_unrunnable_commands_have_dockers_exit_codes(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    let missing = docker.run("run --rm busybox nosuchprogram")?.exits(127)?;
    missing.complains("\"nosuchprogram\": executable file not found in $PATH")?;
    docker.run("run --rm busybox /no/such/file")?.exits(127)?.complains("no such file or directory")?;
    docker.run("run --rm busybox /etc/passwd")?.exits(126)?.complains("permission denied")?;
    docker.run("run --name kept busybox nosuchprogram")?.exits(127)?;
    let status = docker.inspect("kept", "{{.State.Status}} {{.State.ExitCode}}")?;
    ensure!(status == "created 127", "a container that never started is {status:?}");
    docker.run("ps -q")?.ok()?.prints("")?;
    Ok(())
}

fn a_signal_gives_128_plus_its_number(on: &Subject) -> anyhow::Result<()> {
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("9", 137)] {
        // The first process of a PID namespace only gets the signals that it handles, but KILL always.
        let script = "trap 'exit 143' TERM; echo up; while :; do sleep 0.1; done";
        let client =
            on.docker.command("run --rm --name victim busybox").args(["sh", "-c", script]).start()?;
        client.wait_for("up", on.patience(10))?;
        on.docker.run(&format!("kill -s {signal} victim"))?.ok()?.prints("victim\n")?;
        client.finish(on.patience(10))?.exits(code)?;
        gone(on, "victim")?;
    }
    Ok(())
}

fn a_real_time_signal_arrives_by_kill_and_by_stop(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    let script = "trap 'exit 5' 37; echo up; while :; do sleep 0.1; done";
    for end in ["kill -s SIGRTMIN+3 victim", "kill -s 37 victim", "stop -t 60 victim"] {
        docker.sh("run -d --name victim --stop-signal RTMIN+3 busybox", script)?.ok()?;
        skiff_testkit::wait_until("the trap to be set", on.patience(10), || {
            docker.run("logs victim").is_ok_and(|logs| logs.out() == "up\n").then_some(())
        })?;
        docker.run(end)?.ok()?;
        docker.run("wait victim")?.ok()?.prints("5\n")?;
        docker.run("rm victim")?.ok()?;
    }
    Ok(())
}

fn gone(on: &Subject, name: &str) -> anyhow::Result<()> {
    skiff_testkit::wait_until(&format!("{name} to be removed"), on.patience(10), || {
        on.docker.run("ps -a --format {{.Names}}").is_ok_and(|list| !list.out().contains(name)).then_some(())
    })
}

fn input_is_piped_in(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    docker.feed("run --rm -i busybox cat", "x\n")?.ok()?.prints("x\n")?;
    docker.feed("run --rm -i busybox wc -l", "1\n2\n3\n")?.ok()?.prints("3\n")?;
    // A command that doesn't read its input must not hang the client.
    docker.feed("run --rm -i busybox true", vec![b'x'; 1_000_000])?.ok()?;
    // Without -i the container's input is empty.
    docker.feed("run --rm busybox cat", "not for you")?.ok()?.prints("")?;
    Ok(())
}

fn binary_input_and_output_stay_clean(on: &Subject) -> anyhow::Result<()> {
    let mut bytes: Vec<u8> = (0..=255).cycle().take(64 * 1024).collect();
    bytes.extend(noise(1_000_000, 7));
    let echoed = on.docker.feed("run --rm -i busybox cat", bytes.clone())?.ok()?;
    ensure!(
        echoed.stdout == bytes,
        "{} bytes went in, {} other ones came out",
        bytes.len(),
        echoed.stdout.len()
    );
    on.load(
        &Image::busybox()?.with_layer(Layer::new().file("noise", 0o644, &bytes), Compression::Gzip),
        "e2e/noise:1",
    )?;
    let read = on.docker.run("run --rm e2e/noise:1 cat /noise")?.ok()?;
    ensure!(
        read.stdout == bytes,
        "the file's {} bytes came out as {} other ones",
        bytes.len(),
        read.stdout.len()
    );
    on.docker.run("rmi e2e/noise:1")?.ok()?;
    Ok(())
}

fn big_output_arrives_whole(on: &Subject) -> anyhow::Result<()> {
    const SIZE: usize = 10_000_000;
    let expected: Vec<u8> = b"0123456789abcdef\n".iter().copied().cycle().take(SIZE).collect();
    let script = format!("yes 0123456789abcdef | head -c {SIZE}");
    let command =
        on.docker.command("run --name loud busybox").args(["sh", "-c", &script]).timeout(on.patience(60));
    same(&expected, &command.run()?.ok()?, "run")?;
    let logs = on.docker.command("logs loud").timeout(on.patience(60)).run()?.ok()?;
    same(&expected, &logs, "logs")
}

fn same(expected: &[u8], finished: &Finished, what: &str) -> anyhow::Result<()> {
    if digest(&finished.stdout) != digest(expected) {
        let at = expected.iter().zip(&finished.stdout).position(|(one, other)| one != other);
        bail!("{what}: {} of {} bytes, first difference at {at:?}", finished.stdout.len(), expected.len());
    }
    Ok(())
}

fn environment_user_workdir_and_entrypoint_are_applied(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    let script = "id -u; id -g; pwd; echo $A-$B; echo $HOME; echo $PATH; hostname";
    let shown = docker
        .sh("run --rm -u app -w /tmp/made/here -e A=1 -e B=two --hostname box busybox", script)?
        .ok()?;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    shown.prints(&format!("1000\n1000\n/tmp/made/here\n1-two\n/home/app\n{path}\nbox\n"))?;
    docker.run("run --rm -u 12345:54321 busybox id -u")?.ok()?.prints("12345\n")?;
    docker.run("run --rm --entrypoint echo busybox from entrypoint")?.ok()?.prints("from entrypoint\n")?;
    let image = Image::busybox()?
        .with_config("Entrypoint", serde_json::json!(["echo", "entry"]))
        .with_config("Cmd", serde_json::json!(["default"]))
        .with_config("WorkingDir", serde_json::json!("/var"))
        .with_config("User", serde_json::json!("app"));
    on.load(&image, "e2e/entry:1")?;
    docker.run("run --rm e2e/entry:1")?.ok()?.prints("entry default\n")?;
    docker.run("run --rm e2e/entry:1 other words")?.ok()?.prints("entry other words\n")?;
    docker.run("run --rm --entrypoint pwd e2e/entry:1")?.ok()?.prints("/var\n")?;
    docker.run("rmi e2e/entry:1")?.ok()?;
    Ok(())
}

fn a_container_is_isolated_as_docker_does_it(on: &Subject) -> anyhow::Result<()> {
    let script = "echo $$; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; ls /sys/class/net; \
                  ls /proc | grep -cE '^[0-9]+$'; wc -c < /proc/kcore; mount | grep -c ' /proc/sys .*ro'; hostname";
    let shown = on.docker.sh("run --name box busybox", script)?.ok()?;
    let text = shown.out();
    let lines: Vec<_> = text.lines().collect();
    let id = on.docker.inspect("box", "{{.Id}}")?;
    for (index, expected) in [(0, "1"), (1, "CapEff:\t00000000a80425fb"), (2, "Seccomp:\t2"), (3, "eth0")] {
        ensure!(lines.get(index) == Some(&expected), "line {index} should be {expected:?}\n{shown}");
    }
    ensure!(lines.last() == Some(&&id[..12]), "the host name should be {}\n{shown}", &id[..12]);
    // Mounting needs a capability that is not given, and a new user namespace is refused by the seccomp profile.
    let refused = on.docker.sh("run --rm busybox", "mount -t tmpfs none /tmp; unshare -U true; echo $?")?;
    ensure!(!refused.out().starts_with('0'), "unshare -U should fail\n{refused}");
    for file in ["/proc/sysrq-trigger", "/proc/sys/kernel/hostname"] {
        let written = on.docker.sh("run --rm busybox", &format!("echo x > {file}"))?;
        ensure!(written.code != 0, "{file} should be read-only\n{written}");
    }
    Ok(())
}

fn a_read_only_root_file_system_refuses_writes(on: &Subject) -> anyhow::Result<()> {
    on.docker.sh("run --rm --read-only busybox", "touch /x")?.exits(1)?.complains("Read-only file system")?;
    Ok(())
}

fn bytes_written_are_gone_with_the_container(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    docker.sh("run --name writer busybox", "echo kept > /root/file; rm /etc/group")?.ok()?;
    docker.run("run --rm busybox ls /root /etc/group")?.ok()?;
    docker.run("start writer")?.ok()?;
    docker.run("wait writer")?.ok()?;
    docker.run("rm writer")?.ok()?;
    docker.run("run --rm busybox cat /root/file")?.exits(1)?.complains("No such file")?;
    Ok(())
}

fn many_runs_in_parallel_all_succeed(on: &Subject) -> anyhow::Result<()> {
    let failures: Vec<_> = thread::scope(|scope| {
        let run = |number: u32| {
            scope.spawn(move || {
                let command =
                    on.docker.command(&format!("run --rm busybox echo {number}")).timeout(on.patience(60));
                command.run()?.ok()?.prints(&format!("{number}\n"))
            })
        };
        let threads: Vec<_> = (0..20).map(run).collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().expect("the thread returns errors").err())
            .collect()
    });
    if let Some(first) = failures.first() {
        bail!("{} of 20 failed, the first:\n{first:#}", failures.len());
    }
    on.docker.run("ps -aq")?.ok()?.prints("")?;
    Ok(())
}

fn a_stopped_client_loses_no_output(on: &Subject) -> anyhow::Result<()> {
    const LINES: u32 = 20_000;
    let script = format!("seq {LINES}");
    let client = on.docker.command("run --name patient busybox").args(["sh", "-c", &script]).start()?;
    client.signal(rustix::process::Signal::STOP)?;
    thread::sleep(Duration::from_millis(300));
    client.signal(rustix::process::Signal::CONT)?;
    let finished = client.finish(on.patience(30))?.ok()?;
    let last = finished.out().lines().last().map(str::to_owned).context("no output")?;
    ensure!(
        finished.out().lines().count() == LINES as usize && last == LINES.to_string(),
        "ends with {last}"
    );
    Ok(())
}

/// Clients of the API start first and wait then, and dockerd takes long enough that they always find the container.
fn a_short_run_is_there_for_who_asks_after_its_start(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    let since = on.now()?;
    let brief = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"AutoRemove":true}}"#;
    ensure!(on.call("POST", "/containers/create?name=brief", brief)?.status == 201);
    ensure!(on.call("POST", "/containers/brief/start", "")?.status == 204);
    // The docker command waits for the removal from before the start, and is not kept.
    docker.run("run --rm --name awaited busybox sh -c true")?.ok()?;
    let events =
        format!("events --since {since} --filter type=container --filter event=start --filter event=destroy");
    let events =
        docker.command(&events).args(["--format", "{{.TimeNano}} {{.Actor.Attributes.name}} {{.Action}}"]);
    let events = events.start()?;
    events.wait_for("brief destroy\n", on.patience(10))?;
    events.wait_for("awaited destroy\n", on.patience(10))?;
    let lines = String::from_utf8_lossy(&events.stdout()).into_owned();
    let life = |name: &str| -> anyhow::Result<Duration> {
        let at = |action: &str| {
            let line = lines.lines().find_map(|line| line.strip_suffix(&format!(" {name} {action}")));
            line.and_then(|nanoseconds| nanoseconds.parse().ok())
                .with_context(|| format!("no {action} in {lines:?}"))
        };
        let (start, destroy): (u64, u64) = (at("start")?, at("destroy")?);
        Ok(Duration::from_nanos(destroy - start))
    };
    let (brief, awaited) = (life("brief")?, life("awaited")?);
    ensure!(brief >= Duration::from_millis(450), "a short run was gone after {brief:?}");
    ensure!(awaited < brief, "one that was waited for stayed {awaited:?}, the other {brief:?}");
    Ok(())
}
