//! What the calls of the engine take and give, beside the models of the API.

use std::future::Future;
use std::pin::Pin;

use bollard_stubs::models::{ContainerCreateBody, ContainerStatsResponse, ContainerWaitResponse};
use futures_util::stream::BoxStream;
use tokio::io::AsyncWrite;

use crate::error::Result;
use crate::filters::Filters;
use crate::log::reader::ChunkStream;

/// A container to be made.
#[derive(Debug, Clone, Default)]
pub struct CreateContainer {
    /// The wanted name, with or without the slash; `None` lets the engine choose.
    pub name: Option<String>,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
    /// What to run and how.
    pub body: ContainerCreateBody,
}

/// Which containers to list.
#[derive(Debug, Clone, Default)]
pub struct ListContainers {
    /// Stopped ones too.
    pub all: bool,
    /// At most so many, the newest; implies `all`.
    pub limit: Option<usize>,
    /// Sizes are wanted.
    pub size: bool,
    /// Which ones.
    pub filters: Filters,
}

/// How to stop.
#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// The signal instead of the container's own.
    pub signal: Option<String>,
    /// Seconds until SIGKILL; negative waits for ever; `None` takes the container's own.
    pub timeout_seconds: Option<i64>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Not running: at once for a created or stopped container.
    #[default]
    NotRunning,
    /// The next exit.
    NextExit,
    /// Removal.
    Removed,
}

/// Ends when the awaited state is reached.
pub type Waiting = Pin<Box<dyn Future<Output = Result<ContainerWaitResponse>> + Send>>;

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveContainer {
    /// Kill it if it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
    /// Remove a link, not the container.
    pub link: bool,
}

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogsOptions {
    /// Wait for more until the container stops.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Lines from this time on, in nanoseconds since the epoch.
    pub since: Option<u64>,
    /// Lines until this time.
    pub until: Option<u64>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Each line has the attributes that the log options name.
    pub details: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
}

/// A container's log.
pub struct Logs {
    /// The lines with their stream.
    pub output: ChunkStream,
    /// Whether the container has a terminal.
    pub tty: bool,
}

/// How to attach.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// First what was written so far.
    pub logs: bool,
    /// Then what is written from now on.
    pub stream: bool,
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Where a client's input goes. A shutdown or a drop is its end.
pub type InputWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection to the standard streams of a container or an exec.
pub struct AttachStreams {
    /// What the process writes; ends with it.
    pub output: ChunkStream,
    /// Where the client's input goes.
    pub input: Option<InputWriter>,
    /// Whether the process has a terminal.
    pub tty: bool,
    /// The detach keys that the exec was created with.
    pub detach_keys: Option<String>,
    /// To be called when the client has detached itself by keys.
    pub on_detach: Option<Box<dyn FnOnce() + Send>>,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// How to start an exec.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartExec {
    /// The client's idea of a terminal.
    pub tty: bool,
    /// The terminal's first size.
    pub console_size: Option<TerminalSize>,
}

/// How to measure.
#[derive(Debug, Clone, Copy, Default)]
pub struct StatsOptions {
    /// One measurement a second until the client goes; else one.
    pub stream: bool,
    /// Don't take a second for a previous measurement.
    pub one_shot: bool,
}

/// Measurements.
pub type StatsStream = BoxStream<'static, Result<ContainerStatsResponse>>;
