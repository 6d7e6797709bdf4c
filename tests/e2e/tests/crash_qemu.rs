//! `kill -9` of the daemon and of QEMU: the guest is found again or booted anew, and what was committed is there.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use skiff_e2e::{outside, probe};
use skiff_testkit::leftovers::{command_line, kill_hard};
use skiff_testkit::{Backend, DaemonUnderTest, DockerCli, Image, wait_until};

/// A guest may have to boot.
const BOOT: Duration = Duration::from_secs(120);

fn on_guest(test: impl FnOnce(&mut DaemonUnderTest, &DockerCli) -> anyhow::Result<()>) {
    let mut daemon = DaemonUnderTest::start(Backend::Qemu, &[]).unwrap_or_else(|error| panic!("{error:#}"));
    let result = (|| {
        let docker = daemon.docker()?;
        docker.feed("load", Image::busybox()?.archive(&["busybox:latest"]))?.ok()?;
        test(&mut daemon, &docker)
    })();
    if let Err(error) = result {
        panic!("{error:#}\n{}", daemon.log_tail());
    }
}

fn dead(pid: i32) -> bool {
    command_line(pid).is_empty()
}

#[test]
fn a_killed_daemon_finds_its_guest_again_or_boots_it_cleanly() {
    on_guest(|daemon, docker| {
        docker.feed("load", probe::image()?.archive(&["probe"]))?.ok()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let host = |server: SocketAddr| format!("host.docker.internal:{}", server.port());
        let flood = host(outside::serve(Ipv4Addr::LOCALHOST, outside::flood(Arc::clone(&seen)))?);
        docker.run(&format!("run -d --name out probe {} stuck {flood}", probe::PROBE))?.ok()?;
        wait_until("the connection", Duration::from_secs(60), || {
            docker.run("logs out").ok()?.out().contains("connected").then_some(())
        })?;
        docker
            .sh("run -d --name counter busybox", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done")?
            .ok()?;
        docker.sh("run --name done busybox", "exit 3")?.exits(3)?;
        let qemu = daemon.qemu_pid()?;
        daemon.kill_daemon()?;
        // A connection out ends with the daemon that made it.
        wait_until("the server's error", Duration::from_secs(30), || {
            seen.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
        })?;
        daemon.start_again()?;
        let repeat = host(outside::serve(Ipv4Addr::LOCALHOST, outside::repeat)?);
        docker
            .run(&format!("run --rm probe {} talk {repeat} again", probe::PROBE))?
            .ok()?
            .prints("again\n")?;
        let pids = daemon.qemu_pids();
        ensure!(pids.len() == 1, "QEMU processes {pids:?}");
        let status = docker.inspect("counter", "{{.State.Status}}")?;
        let expected = if pids[0] == qemu { "running" } else { "exited" };
        ensure!(status == expected, "the container is {status} in guest {pids:?}, which was {qemu}");
        ensure!(docker.inspect("done", "{{.State.ExitCode}}")? == "3");
        let logs = docker.run("logs counter")?.ok()?.out();
        for (number, line) in (1..).zip(logs.lines()) {
            ensure!(line == number.to_string(), "expected {number}, found {line:?}");
        }
        docker.run("run --rm busybox echo works")?.ok()?.prints("works\n")?;
        Ok(())
    });
}

#[test]
fn a_killed_guest_is_booted_by_the_next_call_and_keeps_what_was_committed() {
    on_guest(|daemon, docker| {
        docker.run("run -d --name sleeper busybox sleep 1000")?.ok()?;
        docker.sh("run --name done busybox", "echo output; exit 3")?.exits(3)?;
        let qemu = daemon.qemu_pid()?;
        kill_hard(qemu);
        wait_until("QEMU to be gone", Duration::from_secs(10), || dead(qemu).then_some(()))?;
        docker.command("ps -q").timeout(BOOT).run()?.ok()?.prints("")?;
        ensure!(daemon.qemu_pid()? != qemu);
        let states =
            (docker.inspect("sleeper", "{{.State.Status}}")?, docker.inspect("done", "{{.State.ExitCode}}")?);
        ensure!(states == ("exited".into(), "3".into()), "states {states:?}");
        docker.run("logs done")?.ok()?.prints("output\n")?;
        docker.run("start sleeper")?.ok()?;
        docker.run("rm -f sleeper done")?.ok()?;
        Ok(())
    });
}

#[test]
fn stale_sockets_and_locks_do_not_stop_a_new_daemon() {
    on_guest(|daemon, docker| {
        let qemu = daemon.qemu_pid()?;
        daemon.kill_daemon()?;
        kill_hard(qemu);
        wait_until("QEMU to be gone", Duration::from_secs(10), || dead(qemu).then_some(()))?;
        ensure!(daemon.socket().exists(), "a killed daemon leaves its socket");
        daemon.start_again()?;
        docker.run("run --rm busybox echo works")?.ok()?.prints("works\n")?;
        daemon.stop()?;
        ensure!(daemon.qemu_pids().is_empty(), "QEMU outlives a stopped daemon");
        ensure!(!daemon.socket().exists(), "a stopped daemon leaves its socket");
        Ok(())
    });
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    on_guest(|daemon, docker| {
        let skiff = skiff_testkit::binaries::skiff()?;
        let program = skiff_testkit::Program::new(skiff)
            .args([
                "daemon".into(),
                "--backend".into(),
                "qemu".into(),
                "--state".into(),
                daemon.state().into_os_string(),
            ])
            .args(["--socket".into(), daemon.socket().into_os_string()])
            .timeout(Duration::from_secs(20));
        let refused = program.run()?;
        ensure!(
            refused.code != 0 && refused.err().contains("running"),
            "a second daemon should name the first\n{refused}"
        );
        docker.run("run --rm busybox echo works")?.ok()?.prints("works\n")?;
        ensure!(daemon.qemu_pids().len() == 1);
        Ok(())
    });
}

#[test]
fn a_missing_qemu_is_named_with_the_way_out() {
    let daemon = DaemonUnderTest::spawn_with(Backend::Qemu, &[("PATH", "/nonexistent")]).unwrap();
    // A daemon that was told to use QEMU says at once what is missing, instead of failing each call.
    let named = || daemon.log_tail().contains("qemu-system-x86_64").then_some(());
    wait_until("the missing program's name", Duration::from_secs(20), named).unwrap();
    assert!(daemon.log_tail().contains("apt install"), "{}", daemon.log_tail());
}

#[test]
fn published_ports_go_with_a_killed_guest_and_a_killed_daemon() {
    const PORTS: u16 = 100;
    on_guest(|daemon, docker| {
        let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        let first = (30_000..40_000)
            .step_by(usize::from(PORTS))
            .find(|first| (*first..first + PORTS).all(is_free))
            .ok_or_else(|| anyhow::anyhow!("no free range of ports"))?;
        let last = first + PORTS - 1;
        docker
            .run(&format!("run -d --name many -p 127.0.0.1:{first}-{last}:1000-1099 busybox sleep 1000"))?
            .ok()?;
        ensure!((first..=last).all(|port| !is_free(port)), "a port is not bound");
        let qemu = daemon.qemu_pid()?;
        kill_hard(qemu);
        wait_until("the ports to go with the guest", BOOT, || (first..=last).all(is_free).then_some(()))?;
        docker.command("start many").timeout(BOOT).run()?.ok()?;
        ensure!((first..=last).all(|port| !is_free(port)), "a port is not bound again");
        daemon.kill_daemon()?;
        wait_until("the ports to go with the daemon", BOOT, || (first..=last).all(is_free).then_some(()))?;
        daemon.start_again()?;
        let runs = docker.inspect("many", "{{.State.Running}}")? == "true";
        wait_until("the ports of a guest that lives to come back", BOOT, || {
            (first..=last).all(|port| is_free(port) != runs).then_some(())
        })?;
        Ok(())
    });
}
