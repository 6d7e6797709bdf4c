//! The `control` service: JSON lines, one answer per request. The host's half is `machine::control`.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use skiff_link::BoxStream;
use skiff_listeners::Transport;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::sleep::Sleeper;
use crate::held::Held;
use crate::layout::GUEST_HELD;
use crate::ssh::AuthorizedKeys;

/// The longest request line in bytes.
const LINE_LIMIT: u64 = 64 << 10;
/// Listeners that are told of one container: the answer is bounded at the other end.
const MOST_LISTENERS: usize = 256;

/// What requests act on.
pub struct Context<'a> {
    /// The engine's root.
    pub root: &'a Path,
    /// The engine's Docker socket.
    pub docker_socket: &'a Path,
    /// Who may log in.
    pub keys: &'a AuthorizedKeys,
    /// Whether the machine is ours: the clock of a plain host is not.
    pub in_guest: bool,
    /// Lets the guest sleep.
    pub sleeper: &'a Arc<Sleeper>,
}

/// Serves one control stream to its end.
pub async fn serve(stream: BoxStream, context: &Context<'_>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        (&mut stream).take(LINE_LIMIT).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        let answer = match answer(&line, context).await {
            Ok(value) => value,
            Err(error) => json!({"error": format!("{error:#}")}),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        stream.write_all(&text).await?;
        stream.flush().await?;
    }
}

async fn answer(line: &[u8], context: &Context<'_>) -> anyhow::Result<Value> {
    let request: Value = serde_json::from_slice(line).context("parse the request")?;
    match request["op"].as_str() {
        Some("hello") => hello(),
        Some("time") => {
            let unix_ns = request["unix_ns"].as_u64().context("unix_ns is missing")?;
            if context.in_guest {
                set_clock(unix_ns)?;
            }
            Ok(json!({}))
        }
        Some("sleep") => {
            if !context.in_guest {
                bail!("this host is not ours to put to sleep");
            }
            context.sleeper.sleep().await?;
            Ok(json!({}))
        }
        Some("wake") => {
            let unix_ns = request["unix_ns"].as_u64().context("unix_ns is missing")?;
            let seed = hex::decode(request["seed"].as_str().context("seed is missing")?)?;
            if context.in_guest {
                let clock = set_clock(unix_ns);
                // Whatever fails, containers go on.
                let stirred = context.sleeper.wake(&seed);
                let held = Held::at(GUEST_HELD.as_ref());
                tokio::task::spawn_blocking(move || held.end()).await??;
                stirred.and(clock)?;
            }
            Ok(json!({}))
        }
        Some("template") => {
            if !context.in_guest {
                bail!("this host is not ours to save");
            }
            Held::at(GUEST_HELD.as_ref()).ready().await?;
            Ok(json!({}))
        }
        Some("authorize") => {
            context.keys.add(request["key"].as_str().context("key is missing")?)?;
            Ok(json!({}))
        }
        Some("status") => {
            let (running, paused) = count_containers(context.docker_socket).await?;
            Ok(json!({"containers_running": running, "containers_paused": paused, "connections": 0}))
        }
        Some("listeners") => {
            let container = request["container"].as_str().context("container is missing")?;
            Ok(json!({"listeners": listeners(context.docker_socket, container).await?}))
        }
        Some("trim") => {
            let root = std::fs::File::open(context.root)?;
            let bytes =
                tokio::task::spawn_blocking(move || skiff_linux_sys::ext4::trim(root.as_fd())).await??;
            Ok(json!({"trimmed_bytes": bytes}))
        }
        Some("shutdown") => {
            // The supervisor is our parent: it stops the containers, then everything else.
            let supervisor = rustix::process::getppid().context("the supervisor has gone")?;
            rustix::process::kill_process(supervisor, rustix::process::Signal::TERM)?;
            Ok(json!({}))
        }
        Some(other) => bail!("unknown request {other}"),
        None => bail!("the request has no op"),
    }
}

fn hello() -> anyhow::Result<Value> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime.split_whitespace().next().context("/proc/uptime is empty")?.parse()?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let held = Held::at(GUEST_HELD.as_ref()).holds();
    Ok(json!({"version": env!("CARGO_PKG_VERSION"), "kernel": kernel, "uptime": uptime, "held": held}))
}

fn set_clock(unix_ns: u64) -> anyhow::Result<()> {
    let time = rustix::time::Timespec {
        tv_sec: i64::try_from(unix_ns / 1_000_000_000)?,
        tv_nsec: i64::try_from(unix_ns % 1_000_000_000)?,
    };
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, time).context("set the clock")
}

/// Asks the engine by its own API how many containers are not at rest, and how many of those are paused. The idle policy of the host stands on it, so an
/// engine that does not answer counts as busy.
async fn count_containers(socket: &Path) -> anyhow::Result<(usize, usize)> {
    let filter = "%7B%22status%22%3A%5B%22running%22%2C%22paused%22%2C%22restarting%22%5D%7D";
    let body = ask_engine(socket, &format!("/containers/json?filters={filter}")).await?;
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Container {
        #[serde(default)]
        state: String,
    }
    let containers: Vec<Container> = serde_json::from_slice(&body).context("no list of containers")?;
    let paused = containers.iter().filter(|container| container.state == "paused").count();
    Ok((containers.len(), paused))
}

/// The sockets that wait inside a container, tcp first.
async fn listeners(socket: &Path, container: &str) -> anyhow::Result<Vec<Value>> {
    if container.is_empty()
        || !container.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    {
        bail!("{container:?} is no name of a container");
    }
    let body = ask_engine(socket, &format!("/containers/{container}/json")).await?;
    let inspection: Value = serde_json::from_slice(&body).context("no container")?;
    let pid =
        inspection["State"]["Pid"].as_u64().filter(|pid| *pid > 0).context("the container does not run")?;
    let process = Path::new("/proc").join(pid.to_string());
    let mut all = Vec::new();
    for (transport, name) in [(Transport::Tcp, "tcp"), (Transport::Udp, "udp")] {
        // The engine's resolver is nobody's business but the engine's.
        let own = skiff_listeners::of_process(&process, transport).into_iter();
        let own = own.filter(|listener| listener.address.ip() != std::net::Ipv4Addr::new(127, 0, 0, 11));
        all.extend(own.map(|listener| json!({"transport": name, "address": listener.address})));
    }
    all.truncate(MOST_LISTENERS);
    Ok(all)
}

/// The body of an answer of the engine's.
async fn ask_engine(socket: &Path, path: &str) -> anyhow::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: skiff\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no HTTP answer")? + 4;
        anyhow::Ok(answer.split_off(body))
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.context("the engine does not answer")?
}
