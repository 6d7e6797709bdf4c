//! One container as the engine holds it, and the calls that containers have.

mod attach;
mod create;
pub(crate) mod exit;
mod inspect;
mod kill;
mod limits;
mod list;
mod mounts;
pub(crate) mod pause;
mod ports;
pub(crate) mod prepare;
mod processes;
mod remove;
mod rename;
pub(crate) mod resize;
mod sample;
mod scaffold;
pub(crate) mod start;
mod stats;
mod status;
mod stop;
mod update;
mod validate;
mod wait;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use skiff_network::NetNs;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::network::Resolver;
use crate::publish::PublishedPort;
use crate::state::{Record, Status};

pub(crate) use attach::Writer;
pub(crate) use ports::{Bound, Targets};
pub(crate) use remove::until;
pub(crate) use start::{CREATE_FAILED, runtime_error};
pub(crate) use status::status_text;
pub(crate) use validate::parse_port;

/// A container.
///
/// Two locks. `operation` is held through start, exit, removal and the like, which take their time; `record` only for
/// an instant, so that lists and inspections never wait for an operation. Whoever holds both took `operation` first.
#[derive(Debug)]
pub(crate) struct Container {
    pub id: String,
    pub operation: Arc<tokio::sync::Mutex<()>>,
    pub log: Arc<Log>,
    pub changes: watch::Sender<Change>,
    pub sampler: stats::Sampler,
    record: Mutex<Arc<Record>>,
    run: Mutex<Option<Run>>,
    /// Held while the cgroup of the last run is removed: the next run has the same path, and would be killed there.
    pub leaving: Arc<tokio::sync::Mutex<()>>,
    /// Restarts in a row, each after a short run: what the back-off counts.
    pub hasty: AtomicU32,
    /// Set while a client restarts it: then its end is not the end, and it is not removed.
    pub kept: AtomicBool,
    /// Told when somebody waits for its removal.
    pub removal_awaited: tokio::sync::Notify,
    /// The task that checks its health.
    monitor: Mutex<Option<AbortHandle>>,
}

/// What waiters look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Change {
    /// Whether it runs or is about to be restarted.
    pub running: bool,
    /// Runs that have begun.
    pub starts: u64,
    /// Runs that have ended.
    pub exits: u64,
    /// Starts that have failed.
    pub failures: u64,
    /// How the last one ended.
    pub exit_code: i32,
    /// Why the last start failed.
    pub error: String,
    /// Whether the container is gone.
    pub removed: bool,
    /// Whether something tries to remove it.
    pub removing: bool,
}

/// What the engine holds for a running container.
pub(crate) struct Run {
    pub pid: i32,
    pub pidfd: Arc<OwnedFd>,
    /// The write end of standard input.
    pub stdin: Option<Arc<OwnedFd>>,
    /// The terminal's master.
    pub master: Option<Arc<OwnedFd>>,
    pub cgroup: Option<Arc<skiff_runtime::Cgroup>>,
    /// Dropped with the run: the host's addresses are free again.
    pub ports: Vec<Box<dyn PublishedPort>>,
    /// The container's address that the ports lead to.
    pub ports_lead_to: Option<Targets>,
    /// Every number below this may have been an interface's; what the endpoints have counts as well.
    pub next_interface: u32,
    /// Who answers its questions for names, if it is on a user-defined network.
    pub resolver: Option<Resolver>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Container {
    pub fn new(record: Record, log: Log) -> Arc<Self> {
        let change = Change {
            running: record.state.is_running() || record.state.status == Status::Restarting,
            exit_code: record.state.exit_code,
            ..Change::default()
        };
        Arc::new(Self {
            id: record.id.clone(),
            operation: Arc::default(),
            log: Arc::new(log),
            changes: watch::channel(change).0,
            sampler: stats::Sampler::default(),
            record: Mutex::new(Arc::new(record)),
            run: Mutex::default(),
            leaving: Arc::default(),
            hasty: AtomicU32::new(0),
            kept: AtomicBool::new(false),
            removal_awaited: tokio::sync::Notify::new(),
            monitor: Mutex::default(),
        })
    }

    /// The record as it is now.
    pub fn record(&self) -> Arc<Record> {
        Arc::clone(&lock(&self.record))
    }

    /// Changes the record in memory and returns the new one.
    pub fn change(&self, change: impl FnOnce(&mut Record)) -> Arc<Record> {
        let mut record = lock(&self.record);
        change(Arc::make_mut(&mut record));
        Arc::clone(&record)
    }

    pub fn run(&self) -> MutexGuard<'_, Option<Run>> {
        lock(&self.run)
    }

    pub fn monitor(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        lock(&self.monitor)
    }

    /// The running first process.
    pub fn process(&self) -> Result<(i32, Arc<OwnedFd>)> {
        match &*self.run() {
            Some(run) => Ok((run.pid, Arc::clone(&run.pidfd))),
            None => Err(Error::conflict(format!("container {} is not running", self.id))),
        }
    }

    /// The network namespace of the first process.
    ///
    /// # Errors
    /// When the container does not run. A pid that is another process's by now is never followed: what is done in the
    /// namespace would be done to the host.
    pub fn netns(&self) -> Result<NetNs> {
        let (pid, process) = self.process()?;
        let not_running = || Error::conflict(format!("container {} is not running", self.id));
        let netns = NetNs::of_pid(pid).map_err(|error| match error {
            skiff_network::Error::Namespace { source, .. }
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                not_running()
            }
            error => Error::internal("failed to set up container networking", &error),
        })?;
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&now)) {
            Ok(0) => Ok(netns),
            _ => Err(not_running()),
        }
    }

    pub fn cgroup(&self) -> Option<Arc<skiff_runtime::Cgroup>> {
        self.run().as_ref().and_then(|run| run.cgroup.clone())
    }

    pub fn removed(&self) -> bool {
        self.changes.borrow().removed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
