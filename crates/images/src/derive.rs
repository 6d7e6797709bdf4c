//! An image made of another one and a layer on top (`docker commit`).

use std::io::{BufReader, Write};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::changes;
use crate::digest::Digest;
use crate::error::Error;
use crate::image::{Image, ParsedConfig};
use crate::layer::LayerError;
use crate::load::{blocking, store_layer};
use crate::reference::Reference;
use crate::store::{NewImage, Store};

/// The uncompressed layer without any file.
const EMPTY_LAYER: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What is on top of the parent.
#[derive(Debug, Clone, Default)]
pub struct NewLayer {
    /// The id of the image below.
    pub parent: String,
    /// The configuration of the new image.
    pub config: Map<String, Value>,
    /// What the history says of the layer.
    pub created_by: String,
    /// Who made it.
    pub author: String,
    /// A remark.
    pub comment: String,
    /// The container that it was made of, and its configuration.
    pub container: (String, Value),
    /// The image's name.
    pub name: Option<String>,
    /// The version of Docker that the image is said to be made by.
    pub docker_version: String,
}

/// Applies Dockerfile instructions (`CMD …`, `ENV …`) to an image's configuration. A change may be several lines.
///
/// # Errors
/// An instruction that makes no sense, or may not be used so.
pub fn apply_changes(config: &mut Map<String, Value>, changes: &[String]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let instructions = changes::instructions(&changes.join("\n"));
    if instructions.is_empty() {
        return Err(Error::Invalid { message: "file with no instructions".to_owned() });
    }
    instructions.iter().try_for_each(|instruction| changes::apply(config, instruction))
}

impl Store {
    /// Makes an image of another one and the tar that `layer` writes; one without entries adds no layer.
    ///
    /// # Errors
    /// A wrong name, before anything is done; what `layer` fails with; layer and storage errors.
    pub async fn derive(
        &self,
        new: NewLayer,
        layer: impl FnOnce(&mut dyn Write) -> std::io::Result<()> + Send + 'static,
    ) -> Result<Image, Error> {
        let name = new.name.as_deref().map(Reference::parse).transpose()?;
        if name.as_ref().is_some_and(|name| name.digest().is_some()) {
            return Err(Error::Invalid { message: "cannot import digest reference".to_owned() });
        }
        let parent = self
            .inner
            .parsed(&new.parent)
            .ok_or_else(|| Error::NoSuchImage { reference: new.parent.clone() })?;
        let mut leases = Vec::new();
        for diff_id in &parent.diff_ids {
            let lease = self.inner.lease(diff_id);
            leases.push(lease.ok_or_else(|| Error::NoSuchImage { reference: new.parent.clone() })?);
        }
        let inner = Arc::clone(&self.inner);
        let (lease, unpacked) = blocking(move || {
            let failed = |cause| Error::Layer {
                layer: "of the container".to_owned(),
                cause: LayerError::Storage { op: "read", entry: "the container's files".to_owned(), cause },
            };
            let (read, mut write) = std::io::pipe().map_err(failed)?;
            std::thread::scope(|scope| {
                // The end of the pipe goes with the thread, so that the reader is not left waiting.
                let writer = scope.spawn(move || layer(&mut write));
                let stored = store_layer(&inner, BufReader::with_capacity(128 << 10, read), None);
                let written = writer.join().map_err(|_| Error::Interrupted)?;
                match (written, stored) {
                    // A reader that gives up breaks the pipe: its own words tell more.
                    (Err(error), Err(stored)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                        Err(stored)
                    }
                    (Err(error), _) => Err(failed(error)),
                    (Ok(()), stored) => stored,
                }
            })
        })
        .await?;
        let is_empty = unpacked.diff_id.as_str() == EMPTY_LAYER;
        if !is_empty {
            leases.push(lease);
        }
        let added = (!is_empty).then_some(&unpacked.diff_id);
        let config = document(&parent, &new, added).to_string().into_bytes();
        let parsed = ParsedConfig::parse(&config)?;
        let id = parsed.id.to_string();
        self.commit(NewImage {
            config,
            parsed,
            manifests: Vec::new(),
            layer_blobs: Vec::new(),
            names: name.map(Reference::or_latest).into_iter().collect(),
            parent: Some(new.parent),
            seed: None,
            leases,
        })
        .await?;
        self.get(&id)
    }
}

fn document(parent: &ParsedConfig, new: &NewLayer, added: Option<&Digest>) -> Value {
    let created = jiff::Timestamp::now().to_string();
    let mut document = Map::new();
    for key in ["architecture", "os", "variant", "os.version", "os.features"] {
        document.extend(parent.raw.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    let mut history = parent.raw.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut entry = json!({ "created": created, "created_by": new.created_by });
    for (key, value) in [("author", &new.author), ("comment", &new.comment)] {
        if !value.is_empty() {
            entry[key] = Value::from(value.as_str());
            document.insert(key.to_owned(), Value::from(value.as_str()));
        }
    }
    if added.is_none() {
        entry["empty_layer"] = Value::from(true);
    }
    history.push(entry);
    let layers: Vec<&str> = parent.diff_ids.iter().chain(added).map(Digest::as_str).collect();
    document.insert("created".to_owned(), Value::from(created));
    document.insert("docker_version".to_owned(), Value::from(new.docker_version.as_str()));
    document.insert("container".to_owned(), Value::from(new.container.0.as_str()));
    document.insert("container_config".to_owned(), new.container.1.clone());
    document.insert("config".to_owned(), Value::Object(new.config.clone()));
    document.insert("history".to_owned(), Value::Array(history));
    document.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": layers }));
    Value::Object(document)
}
