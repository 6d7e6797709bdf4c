//! Images whose blobs somebody else has, by digest: OCI layouts and caches in directories of a build's client.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::digest::Digest;
use crate::error::Error;
use crate::image::ParsedConfig;
use crate::load::{blocking, store_layer};
use crate::manifest::{CONFIG_LIMIT, Descriptor, Document, ImageManifest, MANIFEST_LIMIT, MAX_NESTING};
use crate::platform::Platform;
use crate::progress::{Progress, ProgressEvent};
use crate::pull::Described;
use crate::store::{Held, LayerLease, Store};

const READ_SIZE: usize = 256 << 10;

/// Who has blobs. Nothing that comes from there is trusted.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Opens a blob.
    ///
    /// # Errors
    /// When it is not there.
    async fn open(&self, digest: &Digest) -> std::io::Result<Box<dyn AsyncRead + Send + Unpin>>;
}

impl Store {
    /// Finds out what image a digest leads to: that of a manifest, or of a list of them.
    ///
    /// # Errors
    /// When blobs are missing or are something else than their digests say; no manifest for the platform.
    pub async fn describe_blobs(
        &self,
        blobs: &dyn Blobs,
        digest: &Digest,
        platform: Option<&str>,
    ) -> Result<Described, Error> {
        let (manifest, config) = find(blobs, digest, &Store::platform(platform)?).await?;
        let layers = ParsedConfig::parse(&config)?.diff_ids;
        if layers.len() != manifest.layers.len() {
            return Err(Error::LayersMismatch);
        }
        Ok(Described { digest: digest.clone(), config, layers })
    }

    /// Brings layers of such an image here: all of them, or those of `only`.
    ///
    /// # Errors
    /// As [`Store::describe_blobs`]; layer and storage errors.
    pub async fn layers_from_blobs(
        &self,
        blobs: &dyn Blobs,
        digest: &Digest,
        platform: Option<&str>,
        only: Option<&[Digest]>,
        progress: &dyn Progress,
    ) -> Result<Held, Error> {
        let (manifest, config) = find(blobs, digest, &Store::platform(platform)?).await?;
        let parsed = ParsedConfig::parse(&config)?;
        if parsed.diff_ids.len() != manifest.layers.len() {
            return Err(Error::LayersMismatch);
        }
        let mut seen = HashSet::new();
        let mut leases = Vec::new();
        for (descriptor, diff_id) in manifest.layers.iter().zip(&parsed.diff_ids) {
            let wanted = only.is_none_or(|only| only.contains(diff_id)) && seen.insert(diff_id.clone());
            if wanted {
                leases.push(self.layer_from_blob(blobs, descriptor, diff_id, progress).await?);
            }
        }
        Ok(Held::new(leases))
    }

    async fn layer_from_blob(
        &self,
        blobs: &dyn Blobs,
        descriptor: &Descriptor,
        diff_id: &Digest,
        progress: &dyn Progress,
    ) -> Result<LayerLease, Error> {
        let id = descriptor.digest.short();
        if let Some(lease) = self.inner.lease(diff_id) {
            progress.event(ProgressEvent::about(id, "Already exists"));
            return Ok(lease);
        }
        let guard = self.inner.work.lock(diff_id.as_str()).await;
        if let Some(lease) = self.inner.lease(diff_id) {
            return Ok(lease);
        }
        let staged = self.inner.layout.stage();
        let write = |e| Error::io("write", staged.path(), e);
        let mut file = tokio::fs::File::create(staged.path()).await.map_err(write)?;
        let input = |cause| Error::Input { cause };
        let mut reader = blobs.open(&descriptor.digest).await.map_err(input)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; READ_SIZE];
        let mut received = 0;
        loop {
            let got = reader.read(&mut buffer).await.map_err(input)?;
            if got == 0 {
                break;
            }
            received += got as u64;
            if received > descriptor.size {
                return Err(Error::DigestMismatch { digest: descriptor.digest.to_string() });
            }
            hasher.update(&buffer[..got]);
            file.write_all(&buffer[..got]).await.map_err(write)?;
            progress.event(ProgressEvent::measured(id, "Downloading", received, descriptor.size));
        }
        file.flush().await.map_err(write)?;
        drop(file);
        if Digest::finish(hasher) != descriptor.digest {
            return Err(Error::DigestMismatch { digest: descriptor.digest.to_string() });
        }
        let (inner, wanted) = (Arc::clone(&self.inner), diff_id.clone());
        let lease = blocking(move || {
            let path = staged.path();
            let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
            let source = BufReader::with_capacity(READ_SIZE, file);
            let stored = store_layer(&inner, source, Some((path, &wanted)));
            drop(guard);
            stored.map(|(lease, _)| lease)
        })
        .await?;
        progress.event(ProgressEvent::about(id, "Pull complete"));
        Ok(lease)
    }
}

/// Reads a small blob whole.
async fn read(blobs: &dyn Blobs, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
    let reader = blobs.open(digest).await.map_err(|cause| Error::Input { cause })?;
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes).await.map_err(|cause| Error::Input { cause })?;
    if bytes.len() as u64 > limit {
        return Err(Error::Malformed {
            what: format!("blob {digest}"),
            reason: format!("more than {limit} bytes"),
        });
    }
    match Digest::of(&bytes) == *digest {
        true => Ok(bytes),
        false => Err(Error::ManifestMismatch { digest: digest.to_string() }),
    }
}

/// Finds a manifest with its configuration.
async fn find(
    blobs: &dyn Blobs,
    digest: &Digest,
    platform: &Platform,
) -> Result<(ImageManifest, Vec<u8>), Error> {
    let mut digest = digest.clone();
    for _ in 0..=MAX_NESTING {
        let bytes = read(blobs, &digest, MANIFEST_LIMIT).await?;
        match Document::parse(&bytes, None)? {
            Document::List(list) => digest = list.choose(platform)?.digest.clone(),
            Document::Image(manifest) => {
                let config = read(blobs, &manifest.config.digest, CONFIG_LIMIT).await?;
                return Ok((manifest, config));
            }
        }
    }
    Err(Error::Malformed {
        what: format!("manifest {digest}"),
        reason: "lists are nested too deeply".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::progress::Silent;

    struct Memory(HashMap<Digest, Vec<u8>>);

    #[async_trait]
    impl Blobs for Memory {
        async fn open(&self, digest: &Digest) -> std::io::Result<Box<dyn AsyncRead + Send + Unpin>> {
            let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
            let bytes = self.0.get(digest).cloned().ok_or_else(missing)?;
            Ok(Box::new(std::io::Cursor::new(bytes)))
        }
    }

    fn layer(name: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &b"x"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    /// An image of two layers; its manifest's digest and the diff ids.
    fn image() -> (Memory, Digest, Vec<Digest>) {
        let mut blobs = HashMap::new();
        let mut put = |bytes: Vec<u8>| {
            let (digest, size) = (Digest::of(&bytes), bytes.len());
            blobs.insert(digest.clone(), bytes);
            (digest, size)
        };
        let layers = [put(layer("a")), put(layer("b"))];
        let diff_ids: Vec<Digest> = layers.iter().map(|(digest, _)| digest.clone()).collect();
        let ids: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": ids },
        });
        let config = put(config.to_string().into_bytes());
        let describe = |media_type: &str, (digest, size): &(Digest, usize)| json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers
                .iter()
                .map(|layer| describe("application/vnd.oci.image.layer.v1.tar", layer))
                .collect::<Vec<_>>(),
        });
        let (manifest, _) = put(manifest.to_string().into_bytes());
        (Memory(blobs), manifest, diff_ids)
    }

    #[tokio::test]
    async fn layers_come_from_blobs_whole_or_only_those_that_are_wanted() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(crate::Config::new(root.path())).unwrap();
        let (blobs, manifest, diff_ids) = image();
        let platform = Some("linux/amd64");
        let described = store.describe_blobs(&blobs, &manifest, platform).await.unwrap();
        assert_eq!(described.layers, diff_ids);
        let only = [diff_ids[1].clone()];
        let held = store.layers_from_blobs(&blobs, &manifest, platform, Some(&only), &Silent).await.unwrap();
        assert_eq!(held.layers().cloned().collect::<Vec<_>>(), only);
        assert!(store.hold(&diff_ids).is_none(), "the other one was not asked for");
        let all = store.layers_from_blobs(&blobs, &manifest, platform, None, &Silent).await.unwrap();
        assert_eq!(all.layers().cloned().collect::<Vec<_>>(), diff_ids);
        for directory in store.layer_dirs(all.layers()) {
            assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1);
        }
    }

    #[tokio::test]
    async fn a_blob_that_is_something_else_is_refused_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(crate::Config::new(root.path())).unwrap();
        let (mut blobs, manifest, diff_ids) = image();
        let damaged = blobs.0.get_mut(&diff_ids[0]).unwrap();
        damaged[600] ^= 1;
        let pulled = store.layers_from_blobs(&blobs, &manifest, Some("linux/amd64"), None, &Silent).await;
        assert!(matches!(pulled, Err(Error::DigestMismatch { .. })));
        blobs.0.remove(&diff_ids[0]);
        let pulled = store.layers_from_blobs(&blobs, &manifest, Some("linux/amd64"), None, &Silent).await;
        assert!(matches!(pulled, Err(Error::Input { .. })));
        assert_eq!(std::fs::read_dir(store.staging()).unwrap().count(), 0);
        assert!(store.hold(&diff_ids[..1]).is_none());
        assert!(store.describe_blobs(&blobs, &diff_ids[1], None).await.is_err(), "that is no manifest");
    }
}
