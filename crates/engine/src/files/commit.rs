//! An image of a container: `docker commit`.

use std::os::fd::AsFd;
use std::sync::Arc;

use bollard_stubs::models::ContainerConfig;
use serde_json::{Map, Value};
use skiff_images::archive::Packer;
use skiff_images::{NewLayer, Reference, apply_changes};

use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::images::image_error;
use crate::state::Status;

/// What a commit takes.
#[derive(Debug, Clone, Default)]
pub struct CommitContainer {
    /// The container.
    pub container: String,
    /// `name[:tag]`; `None` makes an image without a name.
    pub reference: Option<String>,
    /// Who made it.
    pub author: String,
    /// A remark.
    pub comment: String,
    /// Whether the container is paused meanwhile.
    pub pause: bool,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
    /// A configuration instead of the container's; what it leaves out is the container's.
    pub config: Option<ContainerConfig>,
}

impl Engine {
    /// Makes an image of a container; returns its id.
    ///
    /// # Errors
    /// When a change or the name makes no sense: nothing is made then.
    pub async fn commit_container(&self, request: CommitContainer) -> Result<String> {
        let container = self.container(&request.container)?;
        let record = container.record();
        if record.state.status == Status::Dead {
            return Err(Error::conflict(format!("You cannot commit container {} which is Dead", record.id)));
        }
        let own = object(&record.config)?;
        let mut config = match &request.config {
            Some(config) => object(config)?,
            None => own.clone(),
        };
        apply_changes(&mut config, &request.changes).map_err(|error| image_error(&error))?;
        merge(&mut config, &own);
        let command: Vec<&str> = own
            .get("Cmd")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let layer = NewLayer {
            parent: record.image_id.clone(),
            config,
            created_by: command.join(" "),
            author: request.author,
            comment: request.comment.clone(),
            container: (record.id.clone(), Value::Object(own.clone())),
            name: request.reference.clone(),
            docker_version: crate::system::DOCKER_VERSION.to_owned(),
        };
        let paused = request.pause && self.pause_for_commit(&container).await?;
        let engine = self.clone();
        let source = Arc::clone(&record);
        let made = async {
            let (upper, changes) = blocking(move || engine.changes_of(&source)).await?;
            let images = &self.0.config.images;
            let image = images.derive(layer, move |out| {
                let mut packer = Packer::new(out);
                packer.add_changes(upper.as_fd(), &changes)?;
                packer.finish().map(drop)
            });
            image.await.map_err(|error| image_error(&error))
        }
        .await;
        if let Ok(image) = &made {
            let name = request.reference.and_then(|name| Reference::parse(&name).ok());
            let shown = name.map(|name| name.or_latest().familiar()).unwrap_or_default();
            if !shown.is_empty() {
                self.image_event(&image.id, "tag", &shown, &image.labels);
            }
            let attributes =
                [("comment", request.comment.as_str()), ("imageID", &image.id), ("imageRef", &shown)];
            self.container_event(&container.record(), "commit", &attributes);
        }
        if paused && let Err(error) = self.unpause_container(&record.id).await {
            // It may have ended, or somebody else was quicker.
            tracing::debug!(%error, container = record.id, "not unpaused after a commit");
        }
        Ok(made?.id)
    }

    /// Pauses a container that runs; says whether it did. A machine without a freezer commits without.
    async fn pause_for_commit(&self, container: &Container) -> Result<bool> {
        if container.record().state.status != Status::Running {
            return Ok(false);
        }
        match self.pause_container(&container.id).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.code, Code::Conflict | Code::Unavailable) => {
                tracing::debug!(%error, container = container.id, "committed without a pause");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// A configuration as JSON, without what says nothing.
fn object(config: &ContainerConfig) -> Result<Map<String, Value>> {
    let value = serde_json::to_value(config);
    match value.map_err(|error| Error::internal("write the configuration", &error))? {
        Value::Object(mut object) => {
            object.retain(|_, value| !value.is_null());
            Ok(object)
        }
        _ => Ok(Map::new()),
    }
}

/// Fills what a configuration leaves out from another one, by Docker's rules.
fn merge(config: &mut Map<String, Value>, base: &Map<String, Value>) {
    let empty = |config: &Map<String, Value>, key: &str| match config.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(object)) => object.is_empty(),
        Some(_) => false,
    };
    // An entry point of the user's own goes with the user's own arguments, also with none.
    if empty(config, "Entrypoint") {
        if empty(config, "Cmd") {
            config.extend(base.get("Cmd").map(|value| ("Cmd".to_owned(), value.clone())));
        }
        if !config.contains_key("Entrypoint") {
            config.extend(base.get("Entrypoint").map(|value| ("Entrypoint".to_owned(), value.clone())));
        }
    }
    for key in ["User", "WorkingDir", "StopSignal", "Healthcheck"] {
        if empty(config, key) {
            config.extend(base.get(key).map(|value| (key.to_owned(), value.clone())));
        }
    }
    for key in ["ExposedPorts", "Labels", "Volumes"] {
        let Some(Value::Object(more)) = base.get(key) else { continue };
        match config.get_mut(key) {
            Some(Value::Object(have)) => {
                for (name, value) in more {
                    have.entry(name).or_insert_with(|| value.clone());
                }
            }
            _ => {
                config.insert(key.to_owned(), Value::Object(more.clone()));
            }
        }
    }
    let Some(Value::Array(more)) = base.get("Env") else { return };
    let name = |value: &Value| value.as_str().map(|text| text.split('=').next().unwrap_or(text).to_owned());
    match config.get_mut("Env") {
        Some(Value::Array(have)) => {
            let known: Vec<_> = have.iter().map(name).collect();
            have.extend(more.iter().filter(|value| !known.contains(&name(value))).cloned());
        }
        _ => {
            config.insert("Env".to_owned(), Value::Array(more.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_is_the_containers() {
        let base = json!({
            "Cmd": ["sleep"], "Entrypoint": ["tini"], "User": "1", "Env": ["A=1", "B=2"], "Labels": {"x": "1", "y": "2"},
        });
        let merged = |config: Value| {
            let mut config = config.as_object().cloned().unwrap();
            merge(&mut config, base.as_object().unwrap());
            Value::Object(config)
        };
        assert_eq!(merged(json!({})), base);
        let own = merged(json!({ "Entrypoint": ["sh"], "Env": ["B=3"], "Labels": {"x": "3"}, "User": "" }));
        assert_eq!(
            own,
            json!({
                "Entrypoint": ["sh"], "Env": ["B=3", "A=1"], "Labels": {"x": "3", "y": "2"}, "User": "1",
            })
        );
        assert_eq!(merged(json!({ "Cmd": ["id"] }))["Entrypoint"], json!(["tini"]));
    }
}
