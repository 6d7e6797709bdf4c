//! Where a guest's channels are reached.

use std::{io, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// The address of one channel: a unix socket where the system has them for our runtime, else loopback TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address of the loopback interface.
    Tcp(SocketAddr),
}

impl Endpoint {
    /// Connects to the endpoint and gives the peer's process id where the system tells it.
    ///
    /// # Errors
    /// Fails as `connect` does.
    pub async fn connect(&self) -> io::Result<(Box<dyn ByteStream>, Option<u32>)> {
        match self {
            #[cfg(unix)]
            Self::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await?;
                let pid =
                    stream.peer_cred().ok().and_then(|c| c.pid()).and_then(|pid| u32::try_from(pid).ok());
                Ok((Box::new(stream), pid))
            }
            #[cfg(not(unix))]
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Tcp(address) => {
                let stream = tokio::net::TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), None))
            }
        }
    }

    /// Removes the socket file, if the endpoint has one.
    pub fn remove(&self) {
        if let Self::Unix(path) = self {
            // Absent is what we want; anything else shows when the next bind fails.
            let _ = std::fs::remove_file(path);
        }
    }
}
