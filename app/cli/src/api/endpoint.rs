//! Where the engine listens: `unix:///…`, `tcp://host:port`, `npipe:////./pipe/…`.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Error;

/// A connection's two directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A Docker socket.
#[derive(Debug, Clone, PartialEq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// Plain TCP.
    Tcp(String),
    /// A Windows named pipe.
    Pipe(String),
}

impl Endpoint {
    /// Parses `DOCKER_HOST` or `--host`.
    pub fn parse(text: &str) -> Result<Endpoint, Error> {
        let invalid = |why: &str| Error::plain(format!("unable to parse docker host `{text}`{why}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid(""))?;
        match scheme {
            "unix" if !rest.is_empty() => Ok(Endpoint::Unix(rest.into())),
            "tcp" | "http" => {
                let address = rest.trim_end_matches('/');
                if address.is_empty() || address.contains('/') {
                    return Err(invalid(": expected tcp://HOST:PORT"));
                }
                let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
                    port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
                });
                Ok(Endpoint::Tcp(if has_port { address.to_owned() } else { format!("{address}:2375") }))
            }
            "npipe" if !rest.is_empty() => Ok(Endpoint::Pipe(rest.replace('/', "\\"))),
            "ssh" | "https" => Err(invalid(&format!(": {scheme} is not supported"))),
            _ => Err(invalid("")),
        }
    }

    /// Opens a connection.
    pub async fn connect(&self) -> io::Result<Box<dyn Io>> {
        match self {
            Endpoint::Tcp(address) => {
                let stream = tokio::net::TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(windows)]
            Endpoint::Pipe(path) => {
                Ok(Box::new(tokio::net::windows::named_pipe::ClientOptions::new().open(path)?))
            }
            #[cfg(unix)]
            Endpoint::Pipe(_) => Err(unsupported("named pipes exist only on Windows")),
            #[cfg(windows)]
            Endpoint::Unix(_) => Err(unsupported("unix sockets are not supported on Windows: use npipe://")),
        }
    }
}

fn unsupported(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, message.to_owned())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "tcp://{address}"),
            Endpoint::Pipe(path) => write!(f, "npipe://{}", path.replace('\\', "/")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_scheme() {
        for (text, endpoint) in [
            ("unix:///run/x.sock", Endpoint::Unix("/run/x.sock".into())),
            ("tcp://localhost", Endpoint::Tcp("localhost:2375".into())),
            ("tcp://10.0.0.1:80/", Endpoint::Tcp("10.0.0.1:80".into())),
            ("tcp://[::1]:99", Endpoint::Tcp("[::1]:99".into())),
            ("tcp://[::1]", Endpoint::Tcp("[::1]:2375".into())),
            ("npipe:////./pipe/x", Endpoint::Pipe("\\\\.\\pipe\\x".into())),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap(), endpoint, "{text}");
        }
        for bad in ["", "/run/x.sock", "unix://", "foo://x", "ssh://host", "tcp://"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
