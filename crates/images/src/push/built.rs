//! Layers that are no image of the store on their way out: a build's cache.

use std::path::PathBuf;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::{PARALLEL_UPLOADS, Pushed};
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Descriptor, OCI_MANIFEST};
use crate::progress::{Progress, ProgressEvent};
use crate::reference::Reference;
use crate::registry::{Auth, Purpose, Repository};
use crate::store::{Held, Store};

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layer as it is sent. Its file stays for as long as the layer is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedLayer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the file.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// The file, compressed with gzip.
    pub path: PathBuf,
}

/// Makes the manifest of a configuration and its layers.
pub fn oci_manifest(config: &[u8], layers: &[PackedLayer]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(
            |layer| json!({ "mediaType": OCI_LAYER, "digest": layer.digest.to_string(), "size": layer.size }),
        )
        .collect();
    let config =
        json!({ "mediaType": OCI_CONFIG, "digest": Digest::of(config).to_string(), "size": config.len() });
    json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers })
        .to_string()
        .into_bytes()
}

impl Store {
    /// Compresses layers for others, those that are not yet.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn pack_layers(&self, layers: &Held) -> Result<Vec<PackedLayer>, Error> {
        let mut packed = Vec::with_capacity(layers.len());
        for diff_id in layers.layers() {
            let (digest, size) = self.packed_layer(diff_id).await?;
            let path = self.inner.layout.stored(&digest);
            packed.push(PackedLayer { diff_id: diff_id.clone(), digest, size, path });
        }
        Ok(packed)
    }

    /// Pushes a configuration with its layers under a name; the store keeps nothing of it.
    ///
    /// # Errors
    /// As [`Store::push`].
    pub async fn push_built(
        &self,
        reference: &str,
        config: Vec<u8>,
        layers: &Held,
        auth: Option<Auth>,
        progress: &dyn Progress,
    ) -> Result<Pushed, Error> {
        let reference = Reference::parse(reference)?.or_latest();
        let tag = super::tag_to_push(&reference)?;
        let endpoint = self.inner.client.endpoints(&reference).pop().ok_or(Error::Interrupted)?;
        let repository = self.inner.client.repository(&endpoint, &reference, auth, Purpose::Push).await?;
        let manifest = self.send_built(&repository, &reference, config, layers, progress).await?;
        let (digest, size) = (Digest::of(&manifest), manifest.len() as u64);
        repository.put_manifest(&tag, OCI_MANIFEST, manifest).await?;
        progress.event(ProgressEvent::line(format!("{tag}: digest: {digest} size: {size}")));
        Ok(Pushed { tag, digest, size })
    }

    /// Sends a configuration and its layers; returns the manifest, which is still to be put.
    pub(super) async fn send_built(
        &self,
        repository: &Repository,
        reference: &Reference,
        config: Vec<u8>,
        layers: &Held,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, Error> {
        let packed = self.pack_layers(layers).await?;
        let manifest = oci_manifest(&config, &packed);
        let blobs: Vec<(Descriptor, Digest)> = packed
            .into_iter()
            .map(|layer| {
                let blob = Descriptor {
                    media_type: OCI_LAYER.to_owned(),
                    digest: layer.digest,
                    size: layer.size,
                    platform: None,
                    annotations: std::collections::BTreeMap::new(),
                };
                (blob, layer.diff_id)
            })
            .collect();
        let uploads = blobs
            .iter()
            .map(|(blob, diff_id)| self.push_layer(repository, reference, blob, diff_id.clone(), progress));
        stream::iter(uploads.collect::<Vec<_>>())
            .buffer_unordered(PARALLEL_UPLOADS)
            .try_collect::<Vec<()>>()
            .await?;
        let config_digest = Digest::of(&config);
        if !repository.has_blob(&config_digest).await? {
            repository.upload_bytes(&config_digest, config).await?;
        }
        Ok(manifest)
    }
}
