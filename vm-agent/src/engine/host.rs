//! What the engine asks of the host, by link streams: registries through the host's network, ports on its addresses.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;

use async_trait::async_trait;
use skiff_engine::{Forwarder, PublishError, PublishRequest, PublishedPort, Publisher};
use skiff_images::{Dial, Io};
use skiff_link::{Args, BoxStream, Link, OpenError, ReplyCode, StreamHeader};
use skiff_network::dns::{Code, Data, Kind, Question};
use tokio::io::AsyncReadExt;

/// The host behind the router's socket.
#[derive(Debug, Clone)]
pub struct Host {
    link: Link,
}

impl Host {
    /// Names the socket; nothing is connected yet.
    pub fn new(socket: &Path) -> anyhow::Result<Self> {
        Ok(Self { link: skiff_link::unix::link(None, Some(socket))? })
    }
}

impl Dial for Host {
    fn dial<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>> {
        Box::pin(async move {
            let args = Args::Egress { host: host.to_owned(), port, protocol: skiff_link::Protocol::Tcp };
            let stream = self.link.open(&StreamHeader { args }).await.map_err(as_io)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// The kind that an ordinary socket of the host would have failed with.
fn as_io(error: OpenError) -> io::Error {
    let OpenError::Refused { code, message, .. } = error else { return io::Error::other(error) };
    let kind = match code {
        ReplyCode::Refused => io::ErrorKind::ConnectionRefused,
        ReplyCode::Unreachable => io::ErrorKind::HostUnreachable,
        ReplyCode::TimedOut => io::ErrorKind::TimedOut,
        ReplyCode::NotFound => io::ErrorKind::NotFound,
        ReplyCode::PermissionDenied => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, message)
}

#[async_trait]
impl Forwarder for Host {
    /// Asks the host's own resolver, with its VPNs and hosts file; it knows addresses only. A container's own servers
    /// can't be asked from here.
    async fn ask(&self, message: &[u8], _servers: &[IpAddr], _stream: bool) -> io::Result<Vec<u8>> {
        const TTL: u32 = 5;
        let question = Question::parse(message).ok_or_else(|| io::Error::other("not a question"))?;
        if !matches!(question.kind, Kind::A | Kind::Aaaa) {
            return Ok(question.answer(Code::NoError, &[], TTL));
        }
        let args = Args::Resolve { name: question.name.clone() };
        match self.link.open_with_data(&StreamHeader { args }).await {
            Ok((_, reply)) => {
                let addresses = reply.data.as_ref().and_then(|data| data["addresses"].as_array());
                let addresses =
                    addresses.into_iter().flatten().filter_map(|text| text.as_str()?.parse().ok());
                let records: Vec<Data> = addresses.map(Data::Address).collect();
                Ok(question.answer(Code::NoError, &records, TTL))
            }
            Err(OpenError::Refused { code: ReplyCode::NotFound, .. }) => {
                Ok(question.answer(Code::NameError, &[], TTL))
            }
            Err(error) => Err(as_io(error)),
        }
    }
}

/// A port bound by the host: its stream is what keeps it bound.
struct HostPort {
    port: u16,
    watch: tokio::task::JoinHandle<()>,
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
        let watch =
            tokio::spawn(keep_published(self.clone(), PublishRequest { host_port: port, ..request }, stream));
        Ok(Box::new(HostPort { port, watch }))
    }
}

impl Host {
    async fn open_publish(&self, request: &PublishRequest) -> Result<(u16, BoxStream), PublishError> {
        let protocol = match request.protocol {
            skiff_engine::Protocol::Tcp => skiff_link::Protocol::Tcp,
            skiff_engine::Protocol::Udp => skiff_link::Protocol::Udp,
            skiff_engine::Protocol::Sctp => {
                return Err(PublishError::Failed { message: "SCTP ports can't be published".to_owned() });
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
        let mut pause = std::time::Duration::from_millis(100);
        stream = loop {
            match host.open_publish(&request).await {
                Ok((_, stream)) => break stream,
                Err(error) => {
                    tracing::debug!(%error, port = request.host_port, "port can't be published again yet")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(std::time::Duration::from_secs(5));
        };
        tracing::info!(container = request.container, port = request.host_port, "port is published again");
    }
}
