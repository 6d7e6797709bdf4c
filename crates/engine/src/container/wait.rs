//! `wait`.

use bollard_stubs::models::{ContainerWaitExitError, ContainerWaitResponse};

use super::Change;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::options::{WaitCondition, Waiting};

impl Engine {
    /// Begins to wait: once this returns, no exit is missed.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn wait_container(&self, id: &str, condition: WaitCondition) -> Result<Waiting> {
        let container = self.container(id)?;
        if condition == WaitCondition::Removed {
            // A permit stays if nobody listens yet.
            container.removal_awaited.notify_one();
        }
        let mut changes = container.changes.subscribe();
        let exits = changes.borrow_and_update().exits;
        Ok(Box::pin(async move {
            let reached = |change: &Change| match condition {
                // An exit ends it, also one that the restart policy makes good again.
                WaitCondition::NotRunning => !change.running || change.exits > exits || change.removed,
                WaitCondition::NextExit => change.exits > exits || change.removed,
                WaitCondition::Removed => change.removed,
            };
            // The container is held here, so the sender lives.
            let _container = container;
            match changes.wait_for(reached).await {
                Ok(change) => Ok(ContainerWaitResponse {
                    status_code: change.exit_code.into(),
                    error: (!change.error.is_empty())
                        .then(|| ContainerWaitExitError { message: Some(change.error.clone()) }),
                }),
                Err(_) => Err(Error::new(Code::Internal, "the container has gone")),
            }
        }))
    }
}
