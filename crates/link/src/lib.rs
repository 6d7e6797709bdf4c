//! The link between host and guest: every capability is a stream.
//!
//! A [`Link`] opens streams and accepts them, in both directions. A stream begins with one header frame, which says
//! what is asked for ([`StreamHeader`]: a [`Service`] and its [`Args`]), and one reply frame, which says yes, perhaps
//! with data, or no, with a code and a message ([`Reply`]). After a yes it carries bytes both ways, with half-close and
//! back-pressure, like a socket. What the bytes mean is the service's business.
//!
//! # A resource lives as long as its stream
//!
//! A bound host port, a connection, a mount: each belongs to one stream and ends with it. When a process dies, its
//! streams close, and what hung on them goes; there is no clean-up protocol. So
//!
//! - hold the stream for as long as you want the resource, and drop it to give the resource up;
//! - the side that serves watches its stream for the end, and then lets go;
//! - `shutdown` ends one direction, dropping ends both. Bytes written before are still delivered.
//!
//! A service that carries datagrams puts each into the stream behind its length ([`write_datagram`]).
//!
//! # Who opens what
//!
//! | service | opened by | served by |
//! |---|---|---|
//! | [`Api`](Service::Api) | host: a client of the Docker socket | guest: the engine's socket |
//! | [`Dial`](Service::Dial) | host: a connection to a published port | guest: a container's address |
//! | [`Shell`](Service::Shell) | host: `skiff machine ssh` | guest: the SSH server |
//! | [`Control`](Service::Control) | host: the daemon | guest: the agent |
//! | [`Publish`](Service::Publish) | guest: the engine, before a container starts | host: binds the address |
//! | [`Egress`](Service::Egress) | guest: a container's connection | host: dials |
//! | [`Resolve`](Service::Resolve) | guest: the engine's DNS server | host: its resolver |
//! | [`Files`](Service::Files) | guest: one bind mount | host: the file server |
//! | [`Query`](Service::Query) | guest: whatever answers containers' DNS questions | host: its resolver |
//! | [`Echo`](Service::Echo) | guest: a container's `ping` | host: its ping sockets |
//! | [`Fetch`](Service::Fetch) | guest: the engine's pulls | host: dials, by its proxy |
//! | [`Roots`](Service::Roots) | guest: the engine's pulls | host: what it trusts |
//!
//! # Transports
//!
//! - [`mux`]: every stream shares one byte stream, such as a virtio-serial port (`device` opens it in the guest);
//! - `unix`: every stream is a connection on a unix socket, for a native engine.
//!
//! Users of a [`Link`] cannot tell which it is. The host trusts neither: what a guest can make it hold is bounded, and
//! a guest that breaks the rules loses its session ([`Violation`]) and nothing else.
//!
//! # Example
//!
//! ```
//! use skiff_link::{Args, Link, ReplyCode, StreamHeader, copy_both};
//!
//! /// The host's half of a published port: each connection becomes a stream.
//! async fn forward(link: Link, connection: tokio::net::TcpStream, container: std::net::SocketAddr) {
//!     let header = StreamHeader::new(Args::Dial { addr: container, protocol: skiff_link::Protocol::Tcp });
//!     if let Ok(stream) = link.open(&header).await {
//!         let _ = copy_both(connection, stream).await;
//!     }
//! }
//!
//! /// The guest's half.
//! async fn serve(link: Link) -> Result<(), skiff_link::Error> {
//!     loop {
//!         let incoming = link.accept().await?;
//!         tokio::spawn(async move {
//!             let Args::Dial { addr, .. } = incoming.header.args else {
//!                 return incoming.refuse(ReplyCode::Unsupported, "only dial is served here").await;
//!             };
//!             match tokio::net::TcpStream::connect(addr).await {
//!                 Ok(connection) => {
//!                     if let Ok(stream) = incoming.accept(None).await {
//!                         let _ = copy_both(stream, connection).await;
//!                     }
//!                 }
//!                 Err(error) => incoming.refuse(ReplyCode::from_io(&error), error.to_string()).await,
//!             }
//!         });
//!     }
//! }
//! ```
#![forbid(unsafe_code)]

mod copy;
mod datagram;
#[cfg(target_os = "linux")]
pub mod device;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod header;
mod link;
pub mod mux;
mod reply;
mod stream;
#[cfg(unix)]
pub mod unix;

pub use copy::{copy_both, copy_tcp};
pub use datagram::{MAX_DATAGRAM, copy_datagrams, read_datagram, write_datagram};
pub use error::{CloseReason, Error, FrameError, OpenError, Violation};
pub use header::{
    Args, FRAME_VERSION, MAX_BODY, MAX_QUESTION, MAX_ROOTS, Protocol, Service, StreamHeader, read_header,
    write_header,
};
/// The names by which guests know the host.
pub const HOST_NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];
/// The address behind [`HOST_NAMES`] in guests: what goes there is dialed as `host.docker.internal`.
pub const HOST_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 168, 65, 254);
/// The same of IPv6, for containers that have no other.
pub const HOST_ADDRESS6: std::net::Ipv6Addr =
    std::net::Ipv6Addr::new(0xfdc4, 0xf303, 0x9324, 0, 0, 0, 0, 0x254);

pub use link::{Incoming, Link};
pub use reply::{Reply, ReplyCode, read_reply, write_reply};
pub use stream::{BoxStream, Stream};
