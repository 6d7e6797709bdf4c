//! What people get beside the API: names below `localhost`, and explanations.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, ensure};
use skiff_testkit::{Program, binaries, free_port, http, wait_until};

use crate::{Subject, scenarios};

scenarios![
    names_below_localhost_lead_to_containers,
    upgraded_connections_pass_through_names,
    a_port_is_explained_from_the_host_into_the_container,
    a_stopped_machine_is_neither_woken_by_names_nor_by_explanations,
];

const SERVER: &str =
    "mkdir -p /www; echo hello from $HOSTNAME > /www/index.html; exec httpd -f -p $0 -h /www";

/// Where names are served; a bare engine has no daemon that would.
fn names(on: &Subject) -> Option<SocketAddr> {
    Some((Ipv4Addr::LOCALHOST, on.daemon_under_test()?.names_port()).into())
}

fn page(at: SocketAddr, host: &str) -> anyhow::Result<http::Response> {
    http::request("GET", at, "/index.html", &[("Host", host)], &[])
}

fn skiff(on: &Subject, arguments: &[&str]) -> anyhow::Result<skiff_testkit::Finished> {
    let state = on.daemon_under_test().context("no daemon")?.state();
    Program::new(binaries::skiff()?).args(["--state".into(), state.into_os_string()]).args(arguments).run()
}

fn serve(on: &Subject, options: &str, port: &str) -> anyhow::Result<()> {
    let script = SERVER.replace("$0", port);
    on.docker.sh(&format!("run -d {options} busybox"), &script)?.ok().map(drop)
}

fn names_below_localhost_lead_to_containers(on: &Subject) -> anyhow::Result<()> {
    let Some(at) = names(on) else { return Ok(()) };
    serve(on, "--name web --hostname web", "8000")?;
    let answer = wait_until("the page", on.patience(20), || {
        page(at, "web.localhost").ok().filter(|answer| answer.status == 200)
    })?;
    ensure!(answer.text() == "hello from web\n", "{:?}", answer.text());
    ensure!(page(at, &format!("WEB.localhost:{}", at.port()))?.status == 200, "case and port do not matter");
    let unknown = page(at, "nobody.localhost")?;
    ensure!(unknown.status == 404 && unknown.text().contains("web.localhost"), "{}", unknown.text());
    ensure!(page(at, "example.org")?.status == 404, "a name of others is served");
    for replica in ["one", "two"] {
        serve(
            on,
            &format!(
                "--name {replica} --hostname {replica} --label com.docker.compose.project=shop --label \
                 com.docker.compose.service=front --label dev.skiff.http-port=81"
            ),
            "81",
        )?;
    }
    let mut seen = std::collections::BTreeSet::new();
    wait_until("both replicas", on.patience(20), || {
        let answer = page(at, "front.shop.localhost").ok()?;
        (answer.status == 200).then(|| seen.insert(answer.text()));
        (seen.len() == 2).then_some(())
    })?;
    // Containers do not get into each other's networks by their names.
    let line = format!("run --rm busybox nc -w 5 192.168.65.254 {} -e true", at.port());
    if on.is_guest() {
        on.docker.run(&line)?.exits(1)?.complains("No route to host")?;
    }
    // One that stands still says so, and of several only those that don't are asked.
    on.docker.run("pause web one")?.ok()?;
    wait_until("the page of a paused container", on.patience(5), || {
        let answer = page(at, "web.localhost").ok()?;
        (answer.status == 503 && answer.text().contains("skiff unpause web")).then_some(())
    })?;
    for _ in 0..3 {
        let answer = page(at, "front.shop.localhost")?;
        ensure!(answer.text() == "hello from two\n", "{}", answer.text());
    }
    on.docker.run("unpause web one")?.ok()?;
    wait_until("the page again", on.patience(5), || {
        page(at, "web.localhost").ok().filter(|answer| answer.status == 200)
    })?;
    // A container that listens nowhere, and one that has gone.
    on.sleeper("idle")?;
    let idle = page(at, "idle.localhost")?;
    ensure!(idle.status == 502 && idle.text().contains("No port speaks HTTP"), "{}", idle.text());
    on.docker.run("rm -f web")?.ok()?;
    wait_until("the name to go", on.patience(5), || {
        page(at, "web.localhost").ok().filter(|answer| answer.status == 404)
    })?;
    Ok(())
}

fn upgraded_connections_pass_through_names(on: &Subject) -> anyhow::Result<()> {
    let Some(at) = names(on) else { return Ok(()) };
    let script = r#"cat > /echo <<'END'
#!/bin/sh
while read -r line; do [ "${#line}" -le 1 ] && break; done
printf 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n'
exec cat
END
chmod +x /echo; exec nc -ll -p 80 -e /echo"#;
    on.docker.sh("run -d --name upgrade --label dev.skiff.http-port=80 busybox", script)?.ok()?;
    let attempt = || -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(on.patience(5)))?;
        stream.write_all(
            b"GET / HTTP/1.1\r\nHost: upgrade.localhost\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n",
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Ok(stream)
    };
    let mut stream = wait_until("the upgrade", on.patience(20), || attempt().ok())?;
    for number in 0..10 {
        let text = format!("line {number}\n");
        stream.write_all(text.as_bytes())?;
        let mut echo = vec![0; text.len()];
        stream.read_exact(&mut echo)?;
        ensure!(echo == text.as_bytes(), "{:?}", String::from_utf8_lossy(&echo));
    }
    Ok(())
}

fn a_port_is_explained_from_the_host_into_the_container(on: &Subject) -> anyhow::Result<()> {
    if on.daemon_under_test().is_none() {
        return Ok(());
    }
    let port = free_port()?;
    let explain = |port: u16| skiff(on, &["explain", "port", &port.to_string()]);
    serve(on, &format!("--name web -p 127.0.0.1:{port}:80"), "80")?;
    let told =
        wait_until("the server", on.patience(20), || explain(port).ok().filter(|told| told.code == 0))?;
    told.shows(&format!("127.0.0.1:{port}/tcp leads to container web, "))?
        .shows("container web accepts connections on port 80")?;
    skiff(on, &["doctor", "network"])?.shows("1 of 1 published ports lead to a listener")?;
    on.docker.run("stop -t 0 web")?.ok()?;
    explain(port)?.shows(&format!("container web publishes port {port}, but it is not running (exited)"))?;
    on.docker.run("rm -f web")?.ok()?;

    serve(on, &format!("--name web -p 127.0.0.1:{port}:80"), "127.0.0.1:80")?;
    let expected = "inside container web, port 80 is listened on at 127.0.0.1 only";
    wait_until("the server on loopback", on.patience(20), || {
        explain(port).ok().filter(|told| told.code == 1 && told.out().contains(expected))
    })?;
    on.docker.run("rm -f web")?.ok()?;
    serve(on, &format!("--name web -p 127.0.0.1:{port}:80"), "3000")?;
    wait_until("the server on another port", on.patience(20), || {
        explain(port).ok().filter(|told| told.out().contains(&format!("publish that with `-p {port}:3000`")))
    })?;
    on.docker.run("rm -f web")?.ok()?;

    // The program in the container has died, and what started it lives on.
    on.docker
        .sh(&format!("run -d --name web -p 127.0.0.1:{port}:80 busybox"), "httpd -p 80; exec sleep 1000")?
        .ok()?;
    wait_until("the server", on.patience(20), || explain(port).ok().filter(|told| told.code == 0))?
        .shows(&format!("127.0.0.1:{port} is listened on by "))?
        .shows(", for programs on this host only")?;
    on.docker.run("pause web")?.ok()?;
    explain(port)?.exits(1)?.shows("container web is paused")?.shows("`skiff unpause web`")?;
    on.docker.run("unpause web")?.ok()?;
    on.docker.run("exec web killall httpd")?.ok()?;
    explain(port)?
        .exits(1)?
        .shows("inside container web, nobody listens on port 80")?
        .shows("see what it does with `skiff logs web`")?;
    on.docker.run("rm -f web")?.ok()?;

    // What most people forget.
    serve(on, "--name web", &port.to_string())?;
    wait_until("the server that is not published", on.patience(20), || {
        let told = explain(port).ok()?;
        let expected = format!("container web listens on port {port}, but does not publish it");
        told.out().contains(&expected).then_some(())
    })?;
    on.docker.run("rm -f web")?.ok()?;
    if on.is_guest() {
        serve(on, "--name web --network host", &port.to_string())?;
        wait_until("the server in the guest's network", on.patience(20), || {
            explain(port).ok()?.out().contains("in the network of the guest").then_some(())
        })?;
        on.docker.run("rm -f web")?.ok()?;
    }

    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let taken = holder.local_addr()?.port();
    explain(taken)?.shows(&format!(", pid {}, which is not a container of Skiff", std::process::id()))?;
    drop(holder);
    explain(taken)?
        .exits(1)?
        .shows(&format!("nobody listens on port {taken}, and no container publishes it"))?;
    Ok(())
}

fn a_stopped_machine_is_neither_woken_by_names_nor_by_explanations(on: &Subject) -> anyhow::Result<()> {
    let Some(at) = names(on) else { return Ok(()) };
    skiff(on, &["machine", "stop"])?.ok()?;
    // The end of the machine is told to those who watch containers a moment later.
    wait_until("the page of a stopped machine", on.patience(10), || {
        page(at, "web.localhost")
            .ok()
            .filter(|answer| answer.status == 503 && answer.text().contains("The machine is stopped"))
    })?;
    if on.is_guest() {
        skiff(on, &["explain", "port", "1"])?.shows("the machine is stopped, and with it every container")?;
    }
    skiff(on, &["doctor", "network"])?;
    skiff(on, &["machine", "status"])?.ok()?.shows("stopped")?;
    // The next call starts it again, for the scenarios that follow.
    on.docker.command("ps -q").timeout(on.patience(60)).run()?.ok()?;
    Ok(())
}
