//! `kill`.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::Container;
use super::stop::exited;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::signals;
use crate::state::Status;

impl Engine {
    /// Sends a signal to a container's first process; SIGKILL unless told otherwise, and then waits for the end.
    ///
    /// # Errors
    /// When the container does not run or there is no such signal.
    pub async fn kill_container(&self, id: &str, signal: Option<&str>) -> Result<()> {
        let killed = self.kill(id, signal).await;
        killed.map_err(|error| {
            Error::new(error.code, format!("cannot kill container: {id}: {}", error.message))
        })
    }

    async fn kill(&self, id: &str, signal: Option<&str>) -> Result<()> {
        let number = match signal.filter(|signal| !signal.is_empty()) {
            Some(signal) => signals::parse(signal)?,
            None => signals::KILL,
        };
        let container = self.container(id)?;
        if container.record().state.status == Status::Restarting {
            // There is no process to send it to; as with dockerd there will be none.
            container.change(|record| record.stopped_by_user = true);
            if self.cancel_restart(&container).await? {
                return Ok(());
            }
        }
        let record = container.record();
        if !record.state.is_running() {
            return Err(Error::conflict(format!("container {} is not running", record.id)));
        }
        let stop_signal = record.config.stop_signal.as_deref().and_then(|signal| signals::parse(signal).ok());
        // As dockerd: a kill with the container's own stop signal, or SIGKILL, counts as the user's wish that it ends.
        if number == signals::KILL || number == stop_signal.unwrap_or(signals::TERM) {
            container.change(|record| record.stopped_by_user = true);
        }
        let exits = container.changes.borrow().exits;
        if number == signals::KILL && record.state.status == Status::Paused {
            self.thaw(&container).await?;
        }
        self.signal(&container, number)?;
        if number == signals::KILL {
            exited(&container, exits, Some(std::time::Duration::from_secs(10))).await;
            // An end of its own accord just before the signal looked like one for the restart policy.
            self.cancel_restart(&container).await?;
        }
        Ok(())
    }

    /// Sends a signal and tells it as an event.
    pub(super) fn signal(&self, container: &Arc<Container>, number: i32) -> Result<()> {
        let (_, pidfd) = container.process()?;
        match skiff_linux_sys::signal::send(pidfd.as_fd(), number) {
            Ok(()) => {
                self.container_event(&container.record(), "kill", &[("signal", &number.to_string())]);
                Ok(())
            }
            // It is ending by itself: its exit is on the way.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
            Err(error) => Err(Error::internal("send signal", &error)),
        }
    }
}
