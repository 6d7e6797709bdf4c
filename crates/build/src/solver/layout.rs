//! Images in directories of the client: OCI layouts, and caches that were exported there.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use skiff_images::{Blobs, Digest};
use tokio::io::AsyncRead;

use super::Job;
use super::image::{Base, Origin, platform_text};
use super::value::{Snapshot, Value};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::frontend::ResolvedImage;
use crate::graph::pb;

/// A store of blobs that the client has.
#[derive(Clone)]
pub(crate) struct ClientBlobs {
    pub client: Client,
    /// The session that has it; empty: the build's own.
    pub session: String,
    /// Its name, with its kind: `oci:NAME`, `local:DIRECTORY`.
    pub store: String,
}

#[async_trait]
impl Blobs for ClientBlobs {
    async fn open(&self, digest: &Digest) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
        let opened = self.client.stores.open(&self.session, &self.store, digest.as_str()).await;
        opened.map_err(|error| io::Error::other(error.to_string()))
    }
}

/// An image in an OCI layout.
struct Place {
    blobs: ClientBlobs,
    digest: Digest,
}

/// Reads `NAME[:TAG]@DIGEST`; `store` and `session` are what a definition says about it.
fn place(job: &Job, text: &str, store: Option<&String>, session: Option<&String>) -> Result<Place> {
    let wrong = || Error::invalid(format!("invalid OCI layout reference {text:?}"));
    let (name, digest) = text.rsplit_once('@').ok_or_else(wrong)?;
    let digest = digest.parse().map_err(|_| wrong())?;
    let store = store.filter(|store| !store.is_empty()).map_or(name, String::as_str);
    let blobs = ClientBlobs {
        client: job.client().clone(),
        session: session.cloned().unwrap_or_default(),
        store: format!("oci:{}", bare(store)),
    };
    Ok(Place { blobs, digest })
}

/// A name without its tag.
fn bare(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// Finds out what image is there.
pub(super) async fn resolve(
    job: &Job,
    text: &str,
    store: &str,
    session: &str,
    platform: Option<&pb::Platform>,
) -> Result<ResolvedImage> {
    let place = place(job, text, Some(&store.to_owned()), Some(&session.to_owned()))?;
    let platform = platform_text(platform);
    let images = job.solver().images();
    let described = images.describe_blobs(&place.blobs, &place.digest, platform.as_deref()).await?;
    Ok(ResolvedImage {
        name: text.to_owned(),
        digest: described.digest.to_string(),
        config: described.config,
    })
}

/// Loads one: its layers come once somebody needs them.
pub(super) async fn load(
    job: &Job,
    text: &str,
    op: &pb::SourceOp,
    platform: Option<&pb::Platform>,
) -> Result<(Value, bool)> {
    let place = place(job, text, op.attrs.get("oci.store"), op.attrs.get("oci.session"))?;
    let platform = platform_text(platform);
    let images = job.solver().images();
    let described = images.describe_blobs(&place.blobs, &place.digest, platform.as_deref()).await?;
    let origin = Origin::Blobs { blobs: place.blobs, digest: place.digest };
    let base = Base::new(text, origin, platform, job.client(), described.layers.clone());
    Ok((Value::Layers(Snapshot::of_image(described.layers, Arc::new(base))), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_name_without_its_tag() {
        assert_eq!(bare("abc:latest"), "abc");
        assert_eq!(bare("abc"), "abc");
        assert_eq!(bare("host:5000/abc"), "host:5000/abc");
    }
}
