//! Containers.

use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use bollard_stubs::models::{
    ContainerConfig, ContainerCreateBody, ContainerCreateResponse, ContainerInspectResponse,
    ContainerPruneResponse, ContainerStatsResponse, ContainerSummary, ContainerTopResponse,
    ContainerUpdateBody, ContainerUpdateResponse, ContainerWaitResponse,
};
use futures_util::Stream;

use super::{AttachStreams, BodyReader, ByteStream, LogStreams, TerminalSize, UnixTime};
use crate::error::Result;
use crate::filters::Filters;
use crate::version::ApiVersion;

/// Ends when the awaited state is reached.
pub type WaitResult = Pin<Box<dyn Future<Output = Result<ContainerWaitResponse>> + Send>>;

/// Measurements, one a second or just one.
pub type StatsStream = Pin<Box<dyn Stream<Item = Result<ContainerStatsResponse>> + Send>>;

/// `POST /containers/create`.
#[derive(Debug, Clone)]
pub struct CreateContainer {
    /// The wanted name, without a leading slash; `None` lets the engine choose.
    pub name: Option<String>,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
    /// What to run and how.
    pub body: ContainerCreateBody,
    /// The client's API version: a few defaults depend on it.
    pub version: ApiVersion,
}

/// `GET /containers/json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListContainers {
    /// Stopped ones too. Implied by `limit`.
    pub all: bool,
    /// At most so many, the newest.
    pub limit: Option<usize>,
    /// `size_rw` and `size_root_fs` are wanted.
    pub size: bool,
    /// Any of `ancestor before exited expose health id is-task isolation label name network publish since status
    /// volume`. `status` implies `all`.
    pub filters: Filters,
}

/// How to stop (also the first half of a restart).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// The signal instead of the container's own stop signal.
    pub signal: Option<String>,
    /// Seconds until SIGKILL; negative waits for ever; `None` takes the container's own.
    pub timeout_seconds: Option<i64>,
}

/// What `POST /containers/{id}/wait` waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Not running: at once for a created or stopped container.
    #[default]
    NotRunning,
    /// The next exit, also if it isn't running now.
    NextExit,
    /// Removal.
    Removed,
}

/// `DELETE /containers/{id}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveContainer {
    /// Kill it when it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
    /// Remove the link of that name, not the container.
    pub link: bool,
}

/// How many of the last lines of a log are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tail {
    /// Every line.
    #[default]
    All,
    /// The last so many lines.
    Lines(u64),
}

/// `GET /containers/{id}/logs`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogsOptions {
    /// Wait for more until the container stops.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Lines from this time on.
    pub since: Option<UnixTime>,
    /// Lines until this time.
    pub until: Option<UnixTime>,
    /// Each line begins with its RFC 3339 time with nine digits of nanoseconds.
    pub timestamps: bool,
    /// Each line has the log driver's extra attributes after the time.
    pub details: bool,
    /// Only the last lines.
    pub tail: Tail,
}

/// `POST /containers/{id}/attach`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// First what was written so far.
    pub logs: bool,
    /// Then what is written from now on; without it the connection ends after the log.
    pub stream: bool,
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Keys in Docker's notation (`ctrl-p,ctrl-q`); the server watches for them.
    pub detach_keys: Option<String>,
}

/// `GET /containers/{id}/stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatsOptions {
    /// One measurement a second until the client goes; else one.
    pub stream: bool,
    /// Don't wait a second for the previous measurement.
    pub one_shot: bool,
}

/// What is at a path of a container (`X-Docker-Container-Path-Stat`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Kind and permissions as stat(2) has them.
    pub mode: u32,
    /// When it was changed last, RFC 3339.
    pub modified: String,
    /// Where a link leads in the end, else empty.
    pub link_target: String,
}

/// `PUT /containers/{id}/archive`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutArchive {
    /// The directory that the files go to.
    pub path: String,
    /// Everything shall belong to the container's user.
    pub copy_uid_gid: bool,
    /// A directory may not take the place of something else, and the other way round.
    pub no_overwrite_dir_non_dir: bool,
}

/// One path that is not as the image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    /// The path.
    pub path: String,
    /// 0: changed, 1: new, 2: gone.
    pub kind: u8,
}

/// `POST /commit`.
#[derive(Debug, Clone, Default)]
pub struct CommitContainer {
    /// The container.
    pub container: String,
    /// `name[:tag]`; `None` makes an image without a name.
    pub reference: Option<String>,
    /// Who made it.
    pub author: String,
    /// A remark.
    pub comment: String,
    /// Whether the container is paused meanwhile.
    pub pause: bool,
    /// Dockerfile lines to apply.
    pub changes: Vec<String>,
    /// A configuration instead of the container's.
    pub config: Option<ContainerConfig>,
}

/// What `GET /containers/{id}/json` tells.
#[derive(Debug, Clone, Default)]
pub struct InspectedContainer {
    /// All that the generated model has.
    pub container: ContainerInspectResponse,
    /// The address that the user wants in the main network; shown as `Config.MacAddress`, which the model lacks.
    pub mac_address: Option<String>,
}

/// The containers. An `id` is an id, a unique prefix of one, or a name with or without a leading slash.
#[async_trait]
pub trait Containers: Send + Sync + 'static {
    /// Creates a container.
    async fn create_container(&self, request: CreateContainer) -> Result<ContainerCreateResponse>;

    /// Lists containers, newest first.
    async fn list_containers(&self, options: ListContainers) -> Result<Vec<ContainerSummary>>;

    /// Describes a container; `size` asks for `size_rw` and `size_root_fs`.
    async fn inspect_container(&self, id: &str, size: bool) -> Result<InspectedContainer>;

    /// Starts; `ApiError::not_modified` when it runs already.
    async fn start_container(&self, id: &str) -> Result<()>;

    /// Stops; `ApiError::not_modified` when it isn't running.
    async fn stop_container(&self, id: &str, options: StopOptions) -> Result<()>;

    /// Stops if it runs, then starts.
    async fn restart_container(&self, id: &str, options: StopOptions) -> Result<()>;

    /// Sends a signal (`SIGTERM`, `TERM` or a number; `None` is SIGKILL).
    async fn kill_container(&self, id: &str, signal: Option<&str>) -> Result<()>;

    /// Freezes all processes.
    async fn pause_container(&self, id: &str) -> Result<()>;

    /// Thaws all processes.
    async fn unpause_container(&self, id: &str) -> Result<()>;

    /// Begins to wait: once this returns, no exit is missed. The answer's headers are sent then, its body when the
    /// inner future ends.
    async fn wait_container(&self, id: &str, condition: WaitCondition) -> Result<WaitResult>;

    /// Removes.
    async fn remove_container(&self, id: &str, options: RemoveContainer) -> Result<()>;

    /// Gives a new name.
    async fn rename_container(&self, id: &str, name: &str) -> Result<()>;

    /// Changes limits and the restart policy.
    async fn update_container(
        &self,
        id: &str,
        update: ContainerUpdateBody,
    ) -> Result<ContainerUpdateResponse>;

    /// Sets the terminal's size.
    async fn resize_container(&self, id: &str, size: TerminalSize) -> Result<()>;

    /// Lists processes as `ps` with these arguments would.
    async fn top_container(&self, id: &str, ps_args: &str) -> Result<ContainerTopResponse>;

    /// Reads the log.
    async fn container_logs(&self, id: &str, options: LogsOptions) -> Result<LogStreams>;

    /// Connects to the container's stdio, running or not yet.
    async fn attach_container(&self, id: &str, options: AttachOptions) -> Result<AttachStreams>;

    /// Measures.
    async fn container_stats(&self, id: &str, options: StatsOptions) -> Result<StatsStream>;

    /// Says what is at a path.
    async fn stat_container_path(&self, id: &str, path: &str) -> Result<PathStat>;

    /// Reads what is at a path as a tar stream.
    async fn container_archive(&self, id: &str, path: &str) -> Result<(PathStat, ByteStream)>;

    /// Unpacks a tar stream, compressed or not, in a directory.
    async fn put_container_archive(&self, id: &str, options: PutArchive, archive: BodyReader) -> Result<()>;

    /// Reads the root file system as a tar stream.
    async fn export_container(&self, id: &str) -> Result<ByteStream>;

    /// Lists what is not as the image has it, by path.
    async fn container_changes(&self, id: &str) -> Result<Vec<PathChange>>;

    /// Makes an image of a container; returns its id (`sha256:…`).
    async fn commit_container(&self, request: CommitContainer) -> Result<String>;

    /// Removes stopped containers; filters are any of `label label! until`.
    async fn prune_containers(&self, filters: Filters) -> Result<ContainerPruneResponse>;
}
