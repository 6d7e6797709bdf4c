//! Published ports: datagrams, both families, ranges, many at once, and what is said when one can't be had.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use skiff_testkit::{Image, free_port, http, wait_until};

use crate::outside::Outside;
use crate::probe::Pattern;
use crate::{Subject, scenarios};

scenarios![
    datagrams_reach_a_container_and_come_back,
    every_address_of_both_families_is_bound_and_told,
    ranges_find_the_first_free_port_and_are_matched_one_by_one,
    a_busy_port_is_refused_with_the_name_of_its_holder,
    a_thousand_clients_at_once_are_served,
    what_goes_both_ways_at_once_is_whole_also_after_an_idle_time,
    a_half_close_and_a_refusal_are_passed_on,
    a_hundred_ports_open_at_once_and_close_with_their_container,
    published_ports_are_reached_from_containers,
    sctp_is_refused_in_clear_words,
];

const SERVER: &str = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www";

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn local6(port: u16) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port).into()
}

fn page(on: &Subject, at: SocketAddr) -> anyhow::Result<()> {
    let answer = wait_until("the web server", on.patience(10), || {
        http::get(at, "/index.html").ok().filter(|answer| answer.status == 200)
    })?;
    ensure!(answer.text() == "hello\n", "the page is {:?}", answer.text());
    Ok(())
}

/// The first of `count` neighbouring ports that are free now.
fn free_ports(count: u16) -> anyhow::Result<u16> {
    (20_000..30_000)
        .step_by(usize::from(count))
        .find(|first| (*first..first + count).all(|port| TcpListener::bind(local(port)).is_ok()))
        .context("no free range of ports")
}

fn asks(client: &UdpSocket, question: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    client.send(question).ok()?;
    let length = client.recv(&mut buffer).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

fn datagrams_reach_a_container_and_come_back(on: &Subject) -> anyhow::Result<()> {
    on.load(&Image::echo()?, "echo:latest")?;
    let port = free_port()?;
    let outside = Outside::new()?;
    let outer = SocketAddr::new(outside.address().into(), port);
    on.docker
        .run(&format!(
            "run -d --name echo -p 127.0.0.1:{port}:7/udp -p [::1]:{port}:7/udp -p {outer}:7/udp echo echo-server 7"
        ))?
        .ok()?;
    on.docker.run("port echo")?.ok()?.shows(&format!("7/udp -> 127.0.0.1:{port}\n"))?;
    let client = |at: SocketAddr| -> anyhow::Result<UdpSocket> {
        let any: SocketAddr = if at.is_ipv4() { local(0) } else { local6(0) };
        let client = UdpSocket::bind(any)?;
        client.connect(at)?;
        client.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(client)
    };
    for at in [local(port), local6(port)] {
        let first = client(at)?;
        wait_until("the echo", on.patience(10), || {
            asks(&first, b"hello").filter(|answer| answer == b"hello")
        })?;
        first.set_read_timeout(Some(on.patience(5)))?;
        let large = vec![7; 8000];
        ensure!(asks(&first, &large).as_ref() == Some(&large), "a large datagram does not come back whole");
        // Every client has a flow of its own.
        let clients: Vec<UdpSocket> = (0..20).map(|_| client(at)).collect::<Result<_, _>>()?;
        for (number, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(on.patience(5)))?;
            client.send(number.to_string().as_bytes())?;
        }
        for (number, client) in clients.iter().enumerate() {
            let mut buffer = [0; 16];
            let length = client.recv(&mut buffer).with_context(|| format!("client {number} of {at}"))?;
            ensure!(
                buffer[..length] == *number.to_string().as_bytes(),
                "client {number} got another's datagram"
            );
        }
    }
    // A client that goes on sending from one port reaches the container at its new address.
    let faithful = UdpSocket::bind((outside.address(), 0))?;
    faithful.connect(outer)?;
    faithful.set_read_timeout(Some(Duration::from_millis(500)))?;
    let echoed = || asks(&faithful, b"again").filter(|answer| answer == b"again");
    wait_until("the echo", on.patience(10), echoed)?;
    let address = || on.docker.inspect("echo", "{{.NetworkSettings.IPAddress}}");
    let before = address()?;
    on.docker.run("stop -t 0 echo")?.ok()?;
    on.docker.run("run -d --name other busybox sleep 1000")?.ok()?;
    on.docker.run("start echo")?.ok()?;
    ensure!(address()? != before, "it has the address that another one has taken");
    wait_until("the echo after the restart", on.patience(10), echoed)?;
    on.docker.run("rm -f echo")?.ok()?;
    wait_until("the port to be free", on.patience(5), || UdpSocket::bind(local(port)).ok())?;
    Ok(())
}

fn every_address_of_both_families_is_bound_and_told(on: &Subject) -> anyhow::Result<()> {
    let port = free_port()?;
    on.docker.sh(&format!("run -d --name web -p {port}:80 busybox"), SERVER)?.ok()?;
    on.docker.run("port web")?.ok()?.prints(&format!("80/tcp -> 0.0.0.0:{port}\n80/tcp -> [::]:{port}\n"))?;
    on.docker
        .run("ps --format {{.Ports}}")?
        .ok()?
        .prints(&format!("0.0.0.0:{port}->80/tcp, [::]:{port}->80/tcp\n"))?;
    page(on, local(port))?;
    // The container has no IPv6 address: its clients are carried over.
    page(on, local6(port))?;
    on.docker.run("rm -f web")?.ok()?;

    on.docker.sh("run -d --name web -p 80 -p 127.0.0.1::80 busybox", SERVER)?.ok()?;
    let shown = on.docker.run("port web 80")?.ok()?.out();
    let ports: Vec<(&str, u16)> = shown
        .lines()
        .filter_map(|line| line.rsplit_once(':').and_then(|(ip, port)| Some((ip, port.parse().ok()?))))
        .collect();
    let [(first, a), (second, b), (third, c)] = ports[..] else { anyhow::bail!("ports {shown:?}") };
    let mut shown = [(first, a), (second, b), (third, c)];
    shown.sort_unstable();
    ensure!(
        shown[0].0 == "0.0.0.0"
            && shown[1].0 == "127.0.0.1"
            && shown[2].0 == "[::]"
            && shown[0].1 == shown[2].1,
        "bindings {shown:?}"
    );
    page(on, local(shown[1].1))?;
    page(on, local6(shown[2].1))?;
    on.docker.run("rm -f web")?.ok()?;

    on.docker.sh(&format!("run -d --name web -p [::1]:{port}:80 busybox"), SERVER)?.ok()?;
    page(on, local6(port))?;
    ensure!(TcpStream::connect(local(port)).is_err(), "IPv4 is bound too");
    on.docker.run("rm -f web")?.ok()?;

    on.docker.sh("run -d --name web -P --expose 80 --expose 81 busybox", SERVER)?.ok()?;
    let count = on.docker.inspect("web", "{{len .NetworkSettings.Ports}}")?;
    ensure!(count == "2", "{count} ports are published");
    Ok(())
}

fn ranges_find_the_first_free_port_and_are_matched_one_by_one(on: &Subject) -> anyhow::Result<()> {
    let first = free_ports(5)?;
    let taken = TcpListener::bind(local(first))?;
    let last = first + 2;
    on.docker.sh(&format!("run -d --name web -p 127.0.0.1:{first}-{last}:80 busybox"), SERVER)?.ok()?;
    on.docker.run("port web 80")?.ok()?.prints(&format!("127.0.0.1:{}\n", first + 1))?;
    on.docker.sh(&format!("run -d --name next -p 127.0.0.1:{first}-{last}:80 busybox"), SERVER)?.ok()?;
    on.docker.run("port next 80")?.ok()?.prints(&format!("127.0.0.1:{last}\n"))?;
    on.docker
        .sh(&format!("run --name none -p 127.0.0.1:{first}-{last}:80 busybox"), SERVER)?
        .exits(125)?
        .complains("all ports are allocated")?;
    drop(taken);
    on.docker.run("rm -f web next none")?.ok()?;
    on.docker.sh(&format!("run -d --name web -p 127.0.0.1:{first}-{last}:80-82 busybox"), SERVER)?.ok()?;
    for offset in 0..3 {
        on.docker
            .run(&format!("port web {}", 80 + offset))?
            .ok()?
            .prints(&format!("127.0.0.1:{}\n", first + offset))?;
    }
    page(on, local(first))
}

fn a_busy_port_is_refused_with_the_name_of_its_holder(on: &Subject) -> anyhow::Result<()> {
    let holder = TcpListener::bind(local(0))?;
    let port = holder.local_addr()?.port();
    let refused =
        on.docker.sh(&format!("run --name web -p 127.0.0.1:{port}:80 busybox"), SERVER)?.exits(125)?;
    refused
        .complains("failed to set up container networking: driver failed programming external connectivity on endpoint web (")?
        .complains(&format!("failed to bind host port for 127.0.0.1:{port}:"))?
        .complains(":80/tcp: address already in use (by ")?
        .complains(&format!(", pid {})", std::process::id()))?;
    let status = on.docker.inspect("web", "{{.State.Status}}")?;
    ensure!(status == "created", "the container is {status}");
    drop(holder);
    on.docker.run("start web")?.ok()?;
    page(on, local(port))?;
    on.docker
        .sh(&format!("run --name other -p 127.0.0.1:{port}:80 busybox"), SERVER)?
        .exits(125)?
        .complains(&format!("Bind for 127.0.0.1:{port} failed: port is already allocated"))?;
    on.docker
        .run("run --rm -p 192.0.2.99:0:80 busybox true")?
        .exits(125)?
        .complains("cannot assign requested address")?;
    // The same number is another port for datagrams.
    on.docker.run(&format!("run --rm -p 127.0.0.1:{port}:80/udp busybox true"))?.ok()?;
    Ok(())
}

fn a_thousand_clients_at_once_are_served(on: &Subject) -> anyhow::Result<()> {
    const CLIENTS: usize = 1000;
    on.load(&Image::echo()?, "echo:latest")?;
    let port = free_port()?;
    on.docker.run(&format!("run -d --name echo -p 127.0.0.1:{port}:7 echo echo-server 7"))?.ok()?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = TcpStream::connect_timeout(&local(port), on.patience(10))
            .with_context(|| format!("connect client {number}"))?;
        client.set_read_timeout(Some(on.patience(30)))?;
        clients.push(client);
    }
    // All of them are open, twice over.
    for round in 0..2 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(format!("{round} {number}\n").as_bytes())?;
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let expected = format!("{round} {number}\n");
            let mut answer = vec![0; expected.len()];
            client.read_exact(&mut answer).with_context(|| format!("read the answer to client {number}"))?;
            ensure!(answer == expected.as_bytes(), "client {number} got another's bytes");
        }
    }
    Ok(())
}

fn what_goes_both_ways_at_once_is_whole_also_after_an_idle_time(on: &Subject) -> anyhow::Result<()> {
    let size = crate::probe::transfer_size();
    on.load(&Image::echo()?, "echo:latest")?;
    let port = free_port()?;
    on.docker.run(&format!("run -d --name echo -p 127.0.0.1:{port}:7 echo echo-server 7"))?.ok()?;
    let mut idle = wait_until("the echo", on.patience(10), || {
        let mut client = TcpStream::connect(local(port)).ok()?;
        client.set_read_timeout(Some(on.patience(10))).ok()?;
        client.write_all(b"first").ok()?;
        client.read_exact(&mut [0; 5]).ok()?;
        Some(client)
    })?;
    let started = Instant::now();
    let client = TcpStream::connect(local(port))?;
    client.set_read_timeout(Some(on.patience(30)))?;
    let (mut sender, mut receiver) = (client.try_clone()?, client);
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let sending = scope.spawn(move || -> anyhow::Result<()> {
            Pattern::default().write(&mut sender, size)?;
            Ok(sender.shutdown(Shutdown::Write)?)
        });
        let mut pattern = Pattern::default();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let length =
                receiver.read(&mut buffer).with_context(|| format!("read after {}", pattern.place()))?;
            if length == 0 {
                break;
            }
            ensure!(pattern.matches(&buffer[..length]), "other bytes come back before {}", pattern.place());
        }
        ensure!(pattern.place() == size, "{} of {size} bytes came back", pattern.place());
        sending.join().expect("the sender does not panic")
    })?;
    std::thread::sleep(Duration::from_secs(10).saturating_sub(started.elapsed()));
    idle.write_all(b"again")?;
    let mut answer = [0; 5];
    idle.read_exact(&mut answer).context("after an idle time")?;
    ensure!(&answer == b"again", "{answer:?} comes back");
    Ok(())
}

fn a_half_close_and_a_refusal_are_passed_on(on: &Subject) -> anyhow::Result<()> {
    let first = free_ports(2)?;
    on.docker
        .sh(
            &format!("run -d --name sum -p 127.0.0.1:{first}-{}:9-10 busybox", first + 1),
            "exec nc -ll -p 9 -e sha256sum",
        )?
        .ok()?;
    let bytes = skiff_testkit::image::noise(1_000_000, 5);
    let expected = skiff_testkit::image::digest(&bytes).replace("sha256:", "");
    let answer = wait_until("the sum", on.patience(20), || {
        let mut client = TcpStream::connect(local(first)).ok()?;
        client.write_all(&bytes).ok()?;
        client.shutdown(Shutdown::Write).ok()?;
        let mut text = String::new();
        client.read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    })?;
    ensure!(answer.starts_with(&expected), "the sum is {answer:?} instead of {expected}");
    let mut client = TcpStream::connect(local(first + 1))?;
    client.set_read_timeout(Some(on.patience(20)))?;
    match client.read(&mut [0; 1]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        other => anyhow::bail!("a port that nobody listens on gives {other:?}"),
    }
}

fn a_hundred_ports_open_at_once_and_close_with_their_container(on: &Subject) -> anyhow::Result<()> {
    const PORTS: u16 = 100;
    let first = free_ports(PORTS)?;
    let last = first + PORTS - 1;
    on.docker
        .sh(
            &format!("run -d --name many -p 127.0.0.1:{first}-{last}:1000-1099 busybox"),
            "mkdir /www; echo hello > /www/index.html; for p in 1000 1050 1099; do httpd -p $p -h /www; done; sleep 1000",
        )?
        .ok()?;
    for offset in [0, 50, 99] {
        page(on, local(first + offset))?;
    }
    ensure!((first..=last).all(|port| TcpListener::bind(local(port)).is_err()), "a port is not bound");
    on.docker.run("kill many")?.ok()?;
    for port in first..=last {
        wait_until("the ports to be free", on.patience(5), || TcpListener::bind(local(port)).ok())
            .with_context(|| format!("port {port}"))?;
    }
    Ok(())
}

fn published_ports_are_reached_from_containers(on: &Subject) -> anyhow::Result<()> {
    let port = free_port()?;
    on.docker.run("network create --subnet 10.222.0.0/24 elsewhere")?.ok()?;
    on.docker.sh(&format!("run -d --name web -p {port}:80 busybox"), SERVER)?.ok()?;
    page(on, local(port))?;
    let gateway = on.docker.inspect("web", "{{.NetworkSettings.Networks.bridge.Gateway}}")?;
    let ask =
        |address: &str| format!("printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port}");
    // Its own port, a neighbour's, and that of another network.
    on.docker.args(&["exec", "web", "sh", "-c", &ask(&gateway)])?.ok()?.shows("hello")?;
    on.docker.sh("run --rm busybox", &ask(&gateway))?.ok()?.shows("hello")?;
    on.docker.sh("run --rm --network elsewhere busybox", &ask("10.222.0.1"))?.ok()?.shows("hello")?;
    Ok(())
}

fn sctp_is_refused_in_clear_words(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run("run --rm -p 127.0.0.1::80/sctp busybox true")?
        .exits(125)?
        .complains("SCTP ports can't be published, only TCP and UDP ports")?;
    Ok(())
}
