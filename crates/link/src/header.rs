//! The frame that starts every stream: what is asked for.
//!
//! ```text
//!  0        1        2                 4
//! ┌────────┬────────┬─────────────────┬──────────────────────┐
//! │version │service │ length (u16 LE) │ arguments, UTF-8 JSON │
//! └────────┴────────┴─────────────────┴──────────────────────┘
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Error, FrameError};

/// Version of header and reply frames. 1: the first.
pub const FRAME_VERSION: u8 = 1;

/// Longest body of a header or reply frame in bytes.
pub const MAX_BODY: usize = 16 * 1024;

/// What a stream can be asked to be; the number is its code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Service {
    /// Host to guest: one connection to the Docker API, as raw bytes.
    Api = 1,
    /// Host to guest: a connection to a container's address.
    Dial = 2,
    /// Host to guest: the guest's SSH server.
    Shell = 3,
    /// Host to guest: JSON lines that steer the guest.
    Control = 4,
    /// Guest to host: bind an address of the host for as long as the stream lives.
    Publish = 5,
    /// Guest to host: a connection out into the host's network.
    Egress = 6,
    /// Guest to host: one question to the host's resolver.
    Resolve = 7,
    /// Guest to host: the file requests of one shared directory.
    Files = 8,
    /// Guest to host: one DNS question of any kind, as the message that a client sent.
    Query = 9,
    /// Guest to host: ICMP echo requests to one address.
    Echo = 10,
    /// Guest to host: a connection to a server of the engine's, by the HTTP proxy that the host has for it.
    Fetch = 11,
    /// Guest to host: the certificate authorities that the host trusts.
    Roots = 12,
}

impl Service {
    /// Every service in the order of the codes.
    pub const ALL: [Service; 12] = [
        Service::Api,
        Service::Dial,
        Service::Shell,
        Service::Control,
        Service::Publish,
        Service::Egress,
        Service::Resolve,
        Service::Files,
        Service::Query,
        Service::Echo,
        Service::Fetch,
        Service::Roots,
    ];

    /// Returns the service with this code on the wire.
    pub fn from_code(code: u8) -> Option<Service> {
        Service::ALL.into_iter().find(|service| *service as u8 == code)
    }

    /// Returns the name that logs and messages use.
    pub fn name(self) -> &'static str {
        match self {
            Service::Api => "api",
            Service::Dial => "dial",
            Service::Shell => "shell",
            Service::Control => "control",
            Service::Publish => "publish",
            Service::Egress => "egress",
            Service::Resolve => "resolve",
            Service::Files => "files",
            Service::Query => "query",
            Service::Echo => "echo",
            Service::Fetch => "fetch",
            Service::Roots => "roots",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Transport protocol of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A connection of bytes.
    Tcp,
    /// Datagrams, each in the stream as a u16 LE length and its bytes.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// What a service has to know to begin; one variant per [`Service`].
// Fields stand in alphabetical order: that is how they go over the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Args {
    /// Arguments of [`Service::Api`].
    Api {},
    /// Arguments of [`Service::Dial`].
    Dial {
        /// The container's address and port.
        addr: SocketAddr,
        /// Tcp or udp.
        protocol: Protocol,
    },
    /// Arguments of [`Service::Shell`].
    Shell {},
    /// Arguments of [`Service::Control`].
    Control {},
    /// Arguments of [`Service::Publish`].
    ///
    /// The reply's data is `{"host_port": N}`, which matters where port 0 was asked for. The address stays bound
    /// until the stream ends; connections come back as [`Service::Dial`] streams to `target`.
    Publish {
        /// Name or id of the container, for messages.
        container: String,
        /// Address of the host to bind.
        host_ip: IpAddr,
        /// Port of the host to bind, 0 for any.
        host_port: u16,
        /// Tcp or udp.
        protocol: Protocol,
        /// Where connections go: the container's address and port.
        target: SocketAddr,
    },
    /// Arguments of [`Service::Egress`].
    Egress {
        /// A name or an address, resolved by the host.
        host: String,
        /// The port.
        port: u16,
        /// Tcp or udp.
        protocol: Protocol,
    },
    /// Arguments of [`Service::Resolve`]; the reply's data is `{"addresses": [...]}`.
    Resolve {
        /// The name to look up.
        name: String,
    },
    /// Arguments of [`Service::Files`].
    ///
    /// The reply's data is `{"share": PATH, "path": PATH}`: the shared directory that holds the path, and the way from there
    /// without symlinks; or `{"docker_socket": true}`. It comes once the guest has been told of every change that was made
    /// before. A guest that goes on mounts the share; what the stream then carries is in `skiff-fileshare`.
    Files {
        /// A path of the host.
        share: String,
    },
    /// Arguments of [`Service::Query`].
    ///
    /// After the reply the stream brings the answer's message, uncut whatever its size, and ends.
    Query {
        /// The question's message in hexadecimal digits, at most [`MAX_QUESTION`] bytes.
        question: String,
    },
    /// Arguments of [`Service::Echo`].
    ///
    /// The stream carries datagrams ([`Protocol::Udp`]): each way the sequence number (u16 BE), then the payload.
    Echo {
        /// A name or an address, resolved by the host.
        host: String,
    },
    /// Arguments of [`Service::Fetch`].
    Fetch {
        /// A name or an address, resolved by the host or its proxy.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS will be spoken: there may be a proxy for that alone.
        tls: bool,
    },
    /// Arguments of [`Service::Roots`].
    ///
    /// After the reply the stream brings certificates in PEM, at most [`MAX_ROOTS`] bytes, and ends.
    Roots {},
}

/// Longest text of [`Service::Roots`] in bytes.
pub const MAX_ROOTS: u64 = 4 << 20;

/// Longest question of [`Service::Query`] in bytes.
pub const MAX_QUESTION: usize = 4096;

impl Args {
    /// Returns the service that these arguments belong to.
    pub fn service(&self) -> Service {
        match self {
            Args::Api {} => Service::Api,
            Args::Dial { .. } => Service::Dial,
            Args::Shell {} => Service::Shell,
            Args::Control {} => Service::Control,
            Args::Publish { .. } => Service::Publish,
            Args::Egress { .. } => Service::Egress,
            Args::Resolve { .. } => Service::Resolve,
            Args::Files { .. } => Service::Files,
            Args::Query { .. } => Service::Query,
            Args::Echo { .. } => Service::Echo,
            Args::Fetch { .. } => Service::Fetch,
            Args::Roots {} => Service::Roots,
        }
    }
}

/// The first thing on every stream: a service and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHeader {
    /// The arguments, which also name the service.
    pub args: Args,
}

impl From<Args> for StreamHeader {
    fn from(args: Args) -> StreamHeader {
        StreamHeader { args }
    }
}

impl StreamHeader {
    /// Returns the header that asks for `args`.
    pub fn new(args: Args) -> StreamHeader {
        StreamHeader { args }
    }

    /// Returns the service that is asked for.
    pub fn service(&self) -> Service {
        self.args.service()
    }

    /// Returns the frame's bytes.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] when the arguments are over [`MAX_BODY`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let tagged = serde_json::to_value(&self.args).map_err(body)?;
        // The service's code is the tag on the wire, so serde's own goes.
        let inner =
            tagged.as_object().and_then(|map| map.values().next()).expect("an externally tagged enum");
        let json = if inner.as_object().is_some_and(serde_json::Map::is_empty) {
            Vec::new()
        } else {
            serde_json::to_vec(inner).map_err(body)?
        };
        frame(self.service() as u8, &json)
    }

    /// Reads a frame from exactly these bytes.
    ///
    /// # Errors
    /// [`FrameError`] for whatever is not a header of this version.
    pub fn decode(bytes: &[u8]) -> Result<StreamHeader, FrameError> {
        let (code, json) = unframe(bytes)?;
        let service = Service::from_code(code).ok_or(FrameError::Code { code })?;
        let inner: serde_json::Value = if json.is_empty() {
            serde_json::json!({})
        } else {
            serde_json::from_slice(json).map_err(body)?
        };
        let mut tagged = serde_json::Map::new();
        tagged.insert(service.name().to_owned(), inner);
        let args = serde_json::from_value(serde_json::Value::Object(tagged)).map_err(body)?;
        Ok(StreamHeader { args })
    }
}

/// Writes a header frame.
///
/// # Errors
/// [`Error::Frame`] when it is too long, [`Error::Io`] when the stream fails.
pub async fn write_header(
    stream: &mut (impl AsyncWrite + Unpin),
    header: &StreamHeader,
) -> Result<(), Error> {
    let bytes = header.encode().map_err(|source| Error::Frame { source })?;
    write_all(stream, &bytes, "write a stream header").await
}

/// Reads a header frame and not a byte more.
///
/// # Errors
/// [`Error::Frame`] when it is malformed, [`Error::Io`] when the stream fails or ends.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<StreamHeader, Error> {
    let bytes = read_frame(stream, "read a stream header").await?;
    StreamHeader::decode(&bytes).map_err(|source| Error::Frame { source })
}

pub(crate) fn body(error: serde_json::Error) -> FrameError {
    FrameError::Body { message: error.to_string() }
}

pub(crate) fn frame(code: u8, json: &[u8]) -> Result<Vec<u8>, FrameError> {
    if json.len() > MAX_BODY {
        return Err(FrameError::TooLong { length: json.len(), limit: MAX_BODY });
    }
    let mut bytes = Vec::with_capacity(4 + json.len());
    bytes.extend([FRAME_VERSION, code]);
    bytes.extend((json.len() as u16).to_le_bytes());
    bytes.extend(json);
    Ok(bytes)
}

pub(crate) fn unframe(bytes: &[u8]) -> Result<(u8, &[u8]), FrameError> {
    let Some((&[version, code, low, high], json)) = bytes.split_first_chunk() else {
        return Err(FrameError::Length);
    };
    let length = check_prefix(version, [low, high])?;
    if json.len() == length { Ok((code, json)) } else { Err(FrameError::Length) }
}

fn check_prefix(version: u8, length: [u8; 2]) -> Result<usize, FrameError> {
    if version != FRAME_VERSION {
        return Err(FrameError::Version { version });
    }
    let length = usize::from(u16::from_le_bytes(length));
    if length > MAX_BODY {
        return Err(FrameError::TooLong { length, limit: MAX_BODY });
    }
    Ok(length)
}

pub(crate) async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    action: &str,
) -> Result<(), Error> {
    let io = |source| Error::Io { action: action.to_owned(), source };
    stream.write_all(bytes).await.map_err(io)?;
    stream.flush().await.map_err(io)
}

/// The prefix is checked before anything is allocated for the body.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    action: &str,
) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { action: action.to_owned(), source };
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.map_err(io)?;
    let length = check_prefix(prefix[0], [prefix[2], prefix[3]]).map_err(|source| Error::Frame { source })?;
    let mut bytes = vec![0; 4 + length];
    bytes[..4].copy_from_slice(&prefix);
    stream.read_exact(&mut bytes[4..]).await.map_err(io)?;
    Ok(bytes)
}
