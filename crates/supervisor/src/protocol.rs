//! Messages between the engine and the supervisor, and how they travel.
//!
//! Every message is one `SOCK_SEQPACKET` datagram of JSON, at most [`MAX_MESSAGE`] bytes, with at most [`MAX_FDS`]
//! descriptors beside it (`SCM_RIGHTS`, unix(7)). The engine sends [`Request`]s and reads one [`Answer`] for each
//! (for `List`, one `Entry` answer per entry and then `Done`); the supervisor sends [`Notice`]s on the other socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::SystemTime;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The largest message in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;
/// The most descriptors that one entry keeps.
pub const MAX_FDS: usize = 8;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code; 128 + the signal's number for a process that a signal ended, as shells and Docker count.
    pub code: i32,
    /// The signal that ended the process.
    pub signal: Option<i32>,
    /// When the supervisor reaped it.
    pub at: SystemTime,
}

/// A child that the engine handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The engine's name for it.
    pub key: String,
    /// The process id in the supervisor's pid namespace.
    pub pid: i32,
    /// Set once the process has ended.
    pub exit: Option<ExitStatus>,
    /// The names of the kept descriptors, in the order in which [`Request::Fetch`] returns them.
    pub fd_names: Vec<String>,
}

/// What the engine asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Child `pid` is `key`; the descriptors beside the message are kept under `fd_names`. Answer: `Done`.
    Adopt {
        /// The engine's name for the child.
        key: String,
        /// Its process id.
        pid: i32,
        /// One name per descriptor.
        fd_names: Vec<String>,
    },
    /// All entries. Answers: `Entry`…, `Done`.
    List,
    /// The kept descriptors of `key`. Answer: `Entry` with the descriptors beside it.
    Fetch {
        /// The engine's name for the child.
        key: String,
    },
    /// Drops the entry and its descriptors; the process, if it still runs, is not touched. Answer: `Done`.
    Forget {
        /// The engine's name for the child.
        key: String,
    },
    /// The engine listens: start-up is over. Answer: `Done`.
    Ready,
}

/// What the supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// One entry.
    Entry(Entry),
    /// It could not be done.
    Failed {
        /// Why.
        message: String,
    },
}

/// What the supervisor says unasked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// An adopted child has ended.
    Exit {
        /// The engine's name for it.
        key: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Stop every container in an orderly way and exit.
    Stop,
}

/// An error of the connection between the engine and the supervisor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variable that names the sockets is missing or malformed: the engine was not started by a supervisor.
    #[error("{variable} is not set to two descriptors: the engine is started by the supervisor")]
    Environment {
        /// The variable's name.
        variable: &'static str,
    },
    /// The socket failed.
    #[error("supervisor connection: {op}")]
    Connection {
        /// What was tried.
        op: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The peer has gone.
    #[error("the supervisor has closed the connection")]
    Closed,
    /// A message that is no message of this protocol.
    #[error("malformed message between engine and supervisor")]
    Malformed {
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The message or its descriptors exceed the limits.
    #[error("message of {bytes} bytes and {fds} descriptors is over the limit")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// Its descriptors.
        fds: usize,
    },
    /// The supervisor refused.
    #[error("the supervisor refused: {message}")]
    Refused {
        /// Its reason.
        message: String,
    },
}

/// Sends one message with descriptors beside it.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Error> {
    let bytes = serde_json::to_vec(message).map_err(|source| Error::Malformed { source })?;
    if bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(Error::TooLarge { bytes: bytes.len(), fds: fds.len() });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, flags | SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Err(Error::Closed),
            Err(errno) => return Err(Error::Connection { op: "send", source: errno.into() }),
        }
    }
}

/// Receives one message and the descriptors beside it.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    flags: RecvFlags,
) -> Result<(T, Vec<OwnedFd>), Error> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Err(Error::Closed),
            Err(errno) => return Err(Error::Connection { op: "receive", source: errno.into() }),
        }
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(Error::Closed);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Error::TooLarge { bytes: received.bytes, fds: fds.len() });
    }
    let message =
        serde_json::from_slice(&bytes[..received.bytes]).map_err(|source| Error::Malformed { source })?;
    Ok((message, fds))
}
