//! Published ports: who binds the host's addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP; known by name, not published.
    Sctp,
}

impl Protocol {
    /// The name that follows a port's slash.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A wish for one published port.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The host address to bind.
    pub host_ip: IpAddr,
    /// The host port; 0 for any free one.
    pub host_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The container's name, for messages.
    pub container: String,
    /// Where connections go.
    pub target: SocketAddr,
}

/// Why a port could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody else has the address.
    #[error("{message}")]
    AddressInUse {
        /// Who or why, in words that can follow the address.
        message: String,
    },
    /// The user may not bind it.
    #[error("{message}")]
    PermissionDenied {
        /// Why.
        message: String,
    },
    /// Anything else.
    #[error("{message}")]
    Failed {
        /// Why.
        message: String,
    },
}

/// A bound port. Dropping it releases the address.
pub trait PublishedPort: Send + Sync {
    /// The port that was bound, which tells the outcome of a request for any free one.
    fn host_port(&self) -> u16;
}

/// Binds host addresses and carries their connections to containers.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Binds one address.
    async fn publish(&self, request: PublishRequest) -> Result<Box<dyn PublishedPort>, PublishError>;
}

/// Binds on this machine itself and copies in user space: the engine runs where its users are.
#[derive(Debug, Default)]
pub struct LocalPublisher;

struct LocalPort {
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for LocalPort {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PublishedPort for LocalPort {
    fn host_port(&self) -> u16 {
        self.port
    }
}

#[async_trait]
impl Publisher for LocalPublisher {
    async fn publish(&self, request: PublishRequest) -> Result<Box<dyn PublishedPort>, PublishError> {
        let address = SocketAddr::new(request.host_ip, request.host_port);
        let (port, task) = match request.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(address).await.map_err(|error| refusal(&error))?;
                let port = listener.local_addr().map_err(|error| refusal(&error))?.port();
                (port, tokio::spawn(accept(listener, request.target)))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(address).await.map_err(|error| refusal(&error))?;
                let port = socket.local_addr().map_err(|error| refusal(&error))?.port();
                (port, tokio::spawn(relay_datagrams(Arc::new(socket), request.target)))
            }
            Protocol::Sctp => {
                return Err(PublishError::Failed { message: "SCTP ports can't be published".to_owned() });
            }
        };
        Ok(Box::new(LocalPort { port, task }))
    }
}

fn refusal(error: &io::Error) -> PublishError {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            PublishError::AddressInUse { message: "bind: address already in use".to_owned() }
        }
        io::ErrorKind::PermissionDenied => {
            PublishError::PermissionDenied { message: "bind: permission denied".to_owned() }
        }
        _ => PublishError::Failed { message: format!("bind: {error}") },
    }
}

async fn accept(listener: TcpListener, target: SocketAddr) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((mut client, _)) => {
                    connections.spawn(async move {
                        if let Ok(mut inner) = TcpStream::connect(target).await {
                            // A connection that breaks concerns its two ends only.
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut inner).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accept on a published port");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Each client address gets a socket of its own towards the container, dropped after two silent minutes.
async fn relay_datagrams(socket: Arc<UdpSocket>, target: SocketAddr) {
    const SILENCE: std::time::Duration = std::time::Duration::from_secs(120);
    const MOST_CLIENTS: usize = 4096;
    let mut clients: std::collections::HashMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)> =
        std::collections::HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        clients.retain(|_, (_, task)| !task.is_finished());
        if !clients.contains_key(&from) {
            if clients.len() >= MOST_CLIENTS {
                continue;
            }
            let any: SocketAddr =
                if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            let Ok(inner) = UdpSocket::bind(any).await else { continue };
            if inner.connect(target).await.is_err() {
                continue;
            }
            let (inner, back) = (Arc::new(inner), Arc::clone(&socket));
            let replies = Arc::clone(&inner);
            let task = tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(Ok(length)) = tokio::time::timeout(SILENCE, replies.recv(&mut buffer)).await {
                    let _ = back.send_to(&buffer[..length], from).await;
                }
            });
            clients.insert(from, (inner, task));
        }
        if let Some((inner, _)) = clients.get(&from) {
            let _ = inner.send(&buffer[..length]).await;
        }
    }
}
