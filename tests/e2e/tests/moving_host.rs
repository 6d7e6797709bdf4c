//! The host moves to another network while containers run: what they look up and connect to next is as the host has it then.
//!
//! The daemon is in a network namespace that is its host, between two others that are the worlds it may be in:
//!
//! ```text
//!  "one", servers and names ── 10.91.1.0/24 ── the host ── 10.91.2.0/24 ── "two", the same addresses and names
//! ```
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::thread::LinkNameSpaceType;
use skiff_e2e::name_server::{NameServer, address};
use skiff_e2e::{outside, probe};
use skiff_testkit::{Backend, DaemonUnderTest, DockerCli, Program};

const IMAGE: &str = "skiff-probe:latest";
/// What both worlds have, each its own.
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x91, 0, 0, 0, 0, 0x10);

/// The host and its worlds; they go with it.
struct Place {
    host: String,
    worlds: [String; 2],
    resolv_conf: PathBuf,
    _files: tempfile::TempDir,
}

impl Place {
    fn new(number: u8) -> anyhow::Result<Self> {
        let name = |kind: &str| format!("sk{kind}{}x{number}", std::process::id() % 100_000);
        let files = tempfile::Builder::new().prefix("skiff-moving-").tempdir()?;
        let place = Self {
            host: name("h"),
            worlds: [name("a"), name("b")],
            resolv_conf: files.path().join("resolv.conf"),
            _files: files,
        };
        std::fs::write(&place.resolv_conf, "")?;
        for namespace in [&place.host, &place.worlds[0], &place.worlds[1]] {
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        for (world, third) in place.worlds.iter().zip([1, 2]) {
            place.ip(&format!("link add up{third} type veth peer name wire netns {world}"))?;
            place.ip(&format!("address add 10.91.{third}.2/24 dev up{third}"))?;
            place.ip(&format!("link set up{third} up"))?;
            for line in [
                format!("address add 10.91.{third}.1/24 dev wire"),
                "link set wire up".to_owned(),
                format!("address add {SERVER}/32 dev lo"),
                format!("address add {SERVER6}/128 dev lo nodad"),
                format!("address add fd91:{third}::1/64 dev wire nodad"),
            ] {
                ip(&format!("-n {world} {line}"))?;
            }
        }
        Ok(place)
    }

    /// Changes the host's own network.
    fn ip(&self, line: &str) -> anyhow::Result<()> {
        ip(&format!("-n {} {line}", self.host))
    }

    /// Servers of one world, with its name as their answer.
    fn serve(&self, world: usize, name: &'static str) -> anyhow::Result<()> {
        in_namespace(&self.worlds[world], move || {
            outside::serve_at((SERVER, 80).into(), outside::say(name))?;
            outside::serve_at((SERVER6, 80).into(), outside::say(name))?;
            NameServer::start(Ipv4Addr::new(10, 91, world as u8 + 1, 1), move |asked, kind| {
                match (asked, kind) {
                    ("server.test", 1) => (0, vec![address(&SERVER.to_string())]),
                    ("world.test", 16) => (0, vec![[&[name.len() as u8], name.as_bytes()].concat()]),
                    _ => (3, Vec::new()),
                }
            })?;
            Ok(())
        })
    }

    /// What a process on the host sees.
    fn connect(&self, to: impl Into<IpAddr>) -> anyhow::Result<String> {
        let to = SocketAddr::new(to.into(), 80);
        in_namespace(&self.host, move || Ok(outside::connect_from_host(to, Duration::from_secs(5))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for namespace in [&self.host, &self.worlds[0], &self.worlds[1]] {
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}

fn ip(line: &str) -> anyhow::Result<()> {
    Program::new("ip").args(line.split(' ')).run()?.ok().map(drop).with_context(|| format!("ip {line}"))
}

/// Does something in a network namespace; what it opens there stays there.
fn in_namespace<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let namespace = File::open(format!("/run/netns/{name}")).context("open the namespace")?;
    let there = move || {
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&namespace),
            Some(LinkNameSpaceType::Network),
        )?;
        work()
    };
    std::thread::spawn(there).join().expect("the thread does not panic")
}

fn what_comes_next_is_as_the_host_has_it(backend: Backend, number: u8) -> anyhow::Result<()> {
    let place = Place::new(number)?;
    place.serve(0, "one")?;
    place.serve(1, "two")?;
    std::fs::write(&place.resolv_conf, "nameserver 10.91.1.1\n")?;
    place.ip("route add 198.51.100.0/24 via 10.91.1.1")?;
    let files = [(place.resolv_conf.as_path(), Path::new("/etc/resolv.conf"))];
    let daemon = DaemonUnderTest::start_in_namespace(backend, &place.host, &files)?;
    let moved = || -> anyhow::Result<()> {
        let docker = daemon.docker()?;
        docker.feed("load", probe::image()?.archive(&[IMAGE]))?.ok()?;
        docker.run("network create --ipv6 --subnet 10.92.0.0/24 --subnet fd92::/64 names")?.ok()?;
        docker.run(&format!("run -d --name box --network names {IMAGE} sleep 1000"))?.ok()?;
        let expect = |line: &str, wanted: &str, when: &str| expect(&docker, line, wanted, when);
        let [server, server6] = [format!("talk {SERVER}:80 x"), format!("talk [{SERVER6}]:80 x")];
        expect("talk server.test:80 x", "one", "at first")?;
        expect("dns udp:127.0.0.11 16 world.test", "code 0 16:036f6e65", "at first")?;
        // A network without IPv6 is one where nothing of it is waited for.
        ensure!(place.connect(SERVER6)? == "NetworkUnreachable", "the test is wrong");
        expect(&server6, "NetworkUnreachable", "without IPv6")?;

        // Another way to the same address.
        place.ip("route replace 198.51.100.0/24 via 10.91.2.1")?;
        expect(&server, "two", "after the change of the route")?;
        expect(
            "dns udp:127.0.0.11 16 world.test",
            "code 0 16:036f6e65",
            "before the change of the name server",
        )?;
        std::fs::write(&place.resolv_conf, "nameserver 10.91.2.1\n")?;
        expect("dns udp:127.0.0.11 16 world.test", "code 0 16:0374776f", "after it")?;
        // Its first interface goes, with all its addresses.
        place.ip("link del up1")?;
        expect("talk server.test:80 x", "two", "without the first interface")?;

        // IPv6 comes.
        place.ip("address add fd91:2::2/64 dev up2 nodad")?;
        place.ip(&format!("route add {SERVER6} via fd91:2::1"))?;
        expect(&server6, "two", "with IPv6")?;

        // And the whole network goes.
        place.ip("link set up2 down")?;
        let here = place.connect(SERVER)?;
        ensure!(here == "NetworkUnreachable", "a process on the host sees {here}, the test is wrong");
        expect(&server, &here, "without a network")?;
        expect(&server6, "NetworkUnreachable", "without a network")?;
        Ok(())
    };
    moved().with_context(|| daemon.log_tail())
}

fn expect(docker: &DockerCli, line: &str, wanted: &str, when: &str) -> anyhow::Result<()> {
    let found = docker.run(&format!("exec box {} {line}", probe::PROBE))?.ok()?.out();
    ensure!(found.trim_end() == wanted, "{when}: {line} gives {found:?}, not {wanted}");
    Ok(())
}

#[test]
fn containers_of_a_native_engine_move_with_their_host() {
    what_comes_next_is_as_the_host_has_it(Backend::Native, 1).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn containers_in_a_guest_move_with_their_host() {
    what_comes_next_is_as_the_host_has_it(Backend::Qemu, 2).unwrap_or_else(|error| panic!("{error:#}"));
}
