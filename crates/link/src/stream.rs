//! What a stream is to its users.

use tokio::io::{AsyncRead, AsyncWrite};

/// A stream over any transport.
///
/// `shutdown` is a half-close: the peer reads the end, and this side goes on reading. Dropping a stream that was not
/// shut down still delivers what was written, and then the peer's reads fail instead of ending (a unix-socket
/// transport cannot tell the two apart).
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream whose transport is not known.
pub type BoxStream = Box<dyn Stream>;
