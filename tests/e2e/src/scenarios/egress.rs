//! What containers reach outside, and what they see when they don't.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use skiff_testkit::{free_port, wait_until};

use crate::outside::{self, Outside};
use crate::{Subject, probe, scenarios};

scenarios![
    containers_reach_the_world_and_the_host,
    an_internal_network_has_no_way_out,
    half_closes_and_resets_are_passed_on,
    connection_errors_are_those_of_the_host,
    datagrams_come_back_whole,
    a_ping_is_answered,
    ipv6_leaves_as_ipv4_does,
    many_connections_at_once_do_not_mix,
    nothing_of_ours_answers_containers,
    an_idle_connection_stays,
    big_transfers_are_whole_both_ways,
];

/// The host as containers of every backend know it.
const HOST: &str = "--add-host host.docker.internal:host-gateway";
const IMAGE: &str = "skiff-probe:latest";

/// Connections out of a guest at once. Ten thousand, which it is made for, are asked for by `SKIFF_FLOWS=10000`: to open them
/// takes a minute under emulation.
const FLOWS: u64 = 3_000;

fn load_probe(on: &Subject) -> anyhow::Result<()> {
    if on.docker.args(&["image", "inspect", IMAGE])?.code != 0 {
        on.load(&probe::image()?, IMAGE)?;
    }
    Ok(())
}

/// Runs the probe in a container with these options, and returns its line.
fn probe(on: &Subject, options: &str, line: &str) -> anyhow::Result<String> {
    let command = format!("run --rm {HOST} {options} {IMAGE} {} {line}", probe::PROBE);
    let finished = on.docker.command(&command).timeout(on.patience(120)).run()?.ok()?;
    Ok(finished.out().trim_end().to_owned())
}

fn expect(found: anyhow::Result<String>, wanted: &str, what: &str) -> anyhow::Result<()> {
    let found = found.with_context(|| what.to_owned())?;
    ensure!(found == wanted, "{what}: {found:?}, not {wanted:?}");
    Ok(())
}

fn containers_reach_the_world_and_the_host(on: &Subject) -> anyhow::Result<()> {
    load_probe(on)?;
    let outside = Outside::new()?;
    let world = outside::serve(outside.address(), outside::repeat)?;
    let host = outside::serve(Ipv4Addr::UNSPECIFIED, outside::repeat)?.port();
    on.docker.run("network create --subnet 10.233.0.0/24 out")?.ok()?;
    for network in ["bridge", "out", "host"] {
        let options = format!("--network {network}");
        expect(probe(on, &options, &format!("talk {world} hello")), "hello", network)?;
    }
    for network in ["bridge", "out"] {
        let options = format!("--network {network}");
        let line = format!("talk host.docker.internal:{host} hello");
        expect(probe(on, &options, &line), "hello", &format!("the host from {network}"))?;
    }
    Ok(())
}

fn an_internal_network_has_no_way_out(on: &Subject) -> anyhow::Result<()> {
    load_probe(on)?;
    let outside = Outside::new()?;
    let world = outside::serve(outside.address(), outside::repeat)?;
    on.docker.run("network create --internal --subnet 10.234.0.0/24 inner")?.ok()?;
    let found = probe(on, "--network inner", &format!("connect {world} 2"))?;
    ensure!(found != "connected", "a container of an internal network reached {world}");
    // Not by a route of its own either. (A native engine's host is itself behind the gateway, as with dockerd.)
    if !on.in_guest {
        return Ok(());
    }
    let script = format!("ip route add default via 10.234.0.1; {} connect {world} 2", probe::PROBE);
    let found =
        on.docker.sh(&format!("run --rm --cap-add NET_ADMIN --network inner {IMAGE}"), &script)?.ok()?.out();
    ensure!(!found.contains("connected"), "it reached {world} by the gateway");
    Ok(())
}

fn half_closes_and_resets_are_passed_on(on: &Subject) -> anyhow::Result<()> {
    load_probe(on)?;
    let outside = Outside::new()?;
    let world = outside.address();
    // The answer comes only after the client's end: without half-close there would be none.
    let repeating = outside::serve(world, outside::repeat)?;
    expect(probe(on, "", &format!("talk {repeating} half")), "half", "half-close")?;
    let breaking = outside::serve(world, outside::reset)?;
    expect(probe(on, "", &format!("talk {breaking} x")), "ConnectionReset", "a server's reset")?;

    let seen = Arc::new(Mutex::new(Vec::new()));
    let flooding = outside::serve(world, outside::flood(Arc::clone(&seen)))?;
    on.docker.run(&format!("run -d --name stuck {IMAGE} {} stuck {flooding}", probe::PROBE))?.ok()?;
    wait_until("the connection", on.patience(10), || {
        on.docker.run("logs stuck").ok()?.out().contains("connected").then_some(())
    })?;
    // Bytes pile up unread, so that its death is a reset.
    std::thread::sleep(Duration::from_secs(1));
    on.docker.run("kill stuck")?.ok()?;
    let seen = wait_until("the server's error", on.patience(30), || {
        seen.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    })?;
    ensure!(["ConnectionReset", "BrokenPipe"].contains(&seen.as_str()), "the server saw {seen}");
    Ok(())
}

fn connection_errors_are_those_of_the_host(on: &Subject) -> anyhow::Result<()> {
    load_probe(on)?;
    let outside = Outside::new()?;
    let closed = free_port()?;
    let targets = [
        (outside.address(), "ConnectionRefused"),
        (outside.unreachable(), "HostUnreachable"),
        (outside.silent(), "TimedOut"),
    ];
    for (address, expected) in targets {
        let to = SocketAddr::from((address, closed));
        let here = outside::connect_from_host(to, Duration::from_secs(2));
        ensure!(here == expected, "a process on this host sees {here} at {to}, the test is wrong");
        expect(probe(on, "", &format!("connect {to} 3")), &here, &format!("{to}"))?;
    }
    let to = format!("host.docker.internal:{closed}");
    expect(probe(on, "", &format!("connect {to} 3")), "ConnectionRefused", "the host's own port")?;
    let unknown = "nobody-has-this-name.invalid:80";
    let Err(error) = unknown.to_socket_addrs() else { bail!("{unknown} is known, the test is wrong") };
    on.docker.run("network create --subnet 10.235.0.0/24 named")?.ok()?;
    for network in ["bridge", "named"] {
        let found = probe(on, &format!("--network {network}"), &format!("connect {unknown} 3"));
        expect(found, &probe::outcome(&error), &format!("an unknown name on {network}"))?;
    }
    Ok(())
}

fn datagrams_come_back_whole(on: &Subject) -> anyhow::Result<()> {
    load_probe(on)?;
    let outside = Outside::new()?;
    let world = outside::echo_datagrams(outside.address())?;
    for options in ["", "--network host"] {
        let line = format!("udp {world} 0 1 0 512 1472 9000 60000");
        expect(probe(on, options, &line), "echoed", &format!("datagrams {options}"))?;
    }
    let nobody = SocketAddr::from((outside.address(), free_port()?));
    let found = probe(on, "", &format!("udp {nobody} 0 10"))?;
    ensure!(found == "ConnectionRefused", "a port that nobody has: {found}");
    Ok(())
}

fn a_ping_is_answered(on: &Subject) -> anyhow::Result<()> {
    let outside = Outside::new()?;
    let address = outside.address();
    on.docker
        .run(&format!("run --rm busybox ping -c 3 -i 0.2 -W 5 -s 1000 {address}"))?
        .ok()?
        .shows("3 packets received")?;
    on.docker
        .run(&format!("run --rm busybox ping -c 1 -W 1 {}", outside.silent()))?
        .exits(1)?
        .shows("0 packets received")?;
    Ok(())
}

fn ipv6_leaves_as_ipv4_does(on: &Subject) -> anyhow::Result<()> {
    load_probe(on)?;
    let outside = Outside::new()?;
    if !outside.has_ipv6 {
        eprintln!("       this host has IPv6 switched off: nothing of it can leave");
        return Ok(());
    }
    let address = outside.address6();
    on.docker.run("network create --ipv6 --subnet 10.236.0.0/24 --subnet fd00:236::/64 six")?.ok()?;
    let repeating = outside::serve(address, outside::repeat)?;
    for network in ["six", "host"] {
        let options = format!("--network {network}");
        expect(probe(on, &options, &format!("talk {repeating} half")), "half", network)?;
    }
    let breaking = outside::serve(address, outside::reset)?;
    expect(probe(on, "--network six", &format!("talk {breaking} x")), "ConnectionReset", "a server's reset")?;

    let closed = free_port()?;
    let targets = [
        (address, "ConnectionRefused"),
        (outside.unreachable6(), "HostUnreachable"),
        (outside.silent6(), "TimedOut"),
    ];
    for (address, expected) in targets {
        let to = SocketAddr::from((address, closed));
        let here = outside::connect_from_host(to, Duration::from_secs(2));
        ensure!(here == expected, "a process on this host sees {here} at {to}, the test is wrong");
        // A kernel that passes packets on has one word for every unreachable place.
        let passed_on = !on.in_guest && here == "HostUnreachable";
        let wanted = if passed_on { "NetworkUnreachable" } else { &here };
        expect(probe(on, "--network six", &format!("connect {to} 3")), wanted, &format!("{to}"))?;
    }

    let echoing = outside::echo_datagrams(address)?;
    for options in ["--network six", "--network host"] {
        let line = format!("udp {echoing} 0 1 0 512 1452 9000 60000");
        expect(probe(on, options, &line), "echoed", &format!("datagrams {options}"))?;
    }
    let nobody = SocketAddr::from((address, closed));
    expect(
        probe(on, "--network six", &format!("udp {nobody} 0 10")),
        "ConnectionRefused",
        "datagrams to nobody",
    )?;

    let ping = format!("run --rm --network six busybox ping -6 -c 3 -i 0.2 -W 5 -s 1000 {address}");
    on.docker.run(&ping)?.ok()?.shows("3 packets received")?;

    let size = probe::transfer_size() / 8;
    let source = outside::serve(address, outside::send_pattern(size))?;
    expect(probe(on, "--network six", &format!("download {source} {size}")), "whole 0", "download")?;

    // The default network has IPv4 only, and says so at once.
    let found = probe(on, "", &format!("connect {repeating} 3"))?;
    ensure!(["NetworkUnreachable", "AddrNotAvailable"].contains(&found.as_str()), "without IPv6: {found}");
    on.docker
        .run("network create --ipv6 --internal --subnet 10.237.0.0/24 --subnet fd00:237::/64 inner")?
        .ok()?;
    let found = probe(on, "--network inner", &format!("connect {repeating} 2"))?;
    ensure!(found != "connected", "a container of an internal network reached {repeating}");
    if on.in_guest {
        // The host's loopback, as containers without IPv4 know it.
        let body = r#"{"Name":"alone","EnableIPv4":false,"EnableIPv6":true}"#;
        ensure!(on.call("POST", "/networks/create", body)?.status == 201, "a network of IPv6 alone");
        let host = outside::serve(Ipv4Addr::LOCALHOST, outside::repeat)?.port();
        let line = format!("talk [fdc4:f303:9324::254]:{host} hello");
        expect(probe(on, "--network alone", &line), "hello", "the host's loopback")?;
    }
    Ok(())
}

fn many_connections_at_once_do_not_mix(on: &Subject) -> anyhow::Result<()> {
    load_probe(on)?;
    let outside = Outside::new()?;
    let world = outside::echo_for_many(outside.address())?;
    // In a guest each of them is carried by programs of ours; a native engine's are the kernel's alone.
    let most = std::env::var("SKIFF_FLOWS").ok().and_then(|most| most.parse().ok()).unwrap_or(FLOWS);
    let count: u64 = if on.in_guest { most } else { 1000 };
    on.docker.run("network create --subnet 10.238.0.0/24 busy")?.ok()?;
    let (before, free) = (on.daemon_memory()?, available(on)?);
    let line =
        format!("run -d --name many --network busy --ulimit nofile=20000:20000 {IMAGE} {}", probe::PROBE);
    on.docker.run(&format!("{line} many {world} {count} 600"))?.ok()?;
    wait_until("all connections", on.patience(100), || {
        let said = on.docker.run("logs many").ok()?.out();
        said.contains(&format!("{count} echoed")).then_some(())
    })
    .with_context(|| on.docker.run("logs many").map(|logs| logs.to_string()).unwrap_or_default())?;
    if let (Some(before), Some(after)) = (before, on.daemon_memory()?) {
        let each = after.saturating_sub(before) / count;
        // Sockets of both ends, the container's own program among them.
        let guest = free.saturating_sub(available(on)?) / count;
        eprintln!(
            "       {count} connections: {each} bytes of the daemon's memory each, {guest} of the engine's machine"
        );
        ensure!(each < 64 << 10, "a connection takes {each} bytes of the daemon's memory");
    }
    // Others find room beside them, in their own network and in another one.
    for options in ["--network busy", ""] {
        expect(probe(on, options, &format!("many {world} 100")), "100 echoed\nkept", "the others")?;
    }
    // With the container everything goes, and as many can come again.
    on.docker.run("rm -f many")?.ok()?;
    expect(probe(on, "", &format!("many {world} 100")), "100 echoed\nkept", "afterwards")
}

/// The memory that the engine's machine has to give, in bytes.
fn available(on: &Subject) -> anyhow::Result<u64> {
    let text = on.docker.run("run --rm busybox cat /proc/meminfo")?.ok()?.out();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib * 1024)
}

fn nothing_of_ours_answers_containers(on: &Subject) -> anyhow::Result<()> {
    if !on.in_guest {
        // What else listens on this host is not ours to say.
        return Ok(());
    }
    load_probe(on)?;
    on.docker.run("network create --ipv6 --subnet 10.239.0.0/24 --subnet fd00:239::/64 near")?.ok()?;
    // Our listeners' port and that of a shell, by every address that this machine has.
    let near = ["10.239.0.1", "[fd00:239::1]", "192.168.65.1", "192.168.65.7", "[fdc4:f303:9324::1]"];
    for address in near {
        for port in [9, 22] {
            let line = format!("connect {address}:{port} 3");
            let found = probe(on, "--network near", &line)?;
            ensure!(found == "ConnectionRefused", "{address}:{port} says {found}");
        }
    }
    // Who has the guest's own network finds the transparent listeners, which take nothing that was meant for them.
    let listening = on.docker.run("run --rm --network host busybox netstat -ltnu")?.ok()?.out();
    let addresses: Vec<&str> = listening
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .filter(|at| at.contains(':'))
        .collect();
    ensure!(addresses.contains(&"127.0.0.1:9"), "the test reads it wrong: {listening}");
    let known = ["127.0.0.1:9", "::1:9", "192.168.65.7:53"];
    let others: Vec<_> = addresses.iter().filter(|at| !known.contains(at)).collect();
    ensure!(others.is_empty(), "others listen in the guest: {listening}");
    for address in ["127.0.0.1:9", "[::1]:9"] {
        let found = probe(on, "--network host", &format!("talk {address} hello"))?;
        ensure!(["ConnectionReset", "BrokenPipe", ""].contains(&found.as_str()), "{address} says {found}");
    }
    Ok(())
}

fn an_idle_connection_stays(on: &Subject) -> anyhow::Result<()> {
    load_probe(on)?;
    let outside = Outside::new()?;
    let world = outside::serve(outside.address(), outside::echo)?;
    expect(probe(on, "", &format!("idle {world} 15")), "first\nsecond", "an idle connection")
}

fn big_transfers_are_whole_both_ways(on: &Subject) -> anyhow::Result<()> {
    load_probe(on)?;
    let size = probe::transfer_size();
    let outside = Outside::new()?;
    let source = outside::serve(outside.address(), outside::send_pattern(size))?;
    expect(probe(on, "", &format!("download {source} {size}")), "whole 0", "download")?;
    let sink = outside::serve(outside.address(), outside::check_pattern)?;
    expect(probe(on, "", &format!("upload {sink} {size}")), &format!("whole {size}"), "upload")?;
    Ok(())
}
