//! The link between host and guest: every capability is a stream.
#![forbid(unsafe_code)]

mod copy;
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

pub use copy::copy_both;
pub use error::{CloseReason, Error, FrameError, OpenError, Violation};
pub use header::{Args, FRAME_VERSION, MAX_BODY, Protocol, Service, StreamHeader, read_header, write_header};
pub use link::{Incoming, Link};
pub use reply::{Reply, ReplyCode, read_reply, write_reply};
pub use stream::{BoxStream, Stream};
