//! As much HTTP/1.1 as tests need to talk to a registry or a web server on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header names (lower case) and values.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request over TCP on a connection of its own.
pub fn request(
    method: &str,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Response> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let own = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = own.map_or_else(|| address.to_string(), |(_, host)| (*host).to_owned());
    let rest: Vec<_> =
        headers.iter().copied().filter(|(name, _)| !name.eq_ignore_ascii_case("host")).collect();
    exchange(stream, method, &host, path, &rest, body)
        .with_context(|| format!("{method} http://{address}{path}"))
}

/// Fetches a page over TCP.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<Response> {
    request("GET", address, path, &[], &[])
}

/// Sends one request over a unix socket.
pub fn unix_request(method: &str, socket: &Path, path: &str, body: &[u8]) -> anyhow::Result<Response> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let headers = [("Content-Type", "application/json")];
    exchange(stream, method, "docker", path, &headers, body).with_context(|| format!("{method} {path}"))
}

fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Response> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).context("send the head")?;
    stream.write_all(body).context("send the body")?;

    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).context("read the status line")?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("status line {line:?}"))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).context("read the headers")?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok(response);
    }
    let body = &mut response.body;
    if response.headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).context("read a chunk's size")?;
            let size =
                usize::from_str_radix(size.trim(), 16).with_context(|| format!("chunk size {size:?}"))?;
            let start = body.len();
            body.resize(start + size, 0);
            reader.read_exact(&mut body[start..]).context("read a chunk")?;
            reader.read_line(&mut String::new()).context("read a chunk's end")?;
            if size == 0 {
                break;
            }
        }
    } else if let Some((_, length)) = response.headers.iter().find(|(name, _)| name == "content-length") {
        body.resize(length.parse().context("content length")?, 0);
        reader.read_exact(body).context("read the body")?;
    } else if reader.read_to_end(body).is_err() {
        bail!("the body broke off");
    }
    Ok(response)
}
