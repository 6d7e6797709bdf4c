//! The frame that answers a header: yes with data, or no with a code and a message.
//!
//! ```text
//!  0        1        2                 4
//! ┌────────┬────────┬─────────────────┬────────────────────────────────────┐
//! │version │code    │ length (u16 LE) │ {"message": …, "data": …} or empty │
//! └────────┴────────┴─────────────────┴────────────────────────────────────┘
//! ```

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::header::{body, frame, read_frame, unframe, write_all};
use crate::{Error, FrameError};

/// The answer to a header; the number is its code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReplyCode {
    /// Yes: the stream's bytes follow.
    Ok = 0,
    /// Nobody listens at the address.
    Refused = 1,
    /// There is no way to the host that has the address.
    Unreachable = 2,
    /// The answer took too long.
    TimedOut = 3,
    /// Somebody else has the address bound.
    AddressInUse = 4,
    /// The user may not do this.
    PermissionDenied = 5,
    /// There is no such name, container or share.
    NotFound = 6,
    /// This peer does not know the service or frame version.
    Unsupported = 7,
    /// A limit of the peer is reached.
    Limit = 8,
    /// The arguments make no sense.
    Invalid = 9,
    /// The peer failed in a way that is its own fault.
    Internal = 10,
    /// There is no way to the network that the address is of.
    NetworkUnreachable = 11,
}

impl ReplyCode {
    /// Every code in the order of the numbers.
    pub const ALL: [ReplyCode; 12] = [
        ReplyCode::Ok,
        ReplyCode::Refused,
        ReplyCode::Unreachable,
        ReplyCode::TimedOut,
        ReplyCode::AddressInUse,
        ReplyCode::PermissionDenied,
        ReplyCode::NotFound,
        ReplyCode::Unsupported,
        ReplyCode::Limit,
        ReplyCode::Invalid,
        ReplyCode::Internal,
        ReplyCode::NetworkUnreachable,
    ];

    /// Returns the code with this number on the wire.
    pub fn from_code(code: u8) -> Option<ReplyCode> {
        ReplyCode::ALL.into_iter().find(|known| *known as u8 == code)
    }

    /// Returns the code that describes a failed socket call best.
    pub fn from_io(error: &io::Error) -> ReplyCode {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => ReplyCode::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable => ReplyCode::Unreachable,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => ReplyCode::NetworkUnreachable,
            io::ErrorKind::TimedOut => ReplyCode::TimedOut,
            io::ErrorKind::AddrInUse => ReplyCode::AddressInUse,
            io::ErrorKind::PermissionDenied => ReplyCode::PermissionDenied,
            io::ErrorKind::NotFound => ReplyCode::NotFound,
            io::ErrorKind::Unsupported => ReplyCode::Unsupported,
            io::ErrorKind::InvalidInput => ReplyCode::Invalid,
            _ => ReplyCode::Internal,
        }
    }
}

/// The second thing on every stream, from the side that was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Yes, or the reason to branch on.
    pub code: ReplyCode,
    /// The reason for people; empty for yes.
    pub message: String,
    /// What the service gives back beside the stream.
    pub data: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
}

/// Longest message that goes over the wire; even fully escaped it fits a frame.
const MAX_MESSAGE: usize = 2 * 1024;

impl Reply {
    /// Returns the reply that accepts a stream.
    pub fn ok(data: Option<serde_json::Value>) -> Reply {
        Reply { code: ReplyCode::Ok, message: String::new(), data }
    }

    /// Returns the reply that refuses a stream.
    pub fn refused(code: ReplyCode, message: impl Into<String>) -> Reply {
        Reply { code, message: message.into(), data: None }
    }

    /// Returns the frame's bytes; a message over 2 KiB is cut.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] when the data is over [`MAX_BODY`](crate::MAX_BODY).
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let end = self.message.floor_char_boundary(MAX_MESSAGE);
        let content = Body { data: self.data.clone(), message: self.message[..end].to_owned() };
        let json = if content.data.is_none() && content.message.is_empty() {
            Vec::new()
        } else {
            serde_json::to_vec(&content).map_err(body)?
        };
        frame(self.code as u8, &json)
    }

    /// Reads a frame from exactly these bytes.
    ///
    /// # Errors
    /// [`FrameError`] for whatever is not a reply of this version.
    pub fn decode(bytes: &[u8]) -> Result<Reply, FrameError> {
        let (code, json) = unframe(bytes)?;
        let code = ReplyCode::from_code(code).ok_or(FrameError::Code { code })?;
        let Body { data, message } = if json.is_empty() {
            Body { data: None, message: String::new() }
        } else {
            serde_json::from_slice(json).map_err(body)?
        };
        Ok(Reply { code, message, data })
    }
}

/// Writes a reply frame.
///
/// # Errors
/// [`Error::Frame`] when it is too long, [`Error::Io`] when the stream fails.
pub async fn write_reply(stream: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> Result<(), Error> {
    let bytes = reply.encode().map_err(|source| Error::Frame { source })?;
    write_all(stream, &bytes, "write a stream reply").await
}

/// Reads a reply frame and not a byte more.
///
/// # Errors
/// [`Error::Frame`] when it is malformed, [`Error::Io`] when the stream fails or ends.
pub async fn read_reply(stream: &mut (impl AsyncRead + Unpin)) -> Result<Reply, Error> {
    let bytes = read_frame(stream, "read a stream reply").await?;
    Reply::decode(&bytes).map_err(|source| Error::Frame { source })
}
