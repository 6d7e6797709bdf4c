//! `kill -9` of the native engine: containers live on, nothing committed is lost, nothing half-made stays.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use skiff_e2e::Chance;
use skiff_e2e::crash::{SOON, expect_clean, on_engine};
use skiff_testkit::leftovers::kill_hard;
use skiff_testkit::{DockerCli, Image, Registry, free_port, http, wait_until};

#[test]
fn a_counter_outlives_its_engine_and_no_number_is_lost() {
    on_engine(|engine, docker| {
        const LAST: u32 = 300_000;
        let mut chance = Chance::announced();
        let script = format!("i=0; while [ $i -lt {LAST} ]; do i=$((i+1)); echo $i; done; exit 7");
        docker.sh("run -d --name counter busybox", &script)?.ok()?;
        let mut kills_while_counting = 0;
        for _ in 0..4 {
            thread::sleep(chance.below(Duration::from_millis(400)));
            engine.kill_engine()?;
            if docker.inspect("counter", "{{.State.Running}}")? == "true" {
                kills_while_counting += 1;
            }
        }
        ensure!(kills_while_counting > 0, "the container did not outlive a single kill");
        docker.run("wait counter")?.ok()?.prints("7\n")?;
        let logs = docker.run("logs counter")?.ok()?.out();
        let mut expected = 1;
        for line in logs.lines() {
            ensure!(line == expected.to_string(), "expected {expected}, found {line:?}");
            expected += 1;
        }
        ensure!(expected == LAST + 1, "the log ends before {expected} of {LAST}");
        expect_clean(engine, docker)
    });
}

#[test]
fn an_interactive_shell_outlives_its_engine() {
    on_engine(|engine, docker| {
        let mut client = docker.terminal("run -it --name shell busybox sh")?;
        client.expect("# ", SOON)?;
        client.send("echo be''fore\r")?;
        client.expect("before", SOON)?;
        let pid = docker.inspect("shell", "{{.State.Pid}}")?;
        engine.kill_engine()?;
        ensure!(docker.inspect("shell", "{{.State.Running}} {{.State.Pid}}")? == format!("true {pid}"));
        client.wait(SOON).context("the client of the dead engine should end")?;

        let waiter = docker.start("wait shell")?;
        let mut second = docker.terminal("attach shell")?;
        second.send("echo af''ter; stty size\r")?;
        second.expect("after", SOON)?;
        second.send("exit 9\r")?;
        let code = second.wait(SOON)?;
        ensure!(code == 9, "attach ended with {code}\n{}", second.transcript());
        waiter.finish(SOON)?.ok()?.prints("9\n")?;
        docker.run("logs shell")?.ok()?.shows("before")?.shows("after")?;
        expect_clean(engine, docker)
    });
}

#[test]
fn an_exit_while_the_engine_is_dead_is_told_afterwards() {
    on_engine(|engine, docker| {
        let containers = [("six", 6), ("seven", 7), ("eight", 8)];
        for (name, code) in containers {
            docker
                .sh(
                    &format!("run -d --name {name} busybox"),
                    &format!("echo start; sleep 1; echo end; exit {code}"),
                )?
                .ok()?;
        }
        // The supervisor would start it again at once: kill it until the containers must be gone.
        for _ in 0..12 {
            kill_hard(engine.engine_pid()?);
            thread::sleep(Duration::from_millis(120));
        }
        engine.wait_ready(SOON)?;
        for (name, code) in containers {
            docker.run(&format!("wait {name}"))?.ok()?.prints(&format!("{code}\n"))?;
            docker.run(&format!("logs {name}"))?.ok()?.prints("start\nend\n")?;
            let state = docker.inspect(name, "{{.State.Status}} {{.State.ExitCode}}")?;
            ensure!(state == format!("exited {code}"), "{name} is {state}");
        }
        docker.run("start -a six")?.exits(6)?.prints("start\nend\n")?;
        expect_clean(engine, docker)
    });
}

#[test]
fn published_ports_and_exec_work_after_the_engine_was_killed() {
    on_engine(|engine, docker| {
        let port = free_port()?;
        let script = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www";
        docker.sh(&format!("run -d --name web -p 127.0.0.1:{port}:80 busybox"), script)?.ok()?;
        let fetch =
            || wait_until("the page", SOON, || http::get(([127, 0, 0, 1], port).into(), "/index.html").ok());
        ensure!(fetch()?.text() == "served\n");
        engine.kill_engine()?;
        ensure!(fetch()?.text() == "served\n");
        docker.run("exec web echo still")?.ok()?.prints("still\n")?;
        docker.run("stop -t 0 web")?.ok()?;
        expect_clean(engine, docker)
    });
}

#[test]
fn kills_at_any_point_of_a_pull_leave_a_whole_image_or_none() {
    on_engine(|engine, docker| {
        let mut chance = Chance::announced();
        let registry = Registry::start()?;
        for round in 0..8 {
            let image = Image::big(3, 2_000_000 + round)?;
            let name = format!("e2e/round{round}");
            registry.push(&image, &name, "1")?;
            let reference = registry.reference(&format!("{name}:1"));
            let client = docker.start(&format!("pull {reference}"))?;
            thread::sleep(chance.below(Duration::from_millis(600)));
            engine.kill_engine()?;
            drop(client);
            let listed = docker.run("images --format {{.Repository}}:{{.Tag}}")?.ok()?.out();
            ensure!(!listed.contains("<none>"), "round {round}: images shows {listed}");
            if listed.lines().any(|line| line == reference) {
                sizes_are_right(docker, &reference, round)?;
            } else {
                docker.run(&format!("image inspect {reference}"))?.exits(1)?;
            }
            docker.run(&format!("pull {reference}"))?.ok()?;
            sizes_are_right(docker, &reference, round)?;
            docker.run(&format!("rmi {reference}"))?.ok()?;
        }
        expect_clean(engine, docker)
    });
}

fn sizes_are_right(docker: &DockerCli, reference: &str, round: usize) -> anyhow::Result<()> {
    let total = 3 * (2_000_000 + round);
    docker
        .run(&format!("run --rm {reference} wc -c /big0 /big1 /big2"))?
        .ok()?
        .shows(&format!("{total} total"))?;
    Ok(())
}

#[test]
fn kills_at_any_point_of_a_run_leave_nothing_half_made() {
    on_engine(|engine, docker| {
        let mut chance = Chance::announced();
        for round in 0..25 {
            let port = free_port()?;
            let line = match round % 3 {
                0 => format!("run --rm --name c{round} busybox echo x"),
                1 => format!("run -d --name c{round} -p 127.0.0.1:{port}:80 busybox sleep 1000"),
                _ => format!("run --name c{round} busybox sh -c true"),
            };
            let client = docker.start(&line)?;
            thread::sleep(chance.below(Duration::from_millis(120)));
            engine.kill_engine()?;
            drop(client);
            // Whatever is listed can be looked at, and is one of the states that exist.
            for id in docker.run("ps -aq --no-trunc")?.ok()?.out().split_whitespace() {
                let state = docker.inspect(id, "{{.State.Status}} {{.State.Pid}}")?;
                let whole = ["created 0", "exited 0"].contains(&state.as_str())
                    || state.strip_prefix("running ").is_some_and(|pid| pid != "0");
                ensure!(whole, "round {round}: {id} is {state:?}");
            }
            expect_clean(engine, docker).with_context(|| format!("round {round}: {line}"))?;
            docker.run("run --rm busybox echo works")?.ok()?.prints("works\n")?;
        }
        Ok(())
    });
}

#[test]
fn sigterm_leaves_nothing() {
    on_engine(|engine, docker| {
        let port = free_port()?;
        docker.run(&format!("run -d --name one -p 127.0.0.1:{port}:80 busybox sleep 1000"))?.ok()?;
        docker.sh("run -d --name two busybox", "trap 'exit 4' TERM; while :; do sleep 0.1; done")?.ok()?;
        engine.stop()?;
        ensure!(!engine.socket().exists(), "the socket is left");
        engine.expect_no_leftovers(SOON)?;
        engine.start_again()?;
        docker.run("ps -q")?.ok()?.prints("")?;
        let codes =
            (docker.inspect("one", "{{.State.ExitCode}}")?, docker.inspect("two", "{{.State.ExitCode}}")?);
        ensure!(codes == ("137".into(), "4".into()), "exit codes {codes:?}");
        docker.run("start one")?.ok()?;
        expect_clean(engine, docker)
    });
}

#[test]
fn a_power_cut_leaves_containers_stopped_and_startable() {
    on_engine(|engine, docker| {
        let port = free_port()?;
        docker
            .sh(&format!("run -d --name one -p 127.0.0.1:{port}:80 busybox"), "echo kept; exec sleep 1000")?
            .ok()?;
        docker.sh("run --name done busybox", "exit 3")?.exits(3)?;
        wait_until("the output", SOON, || {
            docker.run("logs one").is_ok_and(|logs| logs.out() == "kept\n").then_some(())
        })?;
        engine.kill_all();
        engine.start_again()?;
        docker.run("ps -q")?.ok()?.prints("")?;
        let states =
            (docker.inspect("one", "{{.State.Status}}")?, docker.inspect("done", "{{.State.ExitCode}}")?);
        ensure!(states == ("exited".into(), "3".into()), "states {states:?}");
        engine.expect_no_leftovers(SOON)?;
        docker.run("logs one")?.ok()?.prints("kept\n")?;
        docker.run("start one")?.ok()?;
        expect_clean(engine, docker)
    });
}

#[test]
fn health_and_restarts_go_on_after_the_engine_was_killed() {
    on_engine(|engine, docker| {
        let health = ["--health-cmd", "test -e /fine"];
        let line = "run -d --name checked --health-interval 100ms --health-retries 1";
        docker.command(line).args(health).args(["busybox", "sleep", "1000"]).run()?.ok()?;
        let becomes = |wanted: &str| {
            wait_until(&format!("a container that is {wanted}"), SOON, || {
                (docker.inspect("checked", "{{.State.Health.Status}}").ok()? == wanted).then_some(())
            })
        };
        becomes("unhealthy")?;
        docker.sh("run -d --name again --restart always busybox", "sleep 1; exit 2")?.ok()?;
        docker.run("run -d --name often --restart always busybox false")?.ok()?;
        engine.kill_engine()?;
        ensure!(
            docker.inspect("checked", "{{.State.Health.Status}}")? == "unhealthy",
            "health was forgotten"
        );
        docker.run("exec checked touch /fine")?.ok()?;
        becomes("healthy")?;
        for name in ["again", "often"] {
            wait_until(&format!("a restart of {name}"), SOON, || {
                let count: u32 = docker.inspect(name, "{{.RestartCount}}").ok()?.parse().ok()?;
                (count > 0).then_some(())
            })?;
        }
        docker.run("stop -t 0 again often")?.ok()?;
        expect_clean(engine, docker)
    });
}

#[test]
fn restart_policies_apply_after_a_power_cut() {
    on_engine(|engine, docker| {
        for (name, policy) in [
            ("always", "always"),
            ("stopped-always", "always"),
            ("unless", "unless-stopped"),
            ("stopped-unless", "unless-stopped"),
            ("failure", "on-failure"),
            ("never", "no"),
        ] {
            docker.run(&format!("run -d --name {name} --restart {policy} busybox sleep 1000"))?.ok()?;
        }
        docker.run("run -d --rm --name gone busybox sleep 1000")?.ok()?;
        docker.run("stop -t 0 stopped-always stopped-unless")?.ok()?;
        engine.kill_all();
        engine.start_again()?;
        for name in ["always", "stopped-always", "unless", "failure"] {
            docker.wait_for_status(name, "running", SOON).with_context(|| name.to_owned())?;
        }
        for name in ["stopped-unless", "never"] {
            ensure!(docker.inspect(name, "{{.State.Status}}")? == "exited", "{name} runs");
        }
        wait_until("the removal of gone", SOON, || {
            docker.run("inspect gone").is_ok_and(|inspect| inspect.code == 1).then_some(())
        })?;
        // An orderly end is no stop of the user's either.
        engine.stop()?;
        engine.start_again()?;
        for name in ["always", "unless"] {
            docker.wait_for_status(name, "running", SOON).with_context(|| name.to_owned())?;
        }
        ensure!(docker.inspect("stopped-unless", "{{.State.Status}}")? == "exited");
        expect_clean(engine, docker)
    });
}

#[test]
fn a_killed_supervisor_can_be_started_again() {
    on_engine(|engine, docker| {
        docker.run("run -d --name one busybox sleep 1000")?.ok()?;
        kill_hard(engine.supervisor_pid()?);
        thread::sleep(Duration::from_millis(500));
        engine.start_again()?;
        docker.run("run --rm busybox echo works")?.ok()?.prints("works\n")?;
        expect_clean(engine, docker)
    });
}

#[test]
fn a_second_engine_on_the_same_root_is_refused_and_the_first_goes_on() {
    on_engine(|engine, docker| {
        let agent = skiff_testkit::binaries::agent()?;
        let second = engine.root().with_extension("second.sock");
        let program = skiff_testkit::Program::new(agent).args([
            "serve".into(),
            "--root".into(),
            engine.root().into_os_string(),
        ]);
        let refused = program.args(["--socket".into(), second.into_os_string()]).timeout(SOON).run()?;
        ensure!(refused.code != 0, "a second engine ran\n{refused}");
        refused.complains(&engine.root().display().to_string())?.complains("in use")?;
        docker.run("run --rm busybox true")?.ok()?;
        Ok(())
    });
}
