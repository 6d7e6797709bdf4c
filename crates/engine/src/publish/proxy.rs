//! Published ports in user space: every connection and every flow gets a socket of its own towards the container.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// Connections of one port.
const MOST_CONNECTIONS: usize = 8192;
/// Flows of one port.
const MOST_FLOWS: usize = 4096;
/// Bytes under way in each direction of a connection.
const BUFFER: usize = 16 * 1024;
/// How long a flow of datagrams may be silent, as with Docker's own proxy.
const SILENCE: Duration = Duration::from_secs(90);
/// How long a container may take to accept.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
const LARGEST: usize = 65_535;

/// Accepts connections and carries them to the container; they end with this.
pub(super) async fn connections(listener: TcpListener, target: SocketAddr) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(_) = tasks.join_next() => {}
            }
        };
        match accepted {
            Ok((client, _)) => {
                tasks.spawn(async move {
                    connection(client, target).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept on a published port");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A connection that breaks concerns its two ends only: a reset of one resets the other, and a container that refuses
/// resets its client, which has been accepted before the container could be asked.
async fn connection(mut client: TcpStream, target: SocketAddr) {
    let Ok(Ok(mut inner)) = timeout(CONNECT_DEADLINE, TcpStream::connect(target)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), inner.set_nodelay(true));
    let copied = copy_bidirectional_with_sizes(&mut client, &mut inner, BUFFER, BUFFER).await;
    if copied.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset) {
        let _ = (client.set_zero_linger(), inner.set_zero_linger());
    }
}

/// Carries datagrams: each client address gets a socket of its own towards the container, dropped after a silence.
pub(super) async fn datagrams(socket: Arc<UdpSocket>, target: SocketAddr) {
    let mut clients: HashMap<SocketAddr, (Arc<UdpSocket>, Answers)> = HashMap::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let is_known = clients.get(&from).is_some_and(|(_, answers)| !answers.0.is_finished());
        if !is_known {
            clients.retain(|_, (_, answers)| !answers.0.is_finished());
            if clients.len() >= MOST_FLOWS {
                continue;
            }
            let Ok(inner) = flow(target).await else { continue };
            let inner = Arc::new(inner);
            let answers = Answers(tokio::spawn(answers(Arc::clone(&inner), Arc::clone(&socket), from)));
            clients.insert(from, (inner, answers));
        }
        if let Some((inner, _)) = clients.get(&from) {
            // "Nobody listens" of an earlier datagram is told here: it concerns that one.
            let _ = inner.send(&buffer[..length]).await;
        }
    }
}

/// The task of one flow; it ends with the port.
struct Answers(JoinHandle<()>);

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn flow(target: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}

async fn answers(inner: Arc<UdpSocket>, socket: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; LARGEST];
    while let Ok(received) = timeout(SILENCE, inner.recv(&mut buffer)).await {
        if let Ok(length) = received {
            let _ = socket.send_to(&buffer[..length], client).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn local() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[tokio::test]
    async fn a_half_close_and_a_refusal_are_passed_on() {
        let server = TcpListener::bind(local()).await.unwrap();
        let target = server.local_addr().unwrap();
        let listener = TcpListener::bind(local()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = tokio::spawn(connections(listener, target));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        let mut text = String::new();
        accepted.read_to_string(&mut text).await.unwrap();
        accepted.write_all(b"answer").await.unwrap();
        drop(accepted);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!((text.as_str(), answer.as_str()), ("question", "answer"));

        drop(server);
        let mut client = TcpStream::connect(address).await.unwrap();
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        port.abort();
    }

    #[tokio::test]
    async fn datagrams_cross_from_one_family_to_the_other() {
        let server = UdpSocket::bind(local()).await.unwrap();
        let target = server.local_addr().unwrap();
        let socket = Arc::new(UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap());
        let address = socket.local_addr().unwrap();
        let port = tokio::spawn(datagrams(socket, target));
        for number in 0..5u8 {
            let client = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
            client.connect(address).await.unwrap();
            client.send(&[number]).await.unwrap();
            let mut buffer = [0; 4];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(&buffer[..length], from).await.unwrap();
            assert_eq!(client.recv(&mut buffer).await.unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
        port.abort();
    }
}
