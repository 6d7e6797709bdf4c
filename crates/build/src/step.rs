//! Running a command in a container: what the solver asks of the engine.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use skiff_runtime::RootFs;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::graph::pb;

/// The network of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// As a container on the default bridge.
    #[default]
    Bridge,
    /// The machine's own.
    Host,
    /// Loopback alone.
    None,
    /// That of a named network or a container (`container:ID`): classic builds only.
    Named(String),
}

/// A directory, file or socket that is mounted into a step.
#[derive(Debug)]
pub struct Bind {
    /// What is mounted: an `O_PATH` descriptor or a mount of its own.
    pub source: OwnedFd,
    /// Where to, absolute.
    pub destination: String,
    /// Whether it may not be written.
    pub readonly: bool,
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where to, absolute.
    pub destination: String,
    /// Its bound in bytes; 0: the kernel's.
    pub size: u64,
}

/// One mount of a step.
#[derive(Debug)]
pub enum StepMount {
    /// See [`Bind`].
    Bind(Bind),
    /// See [`Tmpfs`].
    Tmpfs(Tmpfs),
}

/// Which stream a step wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// Takes what a step writes.
pub type Writer = Arc<dyn Fn(Output, &[u8]) + Send + Sync>;

/// A command and where it runs.
pub struct Step {
    /// A name for cgroup, namespace and log lines; unique.
    pub id: String,
    /// The root.
    pub rootfs: RootFs,
    /// Whether the root may not be written.
    pub readonly_root: bool,
    /// Arguments, environment, directory, user, hosts, host name, limits, cgroup parent.
    pub meta: pb::Meta,
    /// What is mounted, outer mounts first.
    pub mounts: Vec<StepMount>,
    /// The network.
    pub network: Network,
    /// Whether it has all privileges (`--security=insecure`).
    pub insecure: bool,
    /// Size of `/dev/shm` in bytes; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// Limits of the classic builder (memory, CPU).
    pub limits: crate::solver::Limits,
    /// Takes what it writes. Called from one task at a time for each stream.
    pub output: Writer,
}

/// Runs steps. The engine is one.
#[async_trait]
pub trait StepRunner: Send + Sync {
    /// Runs a step to its end; returns the exit code (128 + n for signal n). When this returns, no process of the step is
    /// left and nothing is mounted any more.
    ///
    /// # Errors
    /// When it can't be started: in the words of the runtime. [`Error::Cancelled`](crate::Error::Cancelled) when it was
    /// cancelled: all processes are killed then.
    async fn run(&self, step: Step, cancel: CancellationToken) -> Result<i32>;
}
