//! `stop` and `restart`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Container;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::options::StopOptions;
use crate::signals;
use crate::state::Status;

/// Docker's patience, in seconds.
const PATIENCE: i64 = 10;
/// How long a killed process may take to be gone; longer means that the kernel holds it.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// Who wants a container to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// A client: `unless-stopped` respects that.
    User,
    /// The engine, which ends.
    Engine,
}

impl Engine {
    /// Stops a container: its stop signal, and SIGKILL after a while.
    ///
    /// # Errors
    /// `NotModified` when it does not run; when it can't be killed.
    pub async fn stop_container(&self, id: &str, options: StopOptions) -> Result<()> {
        let container = self.container(id)?;
        let record = container.record();
        match record.state.status {
            Status::Running | Status::Paused | Status::Restarting => {}
            _ => return Err(Error::new(Code::NotModified, format!("container {id} is already stopped"))),
        }
        self.stop(&container, &options, StopCause::User).await?;
        self.container_event(&container.record(), "stop", &[]);
        Ok(())
    }

    pub(crate) async fn stop(
        &self,
        container: &Arc<Container>,
        options: &StopOptions,
        cause: StopCause,
    ) -> Result<()> {
        let record = container.change(|record| record.stopped_by_user |= cause == StopCause::User);
        let signal = options.signal.as_deref().filter(|signal| !signal.is_empty());
        let own = record.config.stop_signal.as_deref().filter(|signal| !signal.is_empty());
        let signal = signal.or(own).map(signals::parse).transpose()?.unwrap_or(signals::TERM);
        let seconds = options.timeout_seconds.or(record.config.stop_timeout).unwrap_or(PATIENCE);
        let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
        loop {
            if self.cancel_restart(container).await? {
                return Ok(());
            }
            let exits = container.changes.borrow().exits;
            if container.record().state.status == Status::Paused {
                // A frozen process can't act on a signal.
                self.thaw(container).await?;
            }
            match self.signal(container, signal) {
                Err(error) if error.code == Code::Conflict => {
                    // It ends by itself at this moment. Once that is recorded it may be about to be restarted.
                    drop(container.operation.lock().await);
                    if container.changes.borrow().running {
                        continue;
                    }
                    return Ok(());
                }
                sent => sent?,
            }
            if !exited(container, exits, patience).await {
                // What is not there any more has ended between the two.
                match self.signal(container, signals::KILL) {
                    Err(error) if error.code != Code::Conflict => return Err(error),
                    _ => {}
                }
                if !exited(container, exits, Some(AFTER_KILL)).await {
                    return Err(Error::new(
                        Code::Internal,
                        format!(
                            "cannot stop container: {}: tried to kill container, but did not receive an exit event",
                            container.id
                        ),
                    ));
                }
            }
            // An end of its own accord just before the signal looked like one for the restart policy.
            self.cancel_restart(container).await?;
            return Ok(());
        }
    }

    /// Ends the wait for a restart. Returns whether there was one.
    pub(super) async fn cancel_restart(&self, container: &Arc<Container>) -> Result<bool> {
        if container.record().state.status != Status::Restarting {
            return Ok(false);
        }
        let _operation = container.operation.lock().await;
        if container.record().state.status != Status::Restarting {
            return Ok(false);
        }
        let record = container.change(|record| record.state.status = Status::Exited);
        // Before the answer: after a crash nobody else would know that it was stopped.
        let engine = self.clone();
        blocking(move || engine.store(&record)).await?;
        container.changes.send_modify(|change| change.running = false);
        Ok(true)
    }

    /// Stops if it runs, then starts.
    ///
    /// # Errors
    /// As [`stop_container`](Self::stop_container) and [`start_container`](Self::start_container).
    pub async fn restart_container(&self, id: &str, options: StopOptions) -> Result<()> {
        let container = self.container(id)?;
        if container.changes.borrow().running {
            // Its end is not the end: no automatic removal in between.
            container.kept.store(true, Ordering::Relaxed);
            let stopped = self.stop(&container, &options, StopCause::User).await;
            if stopped.is_err() {
                container.kept.store(false, Ordering::Relaxed);
            }
            stopped?;
            self.container_event(&container.record(), "stop", &[]);
        }
        let started = self.start_container(&container.id).await;
        container.kept.store(false, Ordering::Relaxed);
        match started {
            Err(error) if error.code != Code::NotModified => return Err(error),
            _ => {}
        }
        self.container_event(&container.record(), "restart", &[]);
        Ok(())
    }

    /// Stops every container, for the end of the engine or of the machine. Restart policies apply at the next start.
    pub async fn stop_all(&self) {
        let mut stops = tokio::task::JoinSet::new();
        for container in self.0.registry.all() {
            if !container.changes.borrow().running {
                continue;
            }
            let engine = self.clone();
            stops.spawn(async move {
                // The user has not stopped it: it comes back with the engine.
                let stopped = engine.stop(&container, &StopOptions::default(), StopCause::Engine).await;
                if let Err(error) = stopped {
                    tracing::warn!(%error, container = container.id, "container can't be stopped");
                }
            });
        }
        while stops.join_next().await.is_some() {}
        let engine = self.clone();
        // What was written lazily is on the disk after any commit.
        if let Err(error) = blocking(move || engine.0.database.commit([])).await {
            tracing::warn!(%error, "last commit");
        }
        if let Some(parent) = self.0.config.cgroup_parent.as_deref().filter(|_| self.0.cgroups) {
            // It stays when it has others' cgroups in it.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Waits until a run more has ended; false when that takes longer than `patience`.
pub(super) async fn exited(container: &Arc<Container>, exits: u64, patience: Option<Duration>) -> bool {
    let mut changes = container.changes.subscribe();
    let ended = changes.wait_for(|change| change.exits > exits || change.removed);
    match patience {
        None => ended.await.is_ok(),
        Some(patience) => matches!(tokio::time::timeout(patience, ended).await, Ok(Ok(_))),
    }
}
