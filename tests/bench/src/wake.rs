//! Sleep and wake, and a start from the template, beside a boot of the same guest: the daemon runs, and the first call brings the
//! guest back.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::boot::qemu_of;
use crate::http::Api;
use crate::process::{Running, check, guest_image, program};
use crate::run::IMAGE;
use crate::sample::Sample;

const ROUNDS: usize = 5;

/// Prints the figures.
pub fn bench() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (state, socket) = (directory.path().join("state"), directory.path().join("docker.sock"));
    let mut daemon = Command::new(program("skiff")?);
    daemon.args(["daemon", "--backend", "qemu", "--state"]).arg(&state).arg("--socket").arg(&socket);
    daemon.env("SKIFF_GUEST_IMAGE", guest_image()?);
    let _daemon = Running(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let mut api = Api::wait(&socket, Duration::from_secs(120))?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let id = serve(&mut api, port)?;
    let call = |words: &[&str]| {
        check(Command::new(program("skiff")?).arg("--state").arg(&state).arg("machine").args(words))
    };
    let ping = || -> anyhow::Result<Duration> {
        let started = Instant::now();
        Api::connect(&socket)?.call("GET", "/_ping", None)?;
        Ok(started.elapsed())
    };

    let template = |wanted: bool| {
        std::fs::write(state.join("settings.json"), json!({ "machine": { "template": wanted } }).to_string())
    };
    let [mut cold, mut making, mut start, mut suspend, mut wake, mut byte]: [Sample; 6] = Default::default();
    let mut saved = 0;
    let mut kept = 0;
    let mut memory = 0;
    for _ in 0..ROUNDS {
        template(false)?;
        call(&["stop"])?;
        cold.push(ping()?);
        template(true)?;
        call(&["stop"])?;
        making.push(ping()?);
        kept = kept.max(kept_template(&state)?);
        call(&["stop"])?;
        start.push(ping()?);
        let mut api = Api::connect(&socket)?;
        api.call("POST", &format!("/containers/{id}/start"), None)?;
        drop(api);
        wait_for_byte(port)?;
        for answers in [true, false] {
            memory = memory.max(resident(&state)?);
            let started = Instant::now();
            call(&["suspend"])?;
            suspend.push(started.elapsed());
            ensure!(qemu_of(&state).is_err(), "a process of the guest is left");
            saved = saved.max(std::fs::metadata(state.join("machine/saved/ram"))?.blocks() * 512);
            if answers {
                wake.push(ping()?);
                wait_for_byte(port)?;
            } else {
                let started = Instant::now();
                first_byte(port)?;
                byte.push(started.elapsed());
            }
        }
    }
    println!("wake: the first answer of a guest that did not run, with a container that serves a port");
    println!("  boot → /_ping     {cold}");
    println!("  the same, making  {making}   (a template, once)");
    println!("  start → /_ping    {start}   (from the template)");
    println!("  suspend           {suspend}");
    println!("  wake → /_ping     {wake}");
    println!("  wake → first byte {byte}   (of the published port)");
    println!(
        "  ratio             {:8.2}     (start from the template to boot, goal ≤ 0.30)",
        start.ratio(&cold)
    );
    println!("  ratio             {:8.2}     (wake to boot, goal ≤ 0.30)", wake.ratio(&cold));
    println!("  memory            {:8} MiB of QEMU while it runs, none asleep", memory >> 20);
    println!("  disk              {:8} MiB asleep, {} MiB of the template", saved >> 20, kept >> 20);
    Ok(())
}

/// Bytes of the template, which is kept behind everybody's back.
fn kept_template(state: &Path) -> anyhow::Result<u64> {
    let directory = state.join("machine/template");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !directory.join("state.json").exists() {
        ensure!(Instant::now() < deadline, "no template is kept");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(std::fs::metadata(directory.join("ram"))?.blocks() * 512)
}

/// A container that gives back what it is sent.
fn serve(api: &mut Api, port: u16) -> anyhow::Result<String> {
    let body = json!({
        "Image": IMAGE, "Cmd": ["sh", "-c", "exec nc -ll -p 7 -e cat"], "StopSignal": "KILL", "ExposedPorts": { "7/tcp": {} },
        "HostConfig": { "PortBindings": { "7/tcp": [{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }] } },
    });
    let created = api.call("POST", "/containers/create", Some(body.to_string().as_bytes()))?;
    Ok(created["Id"].as_str().context("no container id")?.to_owned())
}

fn first_byte(port: u16) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"x")?;
    Ok(stream.read_exact(&mut [0])?)
}

fn wait_for_byte(port: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while first_byte(port).is_err() {
        ensure!(Instant::now() < deadline, "the container does not serve its port");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Bytes of memory that the guest's process holds.
fn resident(state: &Path) -> anyhow::Result<u64> {
    let state = state.to_str().context("a temporary path is text")?;
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(line) = std::fs::read(path.join("cmdline")) else { continue };
        if !line.starts_with(b"qemu-system") && !line.starts_with(b"/usr/bin/qemu-system") {
            continue;
        }
        if String::from_utf8_lossy(&line).contains(state) {
            let status = std::fs::read_to_string(path.join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
            return Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024);
        }
    }
    anyhow::bail!("found no QEMU for {state}")
}
