//! Byte streams between a client and a container.

use std::fmt;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

/// A request body, read as it arrives.
pub type BodyReader = Box<dyn AsyncRead + Send + Unpin>;

/// Bytes of an answer, polled only as fast as the client reads. An error cuts the answer off.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where a client's input goes. A shutdown is the end of the input; a drop without it means the client went away.
pub type InputWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// Output of a container in order. It is polled only as fast as the client reads.
pub type ChunkStream = Pin<Box<dyn Stream<Item = io::Result<Chunk>> + Send>>;

/// Which of a container's streams a chunk belongs to; the numbers are those of the multiplexed format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    /// Input echoed back; dockerd never sends it, but the format has it.
    Stdin = 0,
    /// Standard output, and everything of a terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The stream that it was written to.
    pub kind: StreamKind,
    /// The bytes as written.
    pub bytes: Bytes,
}

/// A connection to the stdio of a container or an exec.
pub struct AttachStreams {
    /// What the process writes. Its end closes the client's connection.
    pub output: ChunkStream,
    /// Where the client's input goes; `None` when stdin isn't attached.
    pub input: Option<InputWriter>,
    /// Whether the process has a terminal: then output is sent raw and detach keys are honoured.
    pub tty: bool,
    /// The detach keys to use where the request names none (an exec names them when it is created).
    pub detach_keys: Option<String>,
    /// Called when the client typed the detach keys.
    pub on_detach: Option<Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for AttachStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachStreams")
            .field("input", &self.input.is_some())
            .field("tty", &self.tty)
            .field("detach_keys", &self.detach_keys)
            .finish_non_exhaustive()
    }
}

/// A container's log.
pub struct LogStreams {
    /// The lines, with their stream.
    pub output: ChunkStream,
    /// Whether the container has a terminal: then the log is sent raw instead of multiplexed.
    pub tty: bool,
}

impl fmt::Debug for LogStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStreams").field("tty", &self.tty).finish_non_exhaustive()
    }
}
