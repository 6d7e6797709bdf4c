//! What can go wrong on the link.

use std::io;
use std::time::Duration;

use crate::{ReplyCode, Service};

/// An error of the link itself, as opposed to a peer's refusal ([`OpenError::Refused`]).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link is gone; every stream on it ended with it.
    #[error("the link is closed: {reason}")]
    Closed {
        /// Why it ended.
        reason: CloseReason,
    },
    /// An operating system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, as a verb with its object.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A header or reply frame could not be read, or would break its limits if written.
    #[error("malformed stream frame")]
    Frame {
        /// What is wrong with it.
        #[source]
        source: FrameError,
    },
    /// The peers have no protocol version in common.
    #[error(
        "host speaks link versions {host_min} to {host_max}, guest {guest_min} to {guest_max}: update the older one"
    )]
    Version {
        /// Oldest version the host speaks.
        host_min: u16,
        /// Newest version the host speaks.
        host_max: u16,
        /// Oldest version the guest speaks.
        guest_min: u16,
        /// Newest version the guest speaks.
        guest_max: u16,
    },
    /// This side already has as many streams open as [`Config::max_streams`](crate::mux::Config::max_streams) allows.
    #[error("{limit} streams are open already")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// The peer answered an opened stream neither with yes nor with no.
    #[error("no answer within {} s", waited.as_secs())]
    Unanswered {
        /// How long this side waited.
        waited: Duration,
    },
    /// The peer gave an incoming stream up, or its deadline passed, before it was answered.
    #[error("the stream was withdrawn before it was answered")]
    Withdrawn,
}

/// Why [`Link::open`](crate::Link::open) gave no stream.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The peer said no.
    #[error("{service}: {message}")]
    Refused {
        /// The service that was asked for.
        service: Service,
        /// The reason to branch on.
        code: ReplyCode,
        /// The reason for people.
        message: String,
    },
    /// The link could not carry the question or the answer.
    #[error("{service}: no answer over the link")]
    Link {
        /// The service that was asked for.
        service: Service,
        /// What happened.
        #[source]
        source: Error,
    },
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> io::Error {
        let kind = match &error {
            OpenError::Refused { code, .. } => match code {
                ReplyCode::Refused => io::ErrorKind::ConnectionRefused,
                ReplyCode::Unreachable => io::ErrorKind::HostUnreachable,
                ReplyCode::NetworkUnreachable => io::ErrorKind::NetworkUnreachable,
                ReplyCode::TimedOut => io::ErrorKind::TimedOut,
                ReplyCode::AddressInUse => io::ErrorKind::AddrInUse,
                ReplyCode::PermissionDenied => io::ErrorKind::PermissionDenied,
                ReplyCode::NotFound => io::ErrorKind::NotFound,
                ReplyCode::Unsupported => io::ErrorKind::Unsupported,
                ReplyCode::Invalid => io::ErrorKind::InvalidInput,
                ReplyCode::Ok | ReplyCode::Limit | ReplyCode::Internal => io::ErrorKind::Other,
            },
            OpenError::Link { .. } => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, error)
    }
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// This side closed it, or dropped every handle and stream.
    #[error("closed by this side")]
    Local,
    /// The byte stream underneath ended.
    #[error("the other side hung up")]
    HungUp,
    /// The guest began a new session on the same byte stream.
    #[error("the other side started again")]
    Restarted,
    /// Nothing came back for longer than [`Config::ping_timeout`](crate::mux::Config::ping_timeout).
    #[error("the other side has been silent for {} s", silent.as_secs())]
    Silent {
        /// How long.
        silent: Duration,
    },
    /// The peer broke the protocol.
    #[error("protocol violation: {violation}")]
    Violation {
        /// What it did.
        violation: Violation,
    },
    /// The byte stream underneath failed.
    #[error("{message}")]
    Io {
        /// The system's reason.
        message: String,
    },
}

/// What a peer did that ends its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame type that no version has, which is also what leftover bytes of a dead session look like.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// A payload length that the frame type does not allow.
    #[error("frame type {kind} with a length of {length}")]
    Length {
        /// The frame type.
        kind: u8,
        /// The length it claims.
        length: u32,
    },
    /// Flags or reserved bits that must be zero are not.
    #[error("reserved bits are set")]
    Reserved,
    /// The frame does not end with the session's tag: it was cut off, or is of another session.
    #[error("a frame was cut off")]
    Tag,
    /// A stream number that the sender may not use in this frame.
    #[error("stream {0} is not the sender's to use")]
    StreamId(u32),
    /// More data than the receiver has granted.
    #[error("stream {0} exceeds its credit")]
    Credit(u32),
    /// A frame that the state of its stream does not allow, such as data after the end.
    #[error("frame type {kind} does not fit the state of stream {stream}")]
    State {
        /// The frame type.
        kind: u8,
        /// The stream.
        stream: u32,
    },
    /// A reply that cannot be decoded.
    #[error("the reply of stream {0} is malformed")]
    Reply(u32),
    /// The peer asks faster than it reads the answers.
    #[error("too many unread answers")]
    Flood,
}

/// What is wrong with a header or reply frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame version that this side does not know.
    #[error("frame version {version} is unknown")]
    Version {
        /// The version the frame claims.
        version: u8,
    },
    /// A service or reply code that this side does not know.
    #[error("code {code} is unknown")]
    Code {
        /// The code the frame carries.
        code: u8,
    },
    /// A body beyond the limit.
    #[error("a body of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A frame that ends early or goes on too long.
    #[error("the frame has a wrong length")]
    Length,
    /// A body that is not the JSON that its code asks for.
    #[error("the body does not fit its code: {message}")]
    Body {
        /// What the parser says.
        message: String,
    },
}

impl FrameError {
    /// Returns the code that a header with this fault is refused with.
    pub fn reply_code(&self) -> ReplyCode {
        match self {
            FrameError::Version { .. } | FrameError::Code { .. } => ReplyCode::Unsupported,
            FrameError::TooLong { .. } => ReplyCode::Limit,
            FrameError::Length | FrameError::Body { .. } => ReplyCode::Invalid,
        }
    }
}
