//! What a build tells while it runs: BuildKit's status messages.

use std::time::{SystemTime, UNIX_EPOCH};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{Vertex, VertexLog, VertexStatus, VertexWarning};

/// One message.
#[derive(Debug, Clone)]
pub enum Event {
    /// A vertex has become known, has started, was found in the cache, has completed or has failed.
    ///
    /// Sent anew with every change, always complete. One that was run again after it had completed is sent with a new
    /// `started`. `cached` with `completed` means that nothing was done.
    Vertex(Vertex),
    /// How far a part of a vertex is (a layer, a file, a transfer): `current` of `total` bytes.
    Status(VertexStatus),
    /// Bytes that a step wrote, at most 1 MiB: stream 1 is standard output, 2 standard error.
    Log(VertexLog),
    /// Something that the user should know (a build check).
    Warning(VertexWarning),
}

/// Who listens to a build. Called from many tasks at once; must neither block nor fail.
pub trait Progress: Send + Sync {
    /// Takes one message.
    fn event(&self, event: Event);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}
}

/// The present time as messages have it.
pub fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

/// A time as messages have it.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}
