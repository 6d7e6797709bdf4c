//! An engine and its containers: the client in one, the server in another.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use super::traffic::{self, Figures, processor};
use super::world::{self, World};
use super::{Measured, WAYS};
use crate::boot::qemu_of;
use crate::guest::copy_libraries;
use crate::http::Api;
use crate::peer::IMAGE;
use crate::process::{Running, guest_image, program};

/// This program in containers.
const CLIENT: &str = "/bench/client";
const PORT: u16 = 4711;

/// A guest of ours under a daemon of its own.
pub struct Guest {
    /// The Docker socket.
    pub socket: PathBuf,
    state: PathBuf,
    _daemon: Running,
}

impl Guest {
    /// Boots it.
    pub fn boot(directory: &Path) -> anyhow::Result<Self> {
        let (state, socket) = (directory.join("state"), directory.join("docker.sock"));
        let mut daemon = Command::new(program("skiff")?);
        daemon.args(["daemon", "--backend", "qemu", "--state"]).arg(&state).arg("--socket").arg(&socket);
        daemon.env("SKIFF_GUEST_IMAGE", guest_image()?);
        daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = Running(daemon.spawn()?);
        Api::wait(&socket, Duration::from_secs(180))?;
        Ok(Self { socket, state, _daemon: daemon })
    }

    /// QEMU's arguments.
    pub fn qemu(&self) -> anyhow::Result<Vec<String>> {
        qemu_of(&self.state)
    }
}

/// An engine under measurement.
pub struct Engine {
    name: String,
    socket: PathBuf,
    /// What its processes have in their command lines.
    marks: Vec<String>,
    /// The host as its containers know it, if it is not their gateway.
    host: Option<String>,
}

impl Engine {
    pub fn new(name: String, socket: PathBuf, mut marks: Vec<String>, host: Option<String>) -> Self {
        marks.push(CLIENT.to_owned());
        Self { name, socket, marks, host }
    }

    /// Measures all ways; `here` is the port of a server on this host.
    pub fn measure(self, world: &World, here: u16) -> anyhow::Result<Measured> {
        let mut api = Api::connect(&self.socket)?;
        let published = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let key = format!("{PORT}/tcp");
        let server = self.start(
            &mut api,
            json!({
                "Image": IMAGE,
                "Cmd": [CLIENT, "serve", format!("0.0.0.0:{PORT}")],
                "ExposedPorts": { &key: {} },
                "HostConfig": { "PortBindings": {
                    &key: [{ "HostIp": "127.0.0.1", "HostPort": published.to_string() }]
                } },
            }),
        )?;
        let client = self.start(&mut api, json!({ "Image": IMAGE, "Cmd": ["sleep", "3600"] }))?;
        let look = api.call("GET", &format!("/containers/{server}/json"), None)?;
        let network = &look["NetworkSettings"]["Networks"]["bridge"];
        let ip = network["IPAddress"].as_str().context("the server has an address")?;
        let gateway = network["Gateway"].as_str().context("the network has a gateway")?;
        let host = self.host.as_deref().unwrap_or(gateway);
        let mut marks = self.marks.clone();
        marks.push(world.mark());
        let used = || processor(&marks);

        let tell = |way: usize, figures: &Figures| eprintln!("  … {}, {}: {figures}", self.name, WAYS[way]);
        let mut from_host = Figures::default();
        traffic::client(&format!("127.0.0.1:{published}"), &mut |line| from_host.take(line, &used).map(drop))
            .context(WAYS[0])?;
        tell(0, &from_host);
        let mut ways = [Some(from_host), None, None, None];
        let targets = [format!("{host}:{here}"), world::SERVER.to_owned(), format!("{ip}:{PORT}")];
        for (way, to) in targets.iter().enumerate() {
            let figures = self.run(&mut api, &client, to, &used).context(WAYS[way + 1])?;
            tell(way + 1, &figures);
            ways[way + 1] = Some(figures);
        }
        for id in [server, client] {
            api.call("DELETE", &format!("/containers/{id}?force=1&v=1"), None)?;
        }
        Ok(Measured { name: self.name, ways })
    }

    /// Starts a container with this program in it.
    fn start(&self, api: &mut Api, body: serde_json::Value) -> anyhow::Result<String> {
        let created = api.call("POST", "/containers/create", Some(body.to_string().as_bytes()))?;
        let id = created["Id"].as_str().context("the container has an id")?.to_owned();
        api.call("PUT", &format!("/containers/{id}/archive?path=/"), Some(&packed()?))?;
        api.call("POST", &format!("/containers/{id}/start"), None)?;
        Ok(id)
    }

    /// Runs the client in a container.
    fn run(&self, api: &mut Api, id: &str, to: &str, used: &dyn Fn() -> Duration) -> anyhow::Result<Figures> {
        let body =
            json!({ "Cmd": [CLIENT, "client", to], "AttachStdout": true, "AttachStderr": true, "Tty": true });
        let exec = api.call("POST", &format!("/containers/{id}/exec"), Some(body.to_string().as_bytes()))?;
        let exec = exec["Id"].as_str().context("no exec id")?.to_owned();
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(300)))?;
        let body = json!({ "Detach": false, "Tty": true }).to_string();
        write!(
            stream,
            "POST /exec/{exec}/start HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nConnection: \
             Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let (mut figures, mut said) = (Figures::default(), String::new());
        for line in BufReader::new(stream).lines() {
            let line = line?;
            if figures.take(&line, used)? {
                return Ok(figures);
            }
            said = line;
        }
        ensure!(false, "the client did not finish: {said}");
        Ok(figures)
    }
}

/// This program with its libraries, as an archive.
fn packed() -> anyhow::Result<Vec<u8>> {
    let stage = tempfile::tempdir()?;
    let own = std::env::current_exe().context("this program has a path")?;
    let target = stage.path().join(CLIENT.trim_start_matches('/'));
    std::fs::create_dir_all(target.parent().context("it is in a directory")?)?;
    std::fs::copy(&own, &target)?;
    copy_libraries(&own, stage.path())?;
    let packed = Command::new("tar").arg("-C").arg(stage.path()).args(["-chf", "-", "."]).output()?;
    ensure!(packed.status.success(), "tar: {}", String::from_utf8_lossy(&packed.stderr).trim());
    Ok(packed.stdout)
}
