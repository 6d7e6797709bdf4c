//! The `control` service: JSON lines, one answer per request. The host's half is `machine::control`.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use skiff_link::BoxStream;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::ssh::AuthorizedKeys;

/// The longest request line in bytes.
const LINE_LIMIT: u64 = 64 << 10;

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
        Some("authorize") => {
            context.keys.add(request["key"].as_str().context("key is missing")?)?;
            Ok(json!({}))
        }
        Some("status") => {
            let (containers_running, connections) = count_containers(context.docker_socket).await?;
            Ok(json!({"containers_running": containers_running, "connections": connections}))
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
    Ok(json!({"version": env!("CARGO_PKG_VERSION"), "kernel": kernel, "uptime": uptime}))
}

fn set_clock(unix_ns: u64) -> anyhow::Result<()> {
    let time = rustix::time::Timespec {
        tv_sec: i64::try_from(unix_ns / 1_000_000_000)?,
        tv_nsec: i64::try_from(unix_ns % 1_000_000_000)?,
    };
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, time).context("set the clock")
}

/// Asks the engine by its own API how many containers are not at rest. The idle policy of the host stands on it, so an
/// engine that does not answer counts as busy.
async fn count_containers(socket: &Path) -> anyhow::Result<(usize, usize)> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        let filter = "%7B%22status%22%3A%5B%22running%22%2C%22paused%22%2C%22restarting%22%5D%7D";
        let request = format!("GET /containers/json?filters={filter} HTTP/1.0\r\nHost: skiff\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no HTTP answer")? + 4;
        let containers: Vec<serde::de::IgnoredAny> =
            serde_json::from_slice(&answer[body..]).context("no list of containers")?;
        anyhow::Ok((containers.len(), 0))
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.context("the engine does not answer")?
}
