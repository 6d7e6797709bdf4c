//! Manifests at a registry, without an image here: what is there, and lists that are made by hand.

use std::io::Write as _;

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::error::Error;
use crate::hashed::HashedFile;
use crate::manifest::{
    CONFIG_LIMIT, Descriptor, Document, ImageManifest, OCI_INDEX, OCI_MANIFEST, parse_json,
};
use crate::reference::Reference;
use crate::registry::{Auth, Endpoint, Purpose, Repository, Sent};
use crate::store::Store;

/// Attempts at a blob that has to be carried from one repository to another.
const MAX_ATTEMPTS: u32 = 5;

/// A manifest as a registry has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it calls itself, or else what the registry calls it.
    pub media_type: Option<String>,
    /// Whether it is a list of others.
    pub is_list: bool,
    /// The platforms that there are images for, as an image's configuration or a list has them.
    pub platforms: Vec<Value>,
}

impl RemoteManifest {
    /// The body of `GET /distribution/{name}/json`.
    pub fn description(&self) -> Value {
        json!({
            "Descriptor": {
                "mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.bytes.len(),
            },
            "Platforms": Some(&self.platforms).filter(|platforms| !platforms.is_empty()),
        })
    }
}

/// A manifest that a hand-made list brought along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedMember {
    /// Where it is now: `registry/repository@digest`.
    pub reference: String,
    /// Its digest.
    pub digest: Digest,
}

impl Store {
    /// Describes what a registry has under a name: the body of `GET /distribution/{name}/json`.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub async fn describe_remote(&self, reference: &str, auth: Option<Auth>) -> Result<Value, Error> {
        Ok(self.remote_manifest(reference, auth).await?.description())
    }

    /// Fetches what a registry has under a name.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub async fn remote_manifest(
        &self,
        reference: &str,
        auth: Option<Auth>,
    ) -> Result<RemoteManifest, Error> {
        let reference = Reference::parse(reference)?.or_latest();
        let mut endpoints = self.inner.client.endpoints(&reference);
        let registry = endpoints.pop().ok_or(Error::Interrupted)?;
        for mirror in &endpoints {
            match self.manifest_at(mirror, &reference, None).await {
                Ok(found) => return Ok(found),
                Err(error) => tracing::debug!(%error, mirror = mirror.authority, "mirror can't describe it"),
            }
        }
        self.manifest_at(&registry, &reference, auth).await
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: Option<Auth>,
    ) -> Result<RemoteManifest, Error> {
        let repository = self.inner.client.repository(endpoint, reference, auth, Purpose::Describe).await?;
        let found = repository.manifest(&named(reference), reference.digest()).await?;
        let document = Document::parse(&found.bytes, found.media_type.as_deref())?;
        let platforms: Vec<Value> = match &document {
            Document::List(list) => list
                .manifests
                .iter()
                .filter_map(|d| serde_json::to_value(d.platform.as_ref()?).ok())
                .collect(),
            Document::Image(manifest) if !manifest.is_image() => Vec::new(),
            Document::Image(manifest) => {
                let (digest, size) = (&manifest.config.digest, manifest.config.size);
                let config = repository.small_blob(digest, size, CONFIG_LIMIT).await?;
                let config: Value = parse_json("image configuration", &config)?;
                let mut platform = Map::new();
                for key in ["architecture", "os", "os.version", "os.features", "variant"] {
                    platform.extend(config.get(key).map(|value| (key.to_owned(), value.clone())));
                }
                vec![platform.into()]
            }
        };
        let own: Value = serde_json::from_slice(&found.bytes).unwrap_or_default();
        let media_type = own["mediaType"].as_str().map(str::to_owned).or(found.media_type);
        let is_list = matches!(document, Document::List(_));
        Ok(RemoteManifest { digest: found.digest, bytes: found.bytes, media_type, is_list, platforms })
    }

    /// Pushes a list that was made by hand. Its members may be in other repositories of the same registry: they and
    /// their blobs are brought to the list's own.
    ///
    /// # Errors
    /// A list that is none; members elsewhere; what the registry refuses.
    pub async fn push_list(
        &self,
        target: &str,
        list: Vec<u8>,
        members: &[String],
        auth: Option<Auth>,
    ) -> Result<(Digest, Vec<PushedMember>), Error> {
        let target = Reference::parse(target)?.or_latest();
        let Document::List(_) = Document::parse(&list, None)? else {
            return Err(Error::Invalid { message: "this is no list of manifests".to_owned() });
        };
        let to = self.at_registry(&target, auth.clone(), Purpose::Push).await?;
        let mut pushed = Vec::new();
        for member in members {
            let member = Reference::parse(member)?.or_latest();
            if member.domain() != target.domain() {
                return Err(Error::Invalid {
                    message: format!(
                        "cannot use source images from a different registry than the target image: {} != {}",
                        member.domain(),
                        target.domain()
                    ),
                });
            }
            let from = self.at_registry(&member, auth.clone(), Purpose::Describe).await?;
            let found = from.manifest(&named(&member), member.digest()).await?;
            let Document::Image(manifest) = Document::parse(&found.bytes, found.media_type.as_deref())?
            else {
                return Err(Error::Invalid { message: format!("{member} is a manifest list") });
            };
            if member.path() != target.path() {
                for blob in blobs(&manifest) {
                    self.carry(&from, &to, member.path(), blob).await?;
                }
            }
            let media_type = found.media_type.as_deref().unwrap_or(OCI_MANIFEST);
            to.put_manifest(found.digest.as_str(), media_type, found.bytes).await?;
            let reference = format!("{}@{}", target.name(), found.digest);
            pushed.push(PushedMember { reference, digest: found.digest });
        }
        let own: Value = serde_json::from_slice(&list).unwrap_or_default();
        let digest = Digest::of(&list);
        to.put_manifest(&named(&target), own["mediaType"].as_str().unwrap_or(OCI_INDEX), list).await?;
        Ok((digest, pushed))
    }

    async fn at_registry(
        &self,
        reference: &Reference,
        auth: Option<Auth>,
        purpose: Purpose,
    ) -> Result<Repository, Error> {
        let endpoint = self.inner.client.endpoints(reference).pop().ok_or(Error::Interrupted)?;
        self.inner.client.repository(&endpoint, reference, auth, purpose).await
    }

    /// Brings a blob from one repository to another: mounted if the registry will, else through here.
    async fn carry(
        &self,
        from: &Repository,
        to: &Repository,
        from_path: &str,
        blob: &Descriptor,
    ) -> Result<(), Error> {
        if to.has_blob(&blob.digest).await? || to.mount_blob(&blob.digest, from_path).await? {
            return Ok(());
        }
        let staged = self.inner.layout.stage();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = async {
                let write = |e| Error::io("write", staged.path(), e);
                let file = std::fs::File::create(staged.path())
                    .map_err(|e| Error::io("create", staged.path(), e))?;
                let mut file = HashedFile::new(file);
                let mut body =
                    from.blob(&blob.digest, 0).await.map_err(crate::registry::Failure::into_error)?;
                let mut left = blob.size;
                while let Some(data) = body.next().await? {
                    left = left
                        .checked_sub(data.len() as u64)
                        .ok_or_else(|| Error::DigestMismatch { digest: blob.digest.to_string() })?;
                    file.write_all(&data).map_err(write)?;
                }
                match file.finish().0 == blob.digest {
                    true => Ok(()),
                    false => Err(Error::DigestMismatch { digest: blob.digest.to_string() }),
                }
            }
            .await;
            match failure {
                Ok(()) => break,
                Err(error) if attempt < MAX_ATTEMPTS && !error.is_storage_full() => {
                    tracing::debug!(%error, attempt, "blob is fetched again");
                    tokio::time::sleep(from.client().backoff(attempt)).await;
                }
                Err(error) => return Err(error),
            }
        }
        to.upload(&blob.digest, staged.path(), blob.size, &Sent::default()).await
    }
}

fn named(reference: &Reference) -> String {
    reference.digest().map_or_else(|| reference.tag().unwrap_or("latest").to_owned(), Digest::to_string)
}

fn blobs(manifest: &ImageManifest) -> impl Iterator<Item = &Descriptor> {
    manifest.layers.iter().chain([&manifest.config])
}
