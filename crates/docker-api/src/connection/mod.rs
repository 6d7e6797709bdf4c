//! One client connection.
//!
//! ```text
//!  client ◄──► Gate ◄──► hyper (HTTP/1.1) ──► route::dispatch ──► backend
//!               │                                  │
//!               ├──────── hijack::copy ◄───────────┤  after an upgrade to a container's stdio
//!               └──────── hyper (HTTP/2) ◄─────────┘  after an upgrade to h2c, or from the first byte on: `grpc`
//! ```
//!
//! Old clients attach without an `Upgrade` header and expect a bare `200` followed by raw bytes. hyper hands over a
//! connection only after `101` or after a successful `CONNECT`, so the [`gate`] below it shows such a request to hyper
//! as a `CONNECT`.

mod gate;
mod grpc;
mod head;
mod service;
mod target;

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};

pub(crate) use grpc::serve as serve_grpc;
pub(crate) use service::serve;

/// A connection that a client may be served on.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Returns a way to see whether the client is still there.
    fn presence(&self) -> Presence;
}

/// Whether a client is still there, for connections on which nothing is written for a while.
#[derive(Debug)]
pub struct Presence {
    /// A second descriptor of the socket; `None` where only a failing write tells.
    socket: Option<OwnedFd>,
}

impl Presence {
    /// Makes one for connections where only a failing write tells that the client is gone.
    pub const fn unknown() -> Self {
        Self { socket: None }
    }

    /// Makes one that asks the socket. Without a free descriptor a failing write will tell.
    pub fn of(socket: &impl AsFd) -> Self {
        Self { socket: socket.as_fd().try_clone_to_owned().ok() }
    }

    /// Returns whether the client has closed both directions (a client that closed only its own still listens).
    pub(crate) fn is_gone(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut events = [PollFd::new(socket, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut events, Some(&now))
            .is_ok_and(|_| events[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
    }

    /// Returns whether the client has not read yet all that was written.
    pub(crate) fn has_unread(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        skiff_linux_sys::unread::unread(socket.as_fd()).is_ok_and(|bytes| bytes > 0)
    }
}

impl Connection for UnixStream {
    fn presence(&self) -> Presence {
        Presence::of(self)
    }
}

impl Connection for TcpStream {
    fn presence(&self) -> Presence {
        Presence::of(self)
    }
}

impl Connection for DuplexStream {
    fn presence(&self) -> Presence {
        Presence::unknown()
    }
}
