//! Published ports: our engine on this host beside dockerd, and the guest beside the least that its link carries.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::http::Api;
use crate::peer::{IMAGE, Peer};
use crate::process::{Running, guest_image, program};
use crate::sample::Sample;

const ROUNDS: usize = 2000;
const CONNECTIONS: usize = 300;
/// How long bytes are counted.
const STREAM: Duration = Duration::from_secs(2);
/// Ports of the container: an echo, a source of bytes, and a sink for them.
const PORTS: [u16; 3] = [7, 19, 9];
const SERVERS: &str = "nc -ll -p 19 -e yes & nc -ll -p 9 -e sink & exec nc -ll -p 7 -e cat";

/// What one engine came to.
struct Figures {
    name: String,
    /// The round trip of one byte through a published port, and without one.
    published: Sample,
    bare: Sample,
    /// Connection, one byte and its echo.
    connect: Sample,
    /// Megabytes per second out of the container and into it.
    out: f64,
    into: f64,
}

/// Prints the figures.
pub fn bench() -> anyhow::Result<()> {
    let ours = Peer::skiff()?;
    let mut all = vec![ours.inside(|| native(&ours))?];
    drop(ours);
    if let Some(dockerd) = Peer::dockerd()? {
        all.push(dockerd.inside(|| native(&dockerd))?);
    }
    all.push(guest()?);
    println!("ports: published on loopback");
    for figures in &all {
        println!("  {}", figures.name);
        println!("    round trip        {}", figures.published);
        println!("    bare round trip   {}", figures.bare);
        println!("    ratio to bare     {:8.2}", figures.published.ratio(&figures.bare));
        println!("    connect + echo    {}", figures.connect);
        println!("    out of it         {:8.1} MB/s", figures.out);
        println!("    into it           {:8.1} MB/s", figures.into);
    }
    println!("  goal: in the guest the round trip ≤ 1.30 of the bare one");
    Ok(())
}

/// An engine on this host: bare is the container's own address, over the bridge.
fn native(peer: &Peer) -> anyhow::Result<Figures> {
    let mut api = peer.api()?;
    let server = Server::start(&mut api)?;
    let bare = SocketAddr::new(server.ip.parse().context("the container's address")?, PORTS[0]);
    let figures = measure(peer.name.clone(), &server, || Ok(Box::new(connect(bare)?)))?;
    server.remove(&mut api)?;
    Ok(figures)
}

/// The guest: bare is the same link with an exec of `cat` at its end.
fn guest() -> anyhow::Result<Figures> {
    let directory = tempfile::tempdir()?;
    let (state, socket) = (directory.path().join("state"), directory.path().join("docker.sock"));
    let mut daemon = Command::new(program("skiff")?);
    daemon.args(["daemon", "--backend", "qemu", "--state"]).arg(&state).arg("--socket").arg(&socket);
    daemon.env("SKIFF_GUEST_IMAGE", guest_image()?);
    let _daemon = Running(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let mut api = Api::wait(&socket, Duration::from_secs(120))?;
    let server = Server::start(&mut api)?;
    let id = server.id.clone();
    let figures =
        measure("skiff, guest in QEMU".to_owned(), &server, || Ok(Box::new(attach(&socket, &id)?)))?;
    server.remove(&mut api)?;
    Ok(figures)
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

fn measure(
    name: String,
    server: &Server,
    bare: impl FnOnce() -> anyhow::Result<Box<dyn Connection>>,
) -> anyhow::Result<Figures> {
    let [echo, source, sink] = server.ports;
    let published = round_trips(&mut connect(local(echo))?)?;
    let bare = round_trips(&mut *bare()?)?;
    let mut made = Sample::default();
    for _ in 0..CONNECTIONS {
        let started = Instant::now();
        let mut stream = connect(local(echo))?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        made.push(started.elapsed());
    }
    let out = {
        let mut stream = connect(local(source))?;
        let mut buffer = vec![0; 256 << 10];
        throughput(|| Ok(stream.read(&mut buffer)?))?
    };
    let into = {
        let mut stream = connect(local(sink))?;
        let buffer = vec![7; 256 << 10];
        throughput(|| Ok(stream.write(&buffer)?))?
    };
    Ok(Figures { name, published, bare, connect: made, out, into })
}

fn round_trips(stream: &mut dyn Connection) -> anyhow::Result<Sample> {
    let mut sample = Sample::default();
    for round in 0..ROUNDS + 50 {
        let started = Instant::now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        if round >= 50 {
            sample.push(started.elapsed());
        }
    }
    Ok(sample)
}

/// Megabytes per second that a step moves.
fn throughput(mut step: impl FnMut() -> anyhow::Result<usize>) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut bytes = 0;
    while started.elapsed() < STREAM {
        match step()? {
            0 => bail!("the connection ended"),
            moved => bytes += moved,
        }
    }
    Ok(bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}

/// A container with the three servers.
struct Server {
    id: String,
    ip: String,
    /// Where its ports are on the host.
    ports: [u16; 3],
}

impl Server {
    fn start(api: &mut Api) -> anyhow::Result<Self> {
        let mut ports = [0; 3];
        for port in &mut ports {
            *port = TcpListener::bind(local(0))?.local_addr()?.port();
        }
        let key = |at: usize| format!("{}/tcp", PORTS[at]);
        let binding = |at: usize| json!([{ "HostIp": "127.0.0.1", "HostPort": ports[at].to_string() }]);
        let exposed = json!({ key(0): {}, key(1): {}, key(2): {} });
        let bindings = json!({ key(0): binding(0), key(1): binding(1), key(2): binding(2) });
        // A sink that closes with its client.
        let script =
            format!("printf '#!/bin/sh\\nexec cat >/dev/null\\n' > /bin/sink; chmod +x /bin/sink; {SERVERS}");
        let body = json!({
            "Image": IMAGE, "Cmd": ["sh", "-c", script], "ExposedPorts": exposed, "OpenStdin": true,
            "HostConfig": { "PortBindings": bindings },
        })
        .to_string();
        let created = api.call("POST", "/containers/create", Some(body.as_bytes()))?;
        let id = created["Id"].as_str().context("no container id")?.to_owned();
        api.call("POST", &format!("/containers/{id}/start"), None)?;
        let inspected = api.call("GET", &format!("/containers/{id}/json"), None)?;
        let ip = inspected["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().unwrap_or_default();
        let server = Self { id, ip: ip.to_owned(), ports };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !server.answers() {
            ensure!(Instant::now() < deadline, "the servers do not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn answers(&self) -> bool {
        let echo = || -> anyhow::Result<()> {
            let mut stream = connect(local(self.ports[0]))?;
            stream.write_all(b"x")?;
            Ok(stream.read_exact(&mut [0])?)
        };
        echo().is_ok()
    }

    fn remove(self, api: &mut Api) -> anyhow::Result<()> {
        api.call("DELETE", &format!("/containers/{}?force=1", self.id), None).map(drop)
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// A process that echoes over the Docker socket: the same link, with an exec at its end instead of a port.
fn attach(socket: &Path, id: &str) -> anyhow::Result<Raw> {
    let mut api = Api::connect(socket)?;
    let body = json!({ "Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true, "Tty": false }).to_string();
    let exec = api.call("POST", &format!("/containers/{id}/exec"), Some(body.as_bytes()))?;
    let exec = exec["Id"].as_str().context("no exec id")?.to_owned();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let body = json!({ "Detach": false, "Tty": false }).to_string();
    write!(
        stream,
        "POST /exec/{exec}/start HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nConnection: \
         Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&head));
    Ok(Raw(stream))
}

/// A multiplexed stream of one byte at a time: the heads of its frames are left out.
struct Raw(UnixStream);

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut head = [0; 8];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let length = length.min(buffer.len());
        self.0.read_exact(&mut buffer[..length])?;
        Ok(length)
    }
}

impl Write for Raw {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
