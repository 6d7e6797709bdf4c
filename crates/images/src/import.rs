//! Importing a root file system as an image of one layer (`docker import`).

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::io::AsyncRead;

use crate::changes;
use crate::error::Error;
use crate::image::{Image, ParsedConfig};
use crate::load::{blocking_read, store_layer};
use crate::reference::Reference;
use crate::store::{NewImage, Store};

impl Store {
    /// Makes an image from a tar of a root file system, compressed or not.
    ///
    /// `changes` are Dockerfile instructions such as `CMD ["sh"]` or `ENV a=b`.
    ///
    /// # Errors
    /// A wrong name or instruction, before anything is read; layer and storage errors.
    pub async fn import(
        &self,
        reader: impl AsyncRead + Send + Unpin,
        name: Option<&str>,
        message: &str,
        changes: &[String],
        platform: Option<&str>,
        docker_version: &str,
    ) -> Result<Image, Error> {
        let name = name.filter(|n| !n.is_empty()).map(Reference::parse).transpose()?;
        if name.as_ref().is_some_and(|n| n.digest().is_some()) {
            return Err(Error::Invalid { message: "cannot import digest reference".to_owned() });
        }
        let platform = Store::platform(platform)?;
        let mut config = Map::new();
        for change in changes {
            changes::apply(&mut config, change)?;
        }
        let inner = Arc::clone(&self.inner);
        let (lease, unpacked) =
            blocking_read(reader, move |chunks| store_layer(&inner, chunks, None).map_err(as_archive))
                .await?;
        let created = jiff::Timestamp::now().to_string();
        let comment = if message.is_empty() { "Imported from -" } else { message };
        let mut document = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "created": created,
            "comment": comment,
            "docker_version": docker_version,
            "config": Value::Object(config),
            "history": [{ "created": created, "comment": comment }],
            "rootfs": { "type": "layers", "diff_ids": [unpacked.diff_id.as_str()] },
        });
        if !platform.variant.is_empty() {
            document["variant"] = Value::from(platform.variant);
        }
        let config = document.to_string().into_bytes();
        let parsed = ParsedConfig::parse(&config)?;
        let id = parsed.id.to_string();
        self.commit(NewImage {
            config,
            parsed,
            manifests: Vec::new(),
            layer_blobs: Vec::new(),
            names: name.map(Reference::or_latest).into_iter().collect(),
            parent: None,
            seed: None,
            leases: vec![lease],
        })
        .await?;
        self.get(&id)
    }
}

/// There is one layer, so its name says nothing; a full disk stays what it is.
fn as_archive(error: Error) -> Error {
    match error {
        Error::Layer { cause, .. } if cause.is_about_content() => {
            Error::Archive { reason: cause.to_string() }
        }
        other => other,
    }
}
