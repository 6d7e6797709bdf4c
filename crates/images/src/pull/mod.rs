//! Pulling an image: manifest, configuration, then all layers at once, then one commit.

mod all;
mod layer;

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::digest::Digest;
use crate::error::Error;
use crate::image::{Image, ParsedConfig};
use crate::manifest::{CONFIG_LIMIT, Document, ImageManifest, MAX_NESTING};
use crate::platform::Platform;
use crate::progress::{Progress, ProgressEvent};
use crate::reference::Reference;
use crate::registry::{Auth, Endpoint, Purpose, Repository};
use crate::store::{Held, LayerLease, NewImage, Store};

/// How long a failed pull waits for its own threads to put things away.
const SETTLE: Duration = Duration::from_secs(5);

impl Store {
    /// Pulls an image from its registry, or from a mirror of it.
    ///
    /// Dropping the future cancels the pull; what has been downloaded is kept for the next one. `platform` is
    /// `os/architecture[/variant]`, by default this machine's.
    ///
    /// # Errors
    /// Docker's texts for what registries refuse; digest and layer errors; storage errors.
    pub async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        auth: Option<Auth>,
        progress: &dyn Progress,
    ) -> Result<Image, Error> {
        let pulled = self.pull_somehow(reference, platform, auth, progress, Naming::Named).await?;
        let image = self.get(&pulled.id)?;
        // A list's entry was chosen by its platform; a lone image is taken as it is, and then said to be another's.
        if let (Some(_), false) = (platform.filter(|text| !text.is_empty()), pulled.chosen) {
            image.check_platform(reference, &Store::platform(platform)?)?;
        }
        Ok(image)
    }

    /// Pulls an image's layers without making it an image of the store: they are there for as long as the answer is held.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub async fn pull_layers_of(
        &self,
        reference: &str,
        platform: Option<&str>,
        auth: Option<Auth>,
        progress: &dyn Progress,
    ) -> Result<Held, Error> {
        let pulled = self.pull_somehow(reference, platform, auth, progress, Naming::Unnamed(None)).await?;
        Ok(pulled.held)
    }

    /// The same for some of the layers; in no order.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub async fn pull_some_layers_of(
        &self,
        reference: &str,
        only: &[Digest],
        auth: Option<Auth>,
        progress: &dyn Progress,
    ) -> Result<Held, Error> {
        let pulled = self.pull_somehow(reference, None, auth, progress, Naming::Unnamed(Some(only))).await?;
        Ok(pulled.held)
    }

    /// Finds out what a name means at its registry (or a mirror), without layers.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub async fn describe(
        &self,
        reference: &str,
        platform: Option<&str>,
        auth: Option<Auth>,
    ) -> Result<Described, Error> {
        let reference = Reference::parse(reference)?.or_latest();
        let wanted = reference.clone().prefer_digest();
        let platform = Store::platform(platform)?;
        let mut endpoints = self.inner.client.endpoints(&reference);
        let origin = endpoints.pop().ok_or(Error::Interrupted)?;
        for mirror in &endpoints {
            match self.describe_from(mirror, &wanted, &platform, None).await {
                Ok(described) => return Ok(described),
                Err(error) => {
                    tracing::warn!(mirror = mirror.authority, image = %wanted, %error, "mirror did not serve the image");
                }
            }
        }
        self.describe_from(&origin, &wanted, &platform, auth).await
    }

    async fn describe_from(
        &self,
        endpoint: &Endpoint,
        wanted: &Reference,
        platform: &Platform,
        auth: Option<Auth>,
    ) -> Result<Described, Error> {
        let repository = self.inner.client.repository(endpoint, wanted, auth, Purpose::Pull).await?;
        let Found { manifests, manifest } =
            top_manifest(&repository, wanted).await?.choose(&repository, platform).await?;
        let (digest, _) = manifests.into_iter().next().ok_or(Error::Interrupted)?;
        let config = self.config_bytes(&repository, &manifest).await?;
        let layers = ParsedConfig::parse(&config)?.diff_ids;
        Ok(Described { digest, config, layers })
    }

    async fn pull_somehow(
        &self,
        reference: &str,
        platform: Option<&str>,
        auth: Option<Auth>,
        progress: &dyn Progress,
        naming: Naming<'_>,
    ) -> Result<PulledImage, Error> {
        let reference = Reference::parse(reference)?.or_latest();
        let wanted = reference.clone().prefer_digest();
        let platform = Store::platform(platform)?;
        let mut endpoints = self.inner.client.endpoints(&reference);
        // The registry itself is the last one, and its error is the one to show.
        let origin = endpoints.pop().ok_or(Error::Interrupted)?;
        for mirror in &endpoints {
            match self.pull_from(mirror, &wanted, &platform, None, progress, naming).await {
                Ok(image) => return Ok(image),
                Err(error) => {
                    tracing::warn!(mirror = mirror.authority, image = %wanted, %error, "mirror did not serve the image");
                }
            }
        }
        self.pull_from(&origin, &wanted, &platform, auth, progress, naming).await
    }

    async fn pull_from(
        &self,
        endpoint: &Endpoint,
        wanted: &Reference,
        platform: &Platform,
        auth: Option<Auth>,
        progress: &dyn Progress,
        naming: Naming<'_>,
    ) -> Result<PulledImage, Error> {
        let repository = self.inner.client.repository(endpoint, wanted, auth, Purpose::Pull).await?;
        let found = top_manifest(&repository, wanted).await?;
        // The first line says that there is something to pull: what fails before it is an error of the call itself.
        let shown = wanted
            .tag()
            .map_or_else(|| wanted.digest().map(Digest::to_string).unwrap_or_default(), str::to_owned);
        progress.event(ProgressEvent {
            id: Some(shown),
            status: format!("Pulling from {}", wanted.path()),
            progress_detail: None,
        });
        let Found { manifests, manifest } = found.choose(&repository, platform).await?;
        let top = manifests.first().map(|(digest, _)| digest.clone()).ok_or(Error::Interrupted)?;
        let config = self.config_bytes(&repository, &manifest).await?;
        let parsed = ParsedConfig::parse(&config)?;
        if parsed.diff_ids.len() != manifest.layers.len() {
            return Err(Error::LayersMismatch);
        }
        parsed.check()?;
        let mut names = vec![wanted.at_digest(top.clone())];
        if wanted.tag().is_some() {
            names.push(wanted.clone());
        }
        let id = parsed.id.to_string();
        let updated = !self.name_is(wanted, &id);
        let chosen = manifests.len() > 1;
        let have = match naming {
            // Nothing is said of the layers of an image that is here.
            Naming::Named | Naming::OneOfMany => self.layers_here(&id, &parsed),
            Naming::Unnamed(_) => None,
        };
        let pulled = match have {
            Some(leases) => Ok(leases),
            None => {
                let only = if let Naming::Unnamed(only) = naming { only } else { None };
                self.pull_layers(&repository, &manifest, &parsed, only, progress).await
            }
        };
        let leases = match pulled {
            Ok(leases) => leases,
            Err(error) => {
                // The other layers' threads were told to stop; wait until they have cleaned up.
                let settled = async {
                    for diff_id in &parsed.diff_ids {
                        self.inner.work.lock(diff_id.as_str()).await;
                    }
                };
                let _ = tokio::time::timeout(SETTLE, settled).await;
                return Err(error);
            }
        };
        if let Naming::Unnamed(only) = naming {
            let held = match only {
                None => held_in_order(&parsed, leases),
                Some(_) => Held::new(leases),
            };
            return Ok(PulledImage { id, held, updated, chosen });
        }
        let new = NewImage {
            config,
            parsed,
            manifests,
            layer_blobs: manifest.layers.iter().map(|l| l.digest.clone()).collect(),
            names,
            parent: None,
            seed: None,
            leases,
        };
        self.commit(new).await?;
        progress.event(ProgressEvent::line(format!("Digest: {top}")));
        if naming == Naming::Named {
            progress.event(status(&wanted.familiar(), updated));
        }
        Ok(PulledImage { id, held: Held::nothing(), updated, chosen })
    }

    /// Leases the layers of an image that is here already.
    fn layers_here(&self, id: &str, parsed: &ParsedConfig) -> Option<Vec<LayerLease>> {
        self.get(id).ok()?;
        let mut seen = HashSet::new();
        let layers = parsed.diff_ids.iter().filter(|layer| seen.insert(*layer));
        layers.map(|layer| self.inner.lease(layer)).collect()
    }

    async fn pull_layers(
        &self,
        repository: &Repository,
        manifest: &ImageManifest,
        parsed: &ParsedConfig,
        only: Option<&[Digest]>,
        progress: &dyn Progress,
    ) -> Result<Vec<LayerLease>, Error> {
        // One layer may be in an image several times, the empty one in particular.
        let mut seen = HashSet::new();
        let layers: Vec<_> = manifest
            .layers
            .iter()
            .zip(&parsed.diff_ids)
            .filter(|(_, diff_id)| only.is_none_or(|only| only.contains(diff_id)))
            .filter(|(_, diff_id)| seen.insert((*diff_id).clone()))
            .collect();
        for (descriptor, _) in &layers {
            progress.event(ProgressEvent::about(descriptor.digest.short(), "Pulling fs layer"));
        }
        let work = layers
            .into_iter()
            .map(|(descriptor, diff_id)| self.pull_layer(repository, descriptor, diff_id, progress));
        try_join_all(work).await
    }

    /// Reads the configuration from the store if it is here, else from the registry.
    async fn config_bytes(
        &self,
        repository: &Repository,
        manifest: &ImageManifest,
    ) -> Result<Vec<u8>, Error> {
        let descriptor = &manifest.config;
        if let Ok(bytes) = tokio::fs::read(self.inner.layout.blob(&descriptor.digest)).await
            && Digest::of(&bytes) == descriptor.digest
        {
            return Ok(bytes);
        }
        repository.small_blob(&descriptor.digest, descriptor.size, CONFIG_LIMIT).await
    }

    /// Commits on a blocking thread, to the end even when the caller goes away.
    pub(crate) async fn commit(&self, new: NewImage) -> Result<(), Error> {
        let inner = std::sync::Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || inner.commit_image(new)).await;
        done.map_err(|_| Error::Interrupted)?
    }
}

/// What a name means at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The digest of what the name leads to: a manifest, or a list of them.
    pub digest: Digest,
    /// The image's configuration, byte for byte.
    pub config: Vec<u8>,
    /// The diff ids of its layers, lowest first.
    pub layers: Vec<Digest>,
}

/// Whether a pull makes an image of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming<'a> {
    Named,
    /// One tag of several: the last line is for all of them.
    OneOfMany,
    /// The layers alone, all of them or these.
    Unnamed(Option<&'a [Digest]>),
}

struct PulledImage {
    id: String,
    held: Held,
    /// Whether the name meant something else before.
    updated: bool,
    /// Whether it came out of a list.
    chosen: bool,
}

/// The line that says what a pull came to.
fn status(name: &str, updated: bool) -> ProgressEvent {
    let what = if updated { "Downloaded newer image for" } else { "Image is up to date for" };
    ProgressEvent::line(format!("Status: {what} {name}"))
}

/// Layers in the image's order, where one may be several times but is leased once.
fn held_in_order(parsed: &ParsedConfig, leases: Vec<LayerLease>) -> Held {
    let leases = Held::new(leases);
    let place = |layer: &Digest| leases.layers().position(|have| have == layer);
    let mut held = Held::nothing();
    for at in parsed.diff_ids.iter().filter_map(place) {
        held = held.with(&leases.above(at).first());
    }
    held
}

struct Found {
    /// What led to the image, the list first if there is one.
    manifests: Vec<(Digest, Vec<u8>)>,
    manifest: ImageManifest,
}

/// What a name leads to at first.
struct Top {
    digest: Digest,
    bytes: Vec<u8>,
    document: Document,
}

async fn top_manifest(repository: &Repository, wanted: &Reference) -> Result<Top, Error> {
    let named = match (wanted.digest(), wanted.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let top = repository.manifest(&named, wanted.digest()).await?;
    let document = Document::parse(&top.bytes, top.media_type.as_deref()).map_err(|error| match error {
        Error::OldManifest { .. } => Error::OldManifest {
            suggestion: format!(
                " Suggest the author of {wanted} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2."
            ),
        },
        error => error,
    })?;
    if let Document::Image(manifest) = &document {
        manifest.check_docker()?;
    }
    Ok(Top { digest: top.digest, bytes: top.bytes, document })
}

impl Top {
    /// Goes down through lists to the manifest of an image.
    async fn choose(self, repository: &Repository, platform: &Platform) -> Result<Found, Error> {
        let mut manifests = vec![(self.digest, self.bytes)];
        let mut document = self.document;
        for _ in 0..=MAX_NESTING {
            let list = match document {
                Document::Image(manifest) => {
                    manifest.check_image()?;
                    return Ok(Found { manifests, manifest });
                }
                Document::List(list) => list,
            };
            let chosen = &list.choose(platform)?.digest;
            let inner = repository.manifest(chosen.as_str(), Some(chosen)).await?;
            document = Document::parse(&inner.bytes, inner.media_type.as_deref())?;
            manifests.push((inner.digest, inner.bytes));
        }
        Err(Error::Malformed {
            what: "manifest list".to_owned(),
            reason: "lists are nested too deeply".to_owned(),
        })
    }
}
