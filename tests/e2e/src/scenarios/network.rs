//! Published ports, and containers that talk to each other.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, ensure};
use skiff_testkit::{free_port, http, wait_until};

use crate::{Subject, scenarios};

scenarios![
    a_published_port_answers_on_the_host,
    a_port_chosen_by_the_engine_is_told,
    a_big_download_through_a_published_port_is_whole,
    containers_reach_each_other_by_address,
    two_containers_have_two_addresses,
    a_container_without_network_has_only_loopback,
    names_and_addresses_are_in_etc,
];

const SERVER: &str =
    "mkdir -p /www; echo hello from $HOSTNAME > /www/index.html; exec httpd -f -p 80 -h /www";

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn page(on: &Subject, port: u16, path: &str) -> anyhow::Result<http::Response> {
    wait_until("the web server", on.patience(10), || {
        http::get(local(port), path).ok().filter(|answer| answer.status == 200)
    })
}

fn a_published_port_answers_on_the_host(on: &Subject) -> anyhow::Result<()> {
    let port = free_port()?;
    on.docker
        .sh(&format!("run -d --name web --hostname web -p 127.0.0.1:{port}:80 busybox"), SERVER)?
        .ok()?;
    let answer = page(on, port, "/index.html")?;
    ensure!(answer.text() == "hello from web\n", "the page is {:?}", answer.text());
    for _ in 0..20 {
        ensure!(http::get(local(port), "/index.html")?.status == 200, "a repeated request failed");
    }
    on.docker.run("port web")?.ok()?.prints(&format!("80/tcp -> 127.0.0.1:{port}\n"))?;
    on.docker.run("ps --format {{.Ports}}")?.ok()?.prints(&format!("127.0.0.1:{port}->80/tcp\n"))?;
    on.docker.run("stop -t 0 web")?.ok()?;
    closed(on, port)?;
    on.docker.run("start web")?.ok()?;
    page(on, port, "/index.html")?;
    on.docker.run("rm -f web")?.ok()?;
    closed(on, port)
}

fn closed(on: &Subject, port: u16) -> anyhow::Result<()> {
    wait_until("the port to be closed", on.patience(5), || {
        TcpStream::connect(local(port)).is_err().then_some(())
    })?;
    TcpListener::bind(local(port)).with_context(|| format!("port {port} should be free"))?;
    Ok(())
}

fn a_port_chosen_by_the_engine_is_told(on: &Subject) -> anyhow::Result<()> {
    on.docker.sh("run -d --name web -p 127.0.0.1::80 busybox", SERVER)?.ok()?;
    let text = on.docker.run("port web 80")?.ok()?.out();
    let port: u16 = text
        .trim()
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .parse()
        .with_context(|| format!("port in {text:?}"))?;
    page(on, port, "/index.html")?;
    Ok(())
}

fn a_big_download_through_a_published_port_is_whole(on: &Subject) -> anyhow::Result<()> {
    const SIZE: usize = 20_000_000;
    let port = free_port()?;
    let script =
        format!("mkdir /www; yes 0123456789abcdef | head -c {SIZE} > /www/big; exec httpd -f -p 80 -h /www");
    on.docker.sh(&format!("run -d --name web -p 127.0.0.1:{port}:80 busybox"), &script)?.ok()?;
    let mut answer = page(on, port, "/big")?;
    // The server may have started while the file was being written only if `exec` came first, which it doesn't.
    ensure!(answer.body.len() == SIZE, "{} of {SIZE} bytes", answer.body.len());
    let pattern = b"0123456789abcdef\n";
    answer.body.truncate(SIZE / pattern.len() * pattern.len());
    ensure!(answer.body.chunks(pattern.len()).all(|chunk| chunk == pattern), "the bytes are others");
    Ok(())
}

fn containers_reach_each_other_by_address(on: &Subject) -> anyhow::Result<()> {
    on.docker.sh("run -d --name web --hostname web busybox", SERVER)?.ok()?;
    let ip = on.docker.inspect("web", "{{.NetworkSettings.IPAddress}}")?;
    let gateway = on.docker.inspect("web", "{{.NetworkSettings.Gateway}}")?;
    on.docker.run(&format!("run --rm busybox ping -c 1 -W 5 {ip}"))?.ok()?.shows("1 packets received")?;
    on.docker.run(&format!("run --rm busybox ping -c 1 -W 5 {gateway}"))?.ok()?;
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://{ip}/index.html && exit; sleep 0.2; done; exit 1"
    );
    on.docker.sh("run --rm busybox", &script)?.ok()?.prints("hello from web\n")?;
    Ok(())
}

fn two_containers_have_two_addresses(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("one")?;
    on.sleeper("two")?;
    let format = "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.MacAddress}}";
    let (one, two) = (on.docker.inspect("one", format)?, on.docker.inspect("two", format)?);
    ensure!(one != two, "both are {one}");
    on.docker.run("rm -f one")?.ok()?;
    on.sleeper("three")?;
    let three = on.docker.inspect("three", format)?;
    ensure!(three != two, "both are {three}");
    on.docker.run("kill three")?.ok()?;
    on.docker.run("wait three")?.ok()?;
    let none = on.docker.inspect("three", "{{.NetworkSettings.IPAddress}}")?;
    ensure!(none.is_empty(), "a stopped container has the address {none}");
    Ok(())
}

fn a_container_without_network_has_only_loopback(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run --rm --network none busybox ls /sys/class/net")?.ok()?.prints("lo\n")?;
    on.docker.run("run --rm --network none busybox ping -c 1 127.0.0.1")?.ok()?;
    on.docker
        .run("run --rm --network nosuchnet busybox true")?
        .exits(125)?
        .complains("network nosuchnet not found")?;
    Ok(())
}

fn names_and_addresses_are_in_etc(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name box --hostname box busybox sleep 1000")?.ok()?;
    let ip = on.docker.inspect("box", "{{.NetworkSettings.IPAddress}}")?;
    on.docker
        .run("exec box cat /etc/hosts")?
        .ok()?
        .shows(&format!("{ip}\tbox"))?
        .shows("127.0.0.1\tlocalhost")?;
    on.docker.run("exec box cat /etc/hostname")?.ok()?.prints("box\n")?;
    on.docker.run("exec box ping -c 1 box")?.ok()?;
    Ok(())
}
