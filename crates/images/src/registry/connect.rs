//! Connections to registries: whoever dials, TLS on top where the address says `https`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use skiff_proxy::{Proxies, Variables};
use tokio::io::{AsyncRead, AsyncWrite};

use super::tls::Tls;
use super::words;

/// A connection of any kind.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Makes connections; inside a guest they go through the host.
pub trait Dial: Send + Sync + 'static {
    /// Connects to a host, which may be a name or an address without brackets.
    ///
    /// `tls` says what will be spoken: that may decide about the way. A name that does not exist is reported as
    /// [`io::ErrorKind::NotFound`].
    fn dial<'a>(&'a self, tls: bool, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>>;

    /// The variables by which it finds its proxies.
    fn proxies(&self) -> BoxFuture<'_, Variables> {
        Box::pin(async { Variables::default() })
    }
}

/// Dials with ordinary sockets and the system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial<'a>(&'a self, _tls: bool, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((host, port))
                .await
                .map_err(|e| io::Error::new(io::ErrorKind::NotFound, e))?
                .collect();
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for address in addresses {
                match tokio::net::TcpStream::connect(address).await {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(Box::new(stream) as Box<dyn Io>);
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }
}

/// Dials by the proxies that are set for the servers, and directly where none is.
#[derive(Debug, Clone)]
pub struct ProxyDial<D> {
    direct: D,
    proxies: Proxies,
}

impl<D: Dial> ProxyDial<D> {
    /// Takes the proxies from this process's environment, as dockerd does.
    pub fn from_env(direct: D) -> Self {
        Self { direct, proxies: Proxies::from_env() }
    }

    /// Takes these proxies.
    pub fn new(direct: D, proxies: Proxies) -> Self {
        Self { direct, proxies }
    }
}

impl<D: Dial> Dial for ProxyDial<D> {
    fn dial<'a>(&'a self, tls: bool, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            let Some(proxy) = self.proxies.for_server(tls, host, port) else {
                return self.direct.dial(tls, host, port).await;
            };
            let mut stream = self.direct.dial(false, &proxy.host, proxy.port).await?;
            proxy.tunnel(&mut stream, host, port).await?;
            Ok(stream)
        })
    }

    fn proxies(&self) -> BoxFuture<'_, Variables> {
        Box::pin(async { self.proxies.variables().clone() })
    }
}

/// Why there is no connection, in the words that Docker's errors have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("dial tcp: lookup {host}: no such host")]
    NoSuchHost { host: String },
    #[error("dial tcp {host}:{port}: {reason}")]
    Dial { host: String, port: u16, reason: String },
    #[error("net/http: TLS handshake timeout")]
    TlsTimeout,
    #[error("{reason}")]
    Tls { reason: String },
}

impl ConnectError {
    fn dial(host: &str, port: u16, error: &io::Error) -> ConnectError {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => return ConnectError::NoSuchHost { host: host.to_owned() },
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            _ => error.to_string(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        ConnectError::Dial { host, port, reason }
    }
}

/// Says of a host and its port whether any certificate will do.
pub(crate) type IsInsecure = Arc<dyn Fn(&str, u16) -> bool + Send + Sync>;

/// Connects for hyper's client.
#[derive(Clone)]
pub(crate) struct Connector {
    pub dial: Arc<dyn Dial>,
    pub tls: Tls,
    /// Tells the registries of which any certificate is accepted.
    pub insecure: IsInsecure,
    pub timeout: Duration,
}

impl Connector {
    /// Connects, with TLS or without.
    pub async fn connect(&self, tls: bool, host: &str, port: u16) -> Result<Box<dyn Io>, ConnectError> {
        let stream = tokio::time::timeout(self.timeout, self.dial.dial(tls, host, port))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| ConnectError::dial(host, port, &error))?;
        if !tls {
            return Ok(stream);
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| ConnectError::Tls { reason: format!("tls: {e}") })?;
        let connector = if (self.insecure)(host, port) {
            self.tls.lax()
        } else {
            self.tls
                .for_registry(host, port)
                .map_err(|e| ConnectError::Tls { reason: format!("tls: {e}") })?
        };
        match tokio::time::timeout(self.timeout, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ConnectError::Tls { reason: "EOF".to_owned() })
            }
            Ok(Err(error)) => Err(ConnectError::Tls { reason: words::of_io(&error) }),
            Err(_) => Err(ConnectError::TlsTimeout),
        }
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Conn;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Conn, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let tls = uri.scheme_str() == Some("https");
            let host = bare_host(uri.host().unwrap_or_default());
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            Ok(Conn(TokioIo::new(this.connect(tls, host, port).await?)))
        })
    }
}

/// Takes the brackets off an IPv6 address.
pub(crate) fn bare_host(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

/// A connection as hyper wants it.
pub(crate) struct Conn(TokioIo<Box<dyn Io>>);

impl Connection for Conn {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
