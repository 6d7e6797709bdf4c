//! Questions that are not about containers go to somebody who knows more.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long an answer over UDP is waited for before the question is sent again: datagrams get lost.
const AGAIN: Duration = Duration::from_secs(2);
const DOMAIN: u16 = 53;
const LARGEST: usize = 65_535;

/// Answers questions about the world.
#[async_trait]
pub trait Forwarder: Send + Sync {
    /// Asks `servers` (those of the machine when there are none) and returns the answer's message.
    ///
    /// `stream` is set when the client asked over TCP, so that the answer may be of any size.
    async fn ask(&self, question: &[u8], servers: &[IpAddr], stream: bool) -> io::Result<Vec<u8>>;
}

/// Asks the name servers of this machine, as its `resolv.conf` names them at that moment.
#[derive(Debug)]
pub struct LocalForwarder {
    resolv_conf: PathBuf,
    known: NameServers,
}

impl LocalForwarder {
    /// Names the file.
    #[must_use]
    pub fn new(resolv_conf: PathBuf) -> Self {
        Self { resolv_conf, known: NameServers::default() }
    }

    fn servers(&self) -> Vec<IpAddr> {
        let text = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
        });
        // resolv.conf(5): up to three.
        lines.take(3).collect()
    }
}

#[async_trait]
impl Forwarder for LocalForwarder {
    async fn ask(&self, question: &[u8], servers: &[IpAddr], stream: bool) -> io::Result<Vec<u8>> {
        if servers.is_empty() {
            return self.known.ask(question, &self.servers(), stream).await;
        }
        self.known.ask(question, servers, stream).await
    }
}

/// Asks name servers, and remembers which of them were silent.
#[derive(Debug, Default)]
pub struct NameServers(skiff_dns::Servers);

impl NameServers {
    /// Asks one name server after the other, over UDP or (`stream`) TCP, until one knows.
    ///
    /// # Errors
    /// When none answers. A server that failed to find out is the answer only if no other one does better.
    pub async fn ask(&self, question: &[u8], servers: &[IpAddr], stream: bool) -> io::Result<Vec<u8>> {
        let servers: Vec<_> = servers.iter().map(|ip| SocketAddr::new(*ip, DOMAIN)).collect();
        let ask = |server| {
            let question = question.to_vec();
            async move {
                if stream {
                    over_stream(server, &question).await
                } else {
                    over_datagrams(server, &question).await
                }
            }
        };
        self.0.ask(&servers, ask).await
    }
}

/// Asks over UDP; only a message with the question's number is its answer.
async fn over_datagrams(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // A port of its own for every question is what keeps others from answering it.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let Ok(received) = timeout(AGAIN, socket.recv(&mut buffer)).await else {
            socket.send(question).await?;
            continue;
        };
        let length = received?;
        if length >= 12 && buffer[..2] == question[..2] && buffer[2] & 0x80 != 0 {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_stream(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, question).await?;
    read_message(&mut stream).await
}

/// Reads one message with its length before it (RFC 1035, 4.2.2).
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message with its length before it.
pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::other("message is too long"))?;
    let mut bytes = Vec::with_capacity(message.len() + 2);
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    stream.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_library_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, "# x\nnameserver 10.0.0.1\nnameserver\nnameserver ::1\nsearch a\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n").unwrap();
        let found = LocalForwarder::new(path).servers();
        let expected: Vec<IpAddr> = ["10.0.0.1", "::1", "1.1.1.1"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(found, expected);
        assert!(LocalForwarder::new("/nonexistent".into()).servers().is_empty());
    }

    #[tokio::test]
    async fn a_question_that_got_lost_is_asked_again() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            for round in 0..2 {
                let (_, from) = server.recv_from(&mut buffer).await.unwrap();
                let answer = [0, 7, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                if round > 0 {
                    server.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let question = [0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(over_datagrams(address, &question).await.unwrap()[1], 7);
    }

    #[tokio::test]
    async fn an_answer_to_another_question_is_passed_over() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            let (_, from) = server.recv_from(&mut buffer).await.unwrap();
            let mut answer = [0; 12];
            answer[2] = 0x80;
            answer[1] = 9;
            server.send_to(&answer, from).await.unwrap();
            answer[1] = 7;
            server.send_to(&answer, from).await.unwrap();
        });
        let mut question = [0; 12];
        question[1] = 7;
        assert_eq!(over_datagrams(address, &question).await.unwrap()[1], 7);
    }
}
