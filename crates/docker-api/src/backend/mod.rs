//! What the server needs from an engine: one small trait per resource.
//!
//! Bodies are `bollard_stubs` models, options are structs already parsed and checked. A backend may leave any
//! optional field of a model `None`: the server fills in the empty lists, nulls and zero values that dockerd's JSON
//! has (see `shape`), and adds the fields that older API versions expect.

mod build;
mod buildkit;
mod containers;
mod exec;
mod history;
mod images;
mod networks;
mod stream;
mod system;
mod volumes;

pub use build::{Build, BuildCacheRecord, BuildImage, BuildUlimit, PruneBuilds, PrunedBuilds};
pub use buildkit::{
    BuildKit, BuildKitBuild, BuildOutput, GrpcBody, RawConnection, RawStream, SessionOffer, TakeConnection,
};
pub use containers::{
    AttachOptions, CommitContainer, Containers, CreateContainer, InspectedContainer, ListContainers,
    LogsOptions, PathChange, PathStat, PutArchive, RemoveContainer, StatsOptions, StatsStream, StopOptions,
    Tail, WaitCondition, WaitResult,
};
pub use exec::{Exec, StartExec};
pub use history::{BuildHistory, BuildState, BuildTale, BuildTold, PastBuild};
pub use images::{
    Auth, ErrorDetail, ImageDetails, Images, ImportImage, ListImages, Progress, ProgressDetail,
    ProgressStream, PullImage, PushImage, PushList, PushedList, RemoteManifest, RemoveImage, SearchImages,
    SearchResult,
};
pub use networks::{InspectNetwork, Networks};
pub use stream::{
    AttachStreams, BodyReader, ByteStream, Chunk, ChunkStream, InputWriter, LogStreams, StreamKind,
};
pub use system::{DiskUsage, DiskUsageKinds, EventStream, EventsOptions, System};
pub use volumes::{VolumeFile, VolumeFileKind, VolumeFiles, Volumes};

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// A point in time as clients send it: seconds and nanoseconds since 1970, possibly negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Everything the server asks of an engine; implemented by whatever implements all the resources.
pub trait Backend:
    Build + BuildHistory + BuildKit + System + Images + Containers + Exec + Networks + Volumes
{
}

impl<T: Build + BuildHistory + BuildKit + System + Images + Containers + Exec + Networks + Volumes> Backend
    for T
{
}
