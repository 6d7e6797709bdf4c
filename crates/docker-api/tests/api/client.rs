//! A client that sees every byte.

use std::sync::Arc;
use std::time::Duration;

use skiff_docker_api::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::fake::Fake;

/// An answer taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// The `message` of an error.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Opens a connection to a server with this backend.
pub fn connect(fake: &Arc<Fake>) -> UnixStream {
    let (client, server) = UnixStream::pair().unwrap();
    tokio::spawn(Server::new(fake.clone(), "28.5.2").serve_connection(server));
    client
}

/// Sends one request on a connection of its own.
pub async fn request(fake: &Arc<Fake>, method: &str, target: &str, json: Option<&str>) -> Answer {
    let body = json.unwrap_or_default();
    let kind = if json.is_some() { "Content-Type: application/json\r\n" } else { "" };
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: docker\r\n{kind}Content-Length: {}\r\n", body.len());
    raw(fake, &format!("{head}Connection: close\r\n\r\n{body}")).await
}

pub async fn get(fake: &Arc<Fake>, target: &str) -> Answer {
    request(fake, "GET", target, None).await
}

pub async fn post(fake: &Arc<Fake>, target: &str) -> Answer {
    request(fake, "POST", target, None).await
}

pub async fn delete(fake: &Arc<Fake>, target: &str) -> Answer {
    request(fake, "DELETE", target, None).await
}

/// Sends these bytes and reads all that comes.
pub async fn raw(fake: &Arc<Fake>, bytes: &str) -> Answer {
    let mut stream = connect(fake);
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    within(stream.read_to_end(&mut all)).await.unwrap();
    parse(all)
}

pub fn parse(all: Vec<u8>) -> Answer {
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head") + 4;
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let status = head[9..12].parse().unwrap();
    let mut body = all[end..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = dechunk(&body);
    }
    Answer { status, head, body }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").expect("a chunk has a size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
}

/// Reads up to the end of an answer's head.
pub async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.expect("the head is complete"));
    }
    String::from_utf8(head).unwrap()
}

/// Fails instead of hanging.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("this takes no ten seconds")
}
