//! Published ports of a native engine: what is left of them after a `kill -9`, and whose address containers see.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use skiff_testkit::{DockerCli, Image, NativeEngine, free_port, http, wait_until};

const PORTS: u16 = 100;
const PATIENCE: Duration = Duration::from_secs(20);
const SERVER: &str = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -v -p 80 -h /www";

fn on_engine(test: impl FnOnce(&mut NativeEngine, &DockerCli) -> anyhow::Result<()>) {
    let mut engine = NativeEngine::start().unwrap_or_else(|error| panic!("{error:#}"));
    let result = (|| {
        let docker = engine.docker()?;
        docker.feed("load", Image::busybox()?.archive(&["busybox:latest"]))?.ok()?;
        test(&mut engine, &docker)
    })();
    if let Err(error) = result {
        panic!("{error:#}\n{}", engine.log_tail());
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn answers(port: u16) -> anyhow::Result<()> {
    wait_until("the web server", PATIENCE, || {
        http::get(local(port), "/index.html").ok().filter(|answer| answer.text() == "hello\n")
    })
    .with_context(|| format!("port {port}"))?;
    Ok(())
}

#[test]
fn ports_outlive_a_killed_engine_and_end_with_a_killed_machine() {
    on_engine(|engine, docker| {
        let first = (30_000..40_000)
            .step_by(usize::from(PORTS))
            .find(|first| (*first..first + PORTS).all(|port| TcpListener::bind(local(port)).is_ok()))
            .context("no free range of ports")?;
        let last = first + PORTS - 1;
        docker
            .sh(
                &format!("run -d --name web -p {first}:80 -p {}-{last}:1001-1099 busybox", first + 1),
                SERVER,
            )?
            .ok()?;
        answers(first)?;
        engine.kill_engine()?;
        answers(first)?;
        wait_until("every port to be bound again", PATIENCE, || {
            (first..=last).all(|port| TcpListener::bind(local(port)).is_err()).then_some(())
        })?;
        docker.run("port web 80")?.ok()?.shows(&format!("0.0.0.0:{first}"))?;
        engine.kill_all();
        for port in first..=last {
            wait_until("the ports to be free", PATIENCE, || {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok()
            })
            .with_context(|| format!("port {port}"))?;
        }
        let tables = engine.leftovers().tables;
        ensure!(tables.iter().all(|table| !table.ends_with("_ports")), "{tables:?} are left");
        Ok(())
    });
}

/// Another machine: a network namespace behind a veth pair.
struct Neighbour {
    name: String,
}

impl Neighbour {
    fn new() -> anyhow::Result<Self> {
        let name = format!("skn{}", std::process::id() % 100_000);
        let neighbour = Self { name };
        let name = &neighbour.name;
        for line in [
            format!("netns add {name}"),
            format!("link add {name}h type veth peer name {name}n netns {name}"),
            format!("addr add 198.18.77.1/24 dev {name}h"),
            format!("link set {name}h up"),
            format!("-n {name} addr add 198.18.77.2/24 dev {name}n"),
            format!("-n {name} link set {name}n up"),
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().context("run ip")?;
            ensure!(status.success(), "ip {line}: {status}");
        }
        Ok(neighbour)
    }

    fn fetch(&self, url: &str) -> Option<String> {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name, "curl", "-s", "-f", "-m", "5", url])
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = Command::new("ip").args(["link", "del", &format!("{}h", self.name)]).status();
    }
}

#[test]
fn containers_see_the_addresses_of_clients_from_other_machines() {
    on_engine(|_, docker| {
        let neighbour = Neighbour::new()?;
        let port = free_port()?;
        docker.sh(&format!("run -d --name web -p {port}:80 busybox"), SERVER)?.ok()?;
        answers(port)?;
        let fetched = wait_until("the page", PATIENCE, || {
            neighbour.fetch(&format!("http://198.18.77.1:{port}/index.html"))
        })?;
        ensure!(fetched == "hello\n", "{fetched:?}");
        let seen = docker.run("logs web")?.ok()?;
        ensure!(format!("{}{}", seen.out(), seen.err()).contains("198.18.77.2"), "{seen}");
        docker.run("rm -f web")?.ok()?;
        ensure!(
            neighbour.fetch(&format!("http://198.18.77.1:{port}/index.html")).is_none(),
            "a closed port answers"
        );
        Ok(())
    });
}
