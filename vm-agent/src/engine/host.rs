//! What the engine asks of the host, by link streams: registries through the host's network, ports on its addresses.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use skiff_dns::Question;
use skiff_engine::{
    Forwarder, LocalPublisher, NameServers, PublishError, PublishRequest, PublishedPort, Publisher,
};
use skiff_images::{Dial, Io, ProxyVariables, Trust};
use skiff_link::{Args, BoxStream, Link, OpenError, ReplyCode, StreamHeader};
use tokio::io::AsyncReadExt;

use crate::query;

/// How long the host's certificates are taken as they were.
const ROOTS_ARE_FRESH: Duration = Duration::from_secs(60);

/// The host behind the router's socket.
#[derive(Debug, Clone)]
pub struct Host {
    link: Link,
    /// Binds here as well, for containers that ask their gateway for a port of the host's.
    inside: Arc<LocalPublisher>,
    /// The name servers of containers' own.
    known: Arc<NameServers>,
    /// Where the host's certificates go, and since when they are there.
    trust: Trust,
    fresh: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

impl Host {
    /// Names the socket; nothing is connected yet.
    pub fn new(socket: &Path, trust: Trust) -> anyhow::Result<Self> {
        let link = skiff_link::unix::link(None, Some(socket))?;
        let inside = Arc::new(LocalPublisher::new("skiff_inside_ports"));
        Ok(Self { link, inside, known: Arc::default(), trust, fresh: Arc::default() })
    }

    /// Trusts whom the host trusts at this moment.
    async fn take_roots(&self) {
        let mut fresh = self.fresh.lock().await;
        if fresh.is_some_and(|since| since.elapsed() < ROOTS_ARE_FRESH) {
            return;
        }
        let read = async {
            let stream = self.link.open(&StreamHeader { args: Args::Roots {} }).await?;
            let mut pem = Vec::new();
            stream.take(skiff_link::MAX_ROOTS).read_to_end(&mut pem).await?;
            io::Result::Ok(pem)
        };
        match read.await {
            Ok(pem) => {
                self.trust.set(&pem);
                *fresh = Some(Instant::now());
            }
            Err(error) => tracing::warn!(%error, "the host's certificate authorities are not known"),
        }
    }
}

impl Host {
    /// The way to the router.
    pub fn link(&self) -> &Link {
        &self.link
    }
}

impl Dial for Host {
    fn dial<'a>(
        &'a self,
        tls: bool,
        host: &'a str,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>> {
        Box::pin(async move {
            if tls {
                self.take_roots().await;
            }
            let args = Args::Fetch { host: host.to_owned(), port, tls };
            let stream = self.link.open(&StreamHeader { args }).await.map_err(as_io)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }

    /// Those of the host: the answer that comes before its certificates names them.
    fn proxies(&self) -> Pin<Box<dyn Future<Output = ProxyVariables> + Send + '_>> {
        Box::pin(async move {
            let asked = self.link.open_with_data(&StreamHeader { args: Args::Roots {} }).await;
            let data = asked.ok().and_then(|(_, reply)| reply.data).unwrap_or_default();
            let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
            ProxyVariables { http: text("http"), https: text("https"), no: text("no") }
        })
    }
}

/// The kind that an ordinary socket of the host would have failed with.
fn as_io(error: OpenError) -> io::Error {
    let OpenError::Refused { code, message, .. } = error else { return io::Error::other(error) };
    let kind = match code {
        ReplyCode::Refused => io::ErrorKind::ConnectionRefused,
        ReplyCode::Unreachable => io::ErrorKind::HostUnreachable,
        ReplyCode::NetworkUnreachable => io::ErrorKind::NetworkUnreachable,
        ReplyCode::TimedOut => io::ErrorKind::TimedOut,
        ReplyCode::NotFound => io::ErrorKind::NotFound,
        ReplyCode::PermissionDenied => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, message)
}

#[async_trait]
impl Forwarder for Host {
    /// Asks the host's own resolver, with its VPNs, split DNS and hosts file; a container's own servers are asked from
    /// here, by the way out that containers have too.
    async fn ask(&self, message: &[u8], servers: &[IpAddr], stream: bool) -> io::Result<Vec<u8>> {
        if !servers.is_empty() {
            return self.known.ask(message, servers, stream).await;
        }
        let question = Question::parse(message).ok_or(io::ErrorKind::InvalidInput)?;
        let answer = query::ask(&self.link, message).await?;
        Ok(if stream { answer } else { question.fit_datagram(answer) })
    }
}

/// A port bound by the host: its stream is what keeps it bound.
struct HostPort {
    port: u16,
    watch: tokio::task::JoinHandle<()>,
    /// The same port on the guest's own addresses.
    _inside: Option<Box<dyn PublishedPort>>,
}

impl Drop for HostPort {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl PublishedPort for HostPort {
    fn host_port(&self) -> u16 {
        self.port
    }
}

#[async_trait]
impl Publisher for Host {
    async fn publish(&self, request: PublishRequest) -> Result<Box<dyn PublishedPort>, PublishError> {
        let (port, stream) = self.open_publish(&request).await?;
        let request = PublishRequest { host_port: port, ..request };
        let inside = self.publish_inside(&request).await;
        let watch = tokio::spawn(keep_published(self.clone(), request, stream));
        Ok(Box::new(HostPort { port, watch, _inside: inside }))
    }
}

impl Host {
    /// What is published on every address of the host is reached through the gateway too, as if that were the host.
    async fn publish_inside(&self, request: &PublishRequest) -> Option<Box<dyn PublishedPort>> {
        if !request.host_ip.is_unspecified() {
            return None;
        }
        // Listeners alone will do: there are no clients from outside here.
        let request = PublishRequest { bridge: String::new(), ..request.clone() };
        match self.inside.publish(request).await {
            Ok(port) => Some(port),
            Err(error) => {
                tracing::debug!(%error, "port is not published inside");
                None
            }
        }
    }

    async fn open_publish(&self, request: &PublishRequest) -> Result<(u16, BoxStream), PublishError> {
        let protocol = match request.protocol {
            skiff_engine::Protocol::Tcp => skiff_link::Protocol::Tcp,
            skiff_engine::Protocol::Udp => skiff_link::Protocol::Udp,
            skiff_engine::Protocol::Sctp => {
                return Err(PublishError::sctp());
            }
        };
        let args = Args::Publish {
            container: request.container.clone(),
            host_ip: request.host_ip,
            host_port: request.host_port,
            protocol,
            target: request.target,
        };
        match self.link.open_with_data(&StreamHeader { args }).await {
            Ok((stream, reply)) => {
                let port = reply.data.as_ref().and_then(|data| data["host_port"].as_u64());
                let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(request.host_port);
                Ok((port, stream))
            }
            Err(OpenError::Refused { code, message, .. }) => Err(match code {
                ReplyCode::AddressInUse => PublishError::AddressInUse { message },
                ReplyCode::PermissionDenied => PublishError::PermissionDenied { message },
                ReplyCode::Unreachable => PublishError::NoAddress { message },
                _ => PublishError::Failed { message },
            }),
            Err(error) => Err(PublishError::Failed { message: error.to_string() }),
        }
    }
}

/// Binds the port anew when the host daemon comes back after its own end: the container runs on, and so should its port.
async fn keep_published(host: Host, request: PublishRequest, mut stream: BoxStream) {
    loop {
        // The host never writes on this stream: a read ends when the stream does.
        let _ = stream.read(&mut [0; 1]).await;
        tracing::warn!(container = request.container, port = request.host_port, "published port was lost");
        let mut pause = Duration::from_millis(100);
        stream = loop {
            match host.open_publish(&request).await {
                Ok((_, stream)) => break stream,
                Err(error) => {
                    tracing::debug!(%error, port = request.host_port, "port can't be published again yet")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        };
        tracing::info!(container = request.container, port = request.host_port, "port is published again");
    }
}
