//! `stop` and `restart`.

use std::sync::Arc;
use std::time::Duration;

use super::Container;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::options::StopOptions;
use crate::signals;
use crate::state::Status;

/// Docker's patience, in seconds.
const PATIENCE: i64 = 10;
/// How long a killed process may take to be gone; longer means that the kernel holds it.
const AFTER_KILL: Duration = Duration::from_secs(10);

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
        self.stop(&container, &options).await?;
        self.container_event(&container.record(), "stop", &[]);
        Ok(())
    }

    pub(crate) async fn stop(&self, container: &Arc<Container>, options: &StopOptions) -> Result<()> {
        let record = container.change(|record| record.stopped_by_user = true);
        let signal = options.signal.as_deref().filter(|signal| !signal.is_empty());
        let own = record.config.stop_signal.as_deref().filter(|signal| !signal.is_empty());
        let signal = signal.or(own).map(signals::parse).transpose()?.unwrap_or(signals::TERM);
        let seconds = options.timeout_seconds.or(record.config.stop_timeout).unwrap_or(PATIENCE);
        if self.cancel_restart(container).await {
            return Ok(());
        }
        let exits = container.changes.borrow().exits;
        if record.state.status == Status::Paused {
            // A frozen process can't act on a signal.
            self.thaw(container).await?;
        }
        self.signal(container, signal)?;
        let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
        if !exited(container, exits, patience).await {
            self.signal(container, signals::KILL)?;
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
        Ok(())
    }

    /// Ends the wait for a restart. Returns whether there was one.
    async fn cancel_restart(&self, container: &Arc<Container>) -> bool {
        if container.record().state.status != Status::Restarting {
            return false;
        }
        let _operation = container.operation.lock().await;
        if container.record().state.status != Status::Restarting {
            return false;
        }
        let record = container.change(|record| record.state.status = Status::Exited);
        self.store_later(&record);
        container.changes.send_modify(|change| change.running = false);
        true
    }

    /// Stops if it runs, then starts.
    ///
    /// # Errors
    /// As [`stop_container`](Self::stop_container) and [`start_container`](Self::start_container).
    pub async fn restart_container(&self, id: &str, options: StopOptions) -> Result<()> {
        let container = self.container(id)?;
        if container.changes.borrow().running {
            // Its end is not the end: no automatic removal in between.
            let removes = container.record().host_config.auto_remove == Some(true);
            container.change(|record| record.host_config.auto_remove = Some(false));
            let stopped = self.stop(&container, &options).await;
            container.change(|record| record.host_config.auto_remove = Some(removes));
            stopped?;
            self.container_event(&container.record(), "stop", &[]);
        }
        match self.start_container(&container.id).await {
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
                let by_user = container.record().stopped_by_user;
                if let Err(error) = engine.stop(&container, &StopOptions::default()).await {
                    tracing::warn!(%error, container = container.id, "container can't be stopped");
                }
                // The user has not stopped it: it comes back with the engine.
                let record = container.change(|record| record.stopped_by_user = by_user);
                engine.store_later(&record);
            });
        }
        while stops.join_next().await.is_some() {}
        let engine = self.clone();
        // What was written lazily is on the disk after any commit.
        if let Err(error) = crate::engine::blocking(move || engine.0.database.commit([])).await {
            tracing::warn!(%error, "last commit");
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
