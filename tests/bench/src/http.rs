//! The least HTTP that times an API: one keep-alive connection on a unix socket, so that no client library is measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// A connection to a Docker socket.
pub struct Api {
    stream: BufReader<UnixStream>,
}

impl Api {
    /// Connects.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Connects and pings until that works.
    pub fn wait(socket: &Path, limit: Duration) -> anyhow::Result<Self> {
        let deadline = Instant::now() + limit;
        loop {
            let tried =
                Self::connect(socket).and_then(|mut api| api.call("GET", "/_ping", None).map(|_| api));
            match tried {
                Ok(api) => return Ok(api),
                Err(error) if Instant::now() > deadline => return Err(error.context("no answer to /_ping")),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Makes one call; the answer's body as JSON, or `Null` when it is none. Fails for statuses from 400 on.
    pub fn call(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.bytes(method, path, body)?).unwrap_or(Value::Null))
    }

    /// Makes one call whose answer is only counted, not read: that would be timed too.
    pub fn bytes(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> anyhow::Result<Vec<u8>> {
        let body = body.unwrap_or_default();
        let kind = if path.starts_with("/images/load") { "application/x-tar" } else { "application/json" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;

        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status: u16 = line.split_whitespace().nth(1).context("no status line")?.parse()?;
        let (mut length, mut chunked) = (0usize, false);
        loop {
            let mut header = String::new();
            self.stream.read_line(&mut header)?;
            let header = header.trim_end().to_ascii_lowercase();
            match header.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse()?,
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
            }
        }
        let mut answer = vec![0; length];
        if chunked {
            loop {
                let mut size = String::new();
                self.stream.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16).context("chunk size")?;
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk)?;
                if size == 0 {
                    break;
                }
                answer.extend_from_slice(&chunk[..size]);
            }
        } else if status != 204 && status != 304 {
            self.stream.read_exact(&mut answer)?;
        }
        if status >= 400 {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer).trim());
        }
        Ok(answer)
    }

    /// Creates, starts, awaits and removes a container that runs `true`.
    pub fn run_true(&mut self, image: &str) -> anyhow::Result<Duration> {
        let body = serde_json::json!({"Image": image, "Cmd": ["true"]}).to_string();
        let started = Instant::now();
        let created = self.call("POST", "/containers/create", Some(body.as_bytes()))?;
        let id = created["Id"].as_str().context("no container id")?.to_owned();
        self.call("POST", &format!("/containers/{id}/start"), None)?;
        let waited = self.call("POST", &format!("/containers/{id}/wait"), None)?;
        self.call("DELETE", &format!("/containers/{id}"), None)?;
        let took = started.elapsed();
        if waited["StatusCode"] != 0 {
            bail!("the container ended with {waited}");
        }
        Ok(took)
    }
}
