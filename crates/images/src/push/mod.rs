//! Pushing an image: its layers, several at once, then the configuration, then the manifest under the tag.
//!
//! An image that came with a manifest goes out with just that manifest, so that its digest stays what it was.

mod built;
mod layer;
mod several;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

pub use built::{PackedLayer, oci_manifest};
pub use several::BuiltFor;
pub(crate) use several::oci_index;

use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{DOCKER_MANIFEST, Descriptor, Document, ImageManifest, MANIFEST_LIMIT, OCI_MANIFEST};
use crate::progress::{Progress, ProgressEvent};
use crate::reference::Reference;
use crate::registry::{Auth, LoggedIn, Purpose};
use crate::store::Store;

/// How many layers go out at once.
const PARALLEL_UPLOADS: usize = 5;
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// A tag that the registry has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
}

/// A manifest to be sent.
struct Outgoing {
    bytes: Vec<u8>,
    media_type: String,
    layers: Vec<Descriptor>,
}

/// The tag that something is pushed under.
fn tag_to_push(reference: &Reference) -> Result<String, Error> {
    let tag = reference.tag().filter(|_| reference.digest().is_none());
    tag.map(str::to_owned)
        .ok_or_else(|| Error::Invalid { message: "cannot push a digest reference".to_owned() })
}

impl Store {
    /// Pushes the image of a name; one without a tag means every tag of that repository here.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] in Docker's words for it; what the registry refuses; storage errors.
    pub async fn push(
        &self,
        reference: &str,
        auth: Option<Auth>,
        progress: &dyn Progress,
    ) -> Result<Vec<Pushed>, Error> {
        let reference = Reference::parse(reference)?;
        if reference.digest().is_some() {
            return Err(Error::Invalid { message: "cannot push a digest reference".to_owned() });
        }
        progress.event(ProgressEvent::line(format!("The push refers to repository [{}]", reference.name())));
        if let Some(pushed) = self.pushed_before(&reference, progress) {
            return Ok(vec![pushed]);
        }
        let tags = self.tags_to_push(&reference)?;
        let endpoint = self.inner.client.endpoints(&reference).pop().ok_or(Error::Interrupted)?;
        let repository = self.inner.client.repository(&endpoint, &reference, auth, Purpose::Push).await?;
        let mut pushed = Vec::new();
        for (tag, id) in tags {
            let manifest = self.manifest_to_push(&id).await?;
            let uploads = manifest
                .layers
                .iter()
                .zip(self.inner.layers_of(&id)?)
                .map(|(blob, diff_id)| self.push_layer(&repository, &reference, blob, diff_id, progress));
            stream::iter(uploads.rev().collect::<Vec<_>>())
                .buffer_unordered(PARALLEL_UPLOADS)
                .try_collect::<Vec<()>>()
                .await?;
            let config = self.inner.read_blob(&id.parse().map_err(|_| Error::Interrupted)?).await?;
            let config_digest = Digest::of(&config);
            if !repository.has_blob(&config_digest).await? {
                repository.upload_bytes(&config_digest, config).await?;
            }
            let digest = Digest::of(&manifest.bytes);
            let size = manifest.bytes.len() as u64;
            repository.put_manifest(&tag, &manifest.media_type, manifest.bytes).await?;
            self.record_pushed(&id, &reference.at_digest(digest.clone()))?;
            progress.event(ProgressEvent::line(format!("{tag}: digest: {digest} size: {size}")));
            pushed.push(Pushed { tag, digest, size });
        }
        Ok(pushed)
    }

    /// Asks a registry whether it takes credentials; `server` is an address as users write it.
    ///
    /// # Errors
    /// [`Error::RegistryUnauthorized`] when it does not.
    pub async fn login(&self, server: &str, auth: Auth) -> Result<LoggedIn, Error> {
        self.inner.client.login(server, auth).await
    }

    /// Lists tags and image ids that a name means.
    fn tags_to_push(&self, reference: &Reference) -> Result<Vec<(String, String)>, Error> {
        let tags: Vec<(String, String)> = self
            .inner
            .tags_of(reference)
            .into_iter()
            .filter(|(tag, _)| reference.tag().is_none_or(|wanted| wanted == tag))
            .collect();
        if tags.is_empty() {
            let name = reference.familiar_name();
            let message = match reference.tag() {
                Some(tag) if self.inner.knows_repository(reference) => {
                    format!("tag does not exist: {name}:{tag}")
                }
                _ => format!("An image does not exist locally with the tag: {name}"),
            };
            return Err(Error::NotPushed { message });
        }
        Ok(tags)
    }

    /// Finds the manifest that the image came with, or makes one.
    async fn manifest_to_push(&self, id: &str) -> Result<Outgoing, Error> {
        for digest in self.inner.manifests_of(id) {
            let bytes = self.inner.read_blob(&digest).await?;
            if bytes.len() as u64 > MANIFEST_LIMIT {
                continue;
            }
            let Ok(Document::Image(manifest)) = Document::parse(&bytes, None) else { continue };
            if self.is_whole(id, &manifest) {
                let own: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                let media_type = own["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
                return Ok(Outgoing { bytes, media_type, layers: manifest.layers });
            }
        }
        let mut layers = Vec::new();
        for diff_id in self.inner.layers_of(id)? {
            let (digest, size) = self.packed_layer(&diff_id).await?;
            layers.push(Descriptor {
                media_type: DOCKER_LAYER.to_owned(),
                digest,
                size,
                platform: None,
                annotations: std::collections::BTreeMap::new(),
            });
        }
        let config_size = self.inner.read_blob(&id.parse().map_err(|_| Error::Interrupted)?).await?.len();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": { "mediaType": DOCKER_CONFIG, "size": config_size, "digest": id },
            "layers": layers
                .iter()
                .map(|l| json!({ "mediaType": l.media_type, "size": l.size, "digest": l.digest.to_string() }))
                .collect::<Vec<_>>(),
        });
        // Docker's indentation, so that equal layers make an equal manifest.
        let mut bytes = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"   ");
        serde::Serialize::serialize(
            &manifest,
            &mut serde_json::Serializer::with_formatter(&mut bytes, format),
        )
        .map_err(|e| Error::Malformed { what: "manifest".to_owned(), reason: e.to_string() })?;
        Ok(Outgoing { bytes, media_type: DOCKER_MANIFEST.to_owned(), layers })
    }

    /// Says whether a manifest is that of an image, with all its blobs here.
    fn is_whole(&self, id: &str, manifest: &ImageManifest) -> bool {
        manifest.config.digest.as_str() == id
            && manifest.layers.iter().all(|layer| self.inner.layout.blob(&layer.digest).exists())
    }
}
