//! `pause` and `unpause`.

use std::sync::Arc;

use super::Container;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::state::Status;

impl Engine {
    /// Freezes all processes of a container.
    ///
    /// # Errors
    /// When it does not run, is paused already, or the machine has no freezer.
    pub async fn pause_container(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _operation = container.operation.lock().await;
        match container.record().state.status {
            Status::Running => {}
            Status::Paused => {
                return Err(Error::conflict(format!("Container {} is already paused", container.id)));
            }
            _ => return Err(Error::conflict(format!("container {} is not running", container.id))),
        }
        self.stop_health(&container);
        if let Err(error) = freeze(&container, true).await {
            self.monitor_health(&container);
            return Err(error);
        }
        let record = container.change(|record| record.state.status = Status::Paused);
        self.store_later(&record);
        self.container_event(&record, "pause", &[]);
        Ok(())
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// When it is not paused.
    pub async fn unpause_container(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        if container.record().state.status != Status::Paused {
            // Docker's own status for this.
            return Err(Error::new(Code::Internal, format!("Container {} is not paused", container.id)));
        }
        self.thaw(&container).await
    }

    pub(super) async fn thaw(&self, container: &Arc<Container>) -> Result<()> {
        let _operation = container.operation.lock().await;
        if container.record().state.status != Status::Paused {
            return Ok(());
        }
        freeze(container, false).await?;
        let record = container.change(|record| record.state.status = Status::Running);
        self.store_later(&record);
        self.container_event(&record, "unpause", &[]);
        self.monitor_health(container);
        Ok(())
    }
}

async fn freeze(container: &Arc<Container>, frozen: bool) -> Result<()> {
    let cgroup = container.cgroup().ok_or_else(|| {
        Error::new(
            Code::Unavailable,
            format!("cannot pause container {}: this machine has no cgroup v2 freezer", container.id),
        )
    })?;
    blocking(move || cgroup.freeze(frozen).map_err(|error| Error::internal("freezer", &error))).await
}
