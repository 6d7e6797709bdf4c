//! Containers.

use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use bollard_stubs::models::{
    ContainerCreateBody, ContainerCreateResponse, ContainerInspectResponse, ContainerPruneResponse,
    ContainerStatsResponse, ContainerSummary, ContainerTopResponse, ContainerUpdateBody,
    ContainerUpdateResponse, ContainerWaitResponse,
};
use futures_util::Stream;

use super::{AttachStreams, LogStreams, TerminalSize, UnixTime};
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

/// The containers. An `id` is an id, a unique prefix of one, or a name with or without a leading slash.
#[async_trait]
pub trait Containers: Send + Sync + 'static {
    /// Creates a container.
    async fn create_container(&self, request: CreateContainer) -> Result<ContainerCreateResponse>;

    /// Lists containers, newest first.
    async fn list_containers(&self, options: ListContainers) -> Result<Vec<ContainerSummary>>;

    /// Describes a container; `size` asks for `size_rw` and `size_root_fs`.
    async fn inspect_container(&self, id: &str, size: bool) -> Result<ContainerInspectResponse>;

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

    /// Removes stopped containers; filters are any of `label label! until`.
    async fn prune_containers(&self, filters: Filters) -> Result<ContainerPruneResponse>;
}
