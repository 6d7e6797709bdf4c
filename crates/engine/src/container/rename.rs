//! `rename`.

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::names;

impl Engine {
    /// Gives a container a new name.
    ///
    /// # Errors
    /// When the name is not valid or taken.
    pub async fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let container = self.container(id)?;
        let refused = |error: Error| {
            Error::new(error.code, format!("Error when allocating new name: {}", error.message))
        };
        let slashed = format!("/{}", name.strip_prefix('/').unwrap_or(name));
        let new = names::validate(&slashed).map_err(refused)?.to_owned();
        let operation = container.operation.lock().await;
        let old = container.record().name.clone();
        if old == new {
            return Err(Error::invalid("Renaming a container with the same name as its current name"));
        }
        self.0.registry.reserve(&new, &container.id).map_err(refused)?;
        let record = container.change(|record| record.name.clone_from(&new));
        let engine = self.clone();
        let stored = record.clone();
        if let Err(error) = blocking(move || engine.store(&stored)).await {
            container.change(|record| record.name.clone_from(&old));
            self.0.registry.release(&new);
            return Err(error);
        }
        self.0.registry.release(&old);
        drop(operation);
        self.container_event(&record, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }
}
