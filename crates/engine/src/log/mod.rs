//! The output of containers: from pipes and terminals into files, and from there to every reader.
//!
//! ```text
//!  container ──pipe──▶ splice ──▶ stdout.raw ┐
//!            ──pipe──▶ splice ──▶ stderr.raw ├──▶ readers: logs, attach
//!  or        ──pty───▶ splice ─▶ pipe ─▶ stdout.raw │
//!                          index (who, when) ┘
//! ```
//!
//! No byte is ever in the engine's own memory on its way: it is in the container's pipe (of which the supervisor keeps
//! the read end too) until splice(2) has put it into the raw file. So the engine can be killed at any instruction: the
//! next one finds the rest in the pipe, and bytes that were written but not yet indexed at the end of the raw file.
//! A terminal's bytes take the detour over a staging pipe that the supervisor keeps too; where the kernel can't splice
//! from a terminal (before 6.5), they are read and written, and at most one read is lost with the engine.
//!
//! A few threads move the bytes of all containers ([`pump`]). Each turn of a container is bounded, so that a noisy
//! one can't starve the others. Nobody waits for readers: they read the files at their own pace.
//!
//! Files of a container, in `containers/<id>/log/`: `stdout.raw`, `stderr.raw`, `index` (see [`index`]). Where the log
//! is bounded, old bytes are given back by punching holes; offsets stay what they are. So rotation moves nothing: a
//! follower keeps its place, and one that is overtaken goes on with the oldest whole line that is left.

pub mod attributes;
pub mod index;
mod lines;
pub mod options;
pub mod pump;
pub mod reader;
mod store;
mod tail;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use store::{Ends, Log};

/// Which stream output belongs to. A terminal has only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    pub(crate) const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    pub(crate) fn number(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The stream that it was written to.
    pub stream: Stream,
    /// The bytes.
    pub bytes: Bytes,
}
