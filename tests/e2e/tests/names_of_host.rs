//! Names as the host knows them, asked by containers: every kind of record, and never those of yesterday's network.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use skiff_e2e::name_server::{Answer, NameServer, address, name};
use skiff_e2e::{outside, probe};
use skiff_testkit::{Backend, DaemonUnderTest, DockerCli};

const IMAGE: &str = "skiff-probe:latest";

/// A daemon whose `/etc/resolv.conf` and `/etc/hosts` are the test's, and the files themselves.
struct Names {
    daemon: DaemonUnderTest,
    docker: DockerCli,
    resolv_conf: PathBuf,
    hosts: PathBuf,
    _files: tempfile::TempDir,
}

impl Names {
    fn start(backend: Backend, settings: &str, servers: &str) -> anyhow::Result<Self> {
        let files = tempfile::Builder::new().prefix("skiff-names-").tempdir()?;
        let (resolv_conf, hosts) = (files.path().join("resolv.conf"), files.path().join("hosts"));
        std::fs::write(&resolv_conf, servers)?;
        std::fs::write(&hosts, "127.0.0.1 localhost\n203.0.113.7 inhosts.test\n")?;
        let files_in_place = [
            (resolv_conf.as_path(), Path::new("/etc/resolv.conf")),
            (hosts.as_path(), Path::new("/etc/hosts")),
        ];
        let daemon = DaemonUnderTest::start_with_files(backend, settings, &files_in_place)?;
        let docker = daemon.docker()?;
        docker.feed("load", probe::image()?.archive(&[IMAGE]))?.ok()?;
        docker.run("network create --subnet 10.235.0.0/24 names")?.ok()?;
        Ok(Self { daemon, docker, resolv_conf, hosts, _files: files })
    }

    /// What a container of a network is told about a name.
    fn ask(&self, network: &str, server: &str, kind: u16, name: &str) -> anyhow::Result<String> {
        let probe = probe::PROBE;
        let line = format!("run --rm --network {network} {IMAGE} {probe} dns {server} {kind} {name}");
        Ok(self.docker.run(&line)?.ok()?.out().trim_end().to_owned())
    }

    /// What a container sees that connects to a port of a host.
    fn connect(&self, to: &str, port: u16) -> anyhow::Result<String> {
        let line = format!("run --rm {IMAGE} {} connect {to}:{port} 3", probe::PROBE);
        Ok(self.docker.run(&line)?.ok()?.out().trim_end().to_owned())
    }
}

/// An address for a server of this process: tests run side by side.
fn own_address(last: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 100 + high % 100, low, last)
}

fn zone(asked: &str, kind: u16) -> Answer {
    let one = |data: Vec<u8>| (0, vec![data]);
    match (asked, kind) {
        ("web.test", 1) => one(address("192.0.2.80")),
        ("web.test", 28) => one(address("2001:db8::80")),
        ("web.test", 2) => one(name("ns.test")),
        ("alias.test", 5) => one(name("web.test")),
        ("web.test", 6) => {
            let mut data = [name("ns.test"), name("root.test")].concat();
            data.extend([0; 20]);
            one(data)
        }
        ("80.2.0.192.in-addr.arpa", 12) => one(name("web.test")),
        ("web.test", 15) => one([vec![0, 10], name("mail.test")].concat()),
        ("web.test", 16) => one(b"\x0bhello world".to_vec()),
        ("_http._tcp.test", 33) => one([vec![0, 1, 0, 2, 31, 144], name("web.test")].concat()),
        ("web.test", 65) => one([vec![0, 1], name("web.test")].concat()),
        ("web.test", 257) => one(b"\x00\x05issueca.test".to_vec()),
        ("long.test", 16) => {
            (0, (0..20u8).map(|number| [vec![40], vec![b'a' + number; 40]].concat()).collect())
        }
        ("four.test", 1) => one(address("192.0.2.4")),
        ("broken.test", _) => (2, Vec::new()),
        ("web.test" | "four.test", _) => (0, Vec::new()),
        _ => (3, Vec::new()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names_are_those_of_the_host(backend: Backend) -> anyhow::Result<()> {
    // The tests of one process have servers side by side.
    let [one, two] = if backend == Backend::Qemu { [1, 2] } else { [3, 4] };
    let first = NameServer::start(own_address(one), zone)?;
    let second = NameServer::start(own_address(two), |asked, kind| match (asked, kind) {
        ("web.test", 1) => (0, vec![address("192.0.2.99")]),
        _ => (3, Vec::new()),
    })?;
    let names = Names::start(backend, "{}", &first.line())?;
    let check = |names: &Names| -> anyhow::Result<()> {
        let mut servers = vec![("names", "udp:127.0.0.11"), ("names", "tcp:127.0.0.11")];
        if backend == Backend::Qemu {
            // Without a resolver of its own, a container has the one that the whole guest has.
            servers.extend([("bridge", "udp:192.168.65.7"), ("host", "tcp:192.168.65.7")]);
        }
        for (network, server) in servers {
            let records = [
                (1, "web.test"),
                (2, "web.test"),
                (5, "alias.test"),
                (6, "web.test"),
                (12, "80.2.0.192.in-addr.arpa"),
                (15, "web.test"),
                (16, "web.test"),
                (28, "web.test"),
                (33, "_http._tcp.test"),
                (65, "web.test"),
                (257, "web.test"),
            ];
            for (kind, asked) in records {
                let found = names.ask(network, server, kind, asked)?;
                let data = &zone(asked, kind).1[0];
                let wanted = format!("code 0 {kind}:{}", hex(data));
                ensure!(found == wanted, "{asked} {kind} by {server} on {network}: {found}, not {wanted}");
            }
            for (kind, asked, wanted) in [
                (1, "nothing.test", "code 3"),
                (28, "four.test", "code 0"),
                (99, "web.test", "code 0"),
                (16, "broken.test", "code 2"),
            ] {
                let found = names.ask(network, server, kind, asked)?;
                ensure!(found == wanted, "{asked} {kind} by {server} on {network}: {found}, not {wanted}");
            }
            let found = names.ask(network, server, 16, "long.test")?;
            let (is_cut, is_whole) = (found.contains(" cut"), found.matches(" 16:").count() == 20);
            let right = if server.starts_with("udp") { is_cut } else { is_whole && !is_cut };
            ensure!(right, "a long answer by {server} on {network}: {found}");
        }
        Ok(())
    };
    check(&names)?;

    // What was learnt from the old network is not told any more.
    std::fs::write(&names.resolv_conf, second.line())?;
    let found = names.ask("names", "udp:127.0.0.11", 1, "web.test")?;
    ensure!(found == format!("code 0 1:{}", hex(&address("192.0.2.99"))), "after the change: {found}");
    ensure!(names.ask("names", "udp:127.0.0.11", 16, "web.test")? == "code 3", "after the change");
    if backend == Backend::Qemu {
        let found = names.ask("names", "udp:127.0.0.11", 1, "inhosts.test")?;
        ensure!(found == format!("code 0 1:{}", hex(&address("203.0.113.7"))), "the hosts file: {found}");
        std::fs::write(&names.hosts, "127.0.0.1 localhost\n203.0.113.8 inhosts.test\n")?;
        let found = names.ask("bridge", "udp:192.168.65.7", 1, "inhosts.test")?;
        ensure!(found == format!("code 0 1:{}", hex(&address("203.0.113.8"))), "the changed file: {found}");
        let server = outside::serve(Ipv4Addr::LOCALHOST, outside::repeat)?;
        for host in outside::HOST_NAMES {
            let found = names.connect(host, server.port())?;
            ensure!(found == "connected", "{host}: {found}\n{}", names.daemon.log_tail());
        }
        // What says how long it is good is asked once.
        std::fs::write(&names.resolv_conf, first.line())?;
        // Answers are forgotten when a route of this host changes, which other tests can do at any moment.
        let asked_once = || -> anyhow::Result<bool> {
            names.ask("names", "udp:127.0.0.11", 15, "web.test")?;
            let before = first.asked();
            names.ask("names", "udp:127.0.0.11", 15, "web.test")?;
            names.ask("names", "udp:127.0.0.11", 15, "web.test")?;
            Ok(first.asked() == before)
        };
        let mut tries = 0;
        while !asked_once()? {
            tries += 1;
            ensure!(tries < 5, "an answer is never kept");
        }
    }
    // A server of the container's own.
    let line = format!(
        "run --rm --network names --dns {} {IMAGE} {} dns udp:127.0.0.11 15 web.test",
        own_address(one),
        probe::PROBE
    );
    if backend == Backend::Native {
        let found = names.docker.run(&line)?.ok()?.out();
        ensure!(found.starts_with("code 0 15:"), "--dns: {found}");
    }
    Ok(())
}

#[test]
fn a_native_engine_answers_with_the_names_of_the_host() {
    names_are_those_of_the_host(Backend::Native).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_guest_answers_with_the_names_of_the_host() {
    names_are_those_of_the_host(Backend::Qemu).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn the_hosts_loopback_can_be_closed_to_containers() {
    let test = || -> anyhow::Result<()> {
        let server = outside::serve(Ipv4Addr::LOCALHOST, outside::repeat)?;
        let closed = Names::start(Backend::Qemu, r#"{"network": {"host_loopback": false}}"#, "")?;
        let found = closed.connect("192.168.65.254", server.port())?;
        ensure!(found == "HostUnreachable", "the address: {found}");
        let found = closed.ask("bridge", "udp:192.168.65.7", 1, "host.docker.internal")?;
        ensure!(found == "code 3", "the name: {found}");
        Ok(())
    };
    test().unwrap_or_else(|error| panic!("{error:#}"));
}
