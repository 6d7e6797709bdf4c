//! Images: what names mean, and their layers once somebody needs them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use skiff_images::{Digest, Held, Progress as PullProgress, ProgressEvent, Reference};

use super::layout::ClientBlobs;
use super::report::Reporter;
use super::value::{Snapshot, Value};
use super::{Inner, Job, blocking, material};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::frontend::{ResolveMode, ResolvedImage};
use crate::graph::pb;

/// An image that layers come from.
pub(crate) struct Base {
    /// The complete name.
    name: String,
    origin: Origin,
    /// Its layers, lowest first.
    layers: Vec<Digest>,
    platform: Option<String>,
    client: Client,
    /// Whether it becomes an image of the store, as with the classic builder.
    named: bool,
    /// Shows the pull.
    reporter: Mutex<Option<Reporter>>,
    /// One pull for all who need it.
    pulled: tokio::sync::Mutex<Option<Held>>,
}

/// Where an image comes from.
pub(crate) enum Origin {
    /// A registry, by its name.
    Registry,
    /// A cache at a registry, by its name: of its layers only some are needed.
    RegistryCache,
    /// The client, by its digest.
    Blobs { blobs: ClientBlobs, digest: Digest },
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Base {
    /// An image whose layers are wanted one day.
    pub fn new(
        name: &str,
        origin: Origin,
        platform: Option<String>,
        client: &Client,
        layers: Vec<Digest>,
    ) -> Base {
        Base {
            name: name.to_owned(),
            origin,
            layers,
            platform,
            client: client.clone(),
            named: false,
            reporter: Mutex::new(None),
            pulled: tokio::sync::Mutex::new(None),
        }
    }

    /// Its layers, lowest first.
    pub fn layers(&self) -> &[Digest] {
        &self.layers
    }

    /// Pulls layers of it, or all; they are here for as long as the answer is held.
    pub async fn pull(&self, inner: &Inner, wanted: &[Digest]) -> Result<Held> {
        let images = &inner.config.images;
        match &self.origin {
            Origin::Registry => self.pull_all(inner).await,
            Origin::RegistryCache => {
                let reference = Reference::parse(&self.name).map_err(skiff_images::Error::from)?;
                let auth = self.client.credentials.registry(reference.domain()).await?;
                Ok(images.pull_some_layers_of(&self.name, wanted, auth, &self.shown()).await?)
            }
            Origin::Blobs { blobs, digest } => {
                let platform = self.platform.as_deref();
                let progress = self.shown();
                Ok(images.layers_from_blobs(blobs, digest, platform, Some(wanted), &progress).await?)
            }
        }
    }

    fn shown(&self) -> Pull {
        Pull { reporter: self.reporter.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }

    async fn pull_all(&self, inner: &Inner) -> Result<Held> {
        let mut pulled = self.pulled.lock().await;
        if let Some(held) = &*pulled {
            return Ok(held.clone());
        }
        let images = &inner.config.images;
        let reference = Reference::parse(&self.name).map_err(skiff_images::Error::from)?;
        let auth = self.client.credentials.registry(reference.domain()).await?;
        let progress = self.shown();
        let platform = self.platform.as_deref();
        let held = if self.named {
            let image = images.pull(&self.name, platform, auth, &progress).await?;
            images.hold(&image.layers).ok_or_else(|| Error::failed("a layer of the image has gone"))?
        } else {
            images.pull_layers_of(&self.name, platform, auth, &progress).await?
        };
        *pulled = Some(held.clone());
        Ok(held)
    }
}

/// Shows a pull as the parts of a vertex.
struct Pull {
    reporter: Option<Reporter>,
}

impl PullProgress for Pull {
    fn event(&self, event: ProgressEvent) {
        let (Some(reporter), Some(id)) = (&self.reporter, &event.id) else { return };
        let done = matches!(event.status.as_str(), "Pull complete" | "Already exists");
        let detail = event.progress_detail.unwrap_or_default();
        let number = |n: Option<u64>| n.unwrap_or(0);
        let verb = if event.status == "Extracting" { "extracting" } else { "resolve" };
        let name = if verb == "extracting" { format!("extracting {id}") } else { id.clone() };
        reporter.status(&name, number(detail.current), number(detail.total), done);
    }
}

/// What a job knows of names.
#[derive(Default)]
pub(crate) struct Resolutions {
    by_name: Mutex<HashMap<(String, String), Arc<Resolution>>>,
}

/// An image that a name was resolved to.
#[derive(Debug, Clone)]
struct Resolution {
    image: ResolvedImage,
    layers: Vec<Digest>,
    /// Whether all of it is in the store under its name.
    local: bool,
}

impl Resolutions {
    fn get(&self, name: &str, platform: &str) -> Option<Arc<Resolution>> {
        let known = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(name.to_owned(), platform.to_owned())).cloned()
    }

    fn put(&self, name: String, platform: &str, resolution: Arc<Resolution>) {
        let mut known = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((name, platform.to_owned()), resolution);
    }
}

/// A platform as `os/architecture/variant`.
pub(crate) fn platform_text(platform: Option<&pb::Platform>) -> Option<String> {
    let platform =
        platform.filter(|platform| !platform.os.is_empty() && !platform.architecture.is_empty())?;
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    Some(text)
}

/// Finds out what a name means.
pub(crate) async fn resolve(
    job: &Job,
    name: &str,
    platform: Option<&pb::Platform>,
    mode: ResolveMode,
) -> Result<ResolvedImage> {
    resolution(job, name, platform, mode).await.map(|found| found.image.clone())
}

async fn resolution(
    job: &Job,
    name: &str,
    platform: Option<&pb::Platform>,
    mode: ResolveMode,
) -> Result<Arc<Resolution>> {
    let reference = Reference::parse(name).map_err(skiff_images::Error::from)?.or_latest();
    let full = reference.to_string();
    let text = platform_text(platform);
    let shown = text.clone().unwrap_or_default();
    if let Some(known) = job.inner.resolutions.get(&full, &shown) {
        return Ok(known);
    }
    let images = job.inner.solver.inner.config.images.clone();
    let mut found = None;
    if mode == ResolveMode::PreferLocal {
        found = local(&images, &reference, text.as_deref()).await?;
    }
    let found = match found {
        Some(found) => found,
        None => {
            let auth = job.client().credentials.registry(reference.domain()).await?;
            let described = images.describe(&full, text.as_deref(), auth).await?;
            let image = ResolvedImage {
                name: full.clone(),
                digest: described.digest.to_string(),
                config: described.config,
            };
            Resolution { image, layers: described.layers, local: false }
        }
    };
    let found = Arc::new(found);
    job.inner.resolutions.put(full.clone(), &shown, Arc::clone(&found));
    // A frontend puts the digest into the name: that is the same image.
    let pinned = format!("{}@{}", reference.name(), found.image.digest);
    job.inner.resolutions.put(pinned, &shown, Arc::clone(&found));
    if let Some(tag) = reference.tag() {
        let pinned = format!("{}:{tag}@{}", reference.name(), found.image.digest);
        job.inner.resolutions.put(pinned, &shown, Arc::clone(&found));
    }
    Ok(found)
}

/// An image of the store, if it is there for the platform.
async fn local(
    images: &skiff_images::Store,
    reference: &Reference,
    platform: Option<&str>,
) -> Result<Option<Resolution>> {
    let image = images.get(&reference.familiar()).or_else(|_| images.get(&reference.to_string()));
    // An image without a manifest was pinned by its id, perhaps by another job (a target that is another's base).
    let image = image.or_else(|error| match reference.digest() {
        Some(digest) => images.get(&digest.to_string()),
        None => Err(error),
    });
    let Ok(image) = image else {
        return Ok(None);
    };
    if let Some(wanted) = platform
        && let Ok(wanted) = wanted.parse::<skiff_images::Platform>()
    {
        let have = image.platform();
        if (&have.os, &have.architecture) != (&wanted.os, &wanted.architecture) {
            return Ok(None);
        }
    }
    let repository = format!(
        "{}@",
        Reference::parse(&reference.name().to_string()).map_or_else(|_| String::new(), |r| r.familiar())
    );
    let known = image.repo_digests.iter().find_map(|name| name.strip_prefix(&repository));
    let digest = known.unwrap_or(&image.id).to_owned();
    let (store, id) = (images.clone(), image.id.clone());
    let config = blocking(move || Ok(store.config_of(&id)?)).await?;
    let resolved = ResolvedImage { name: reference.to_string(), digest, config };
    Ok(Some(Resolution { image: resolved, layers: image.layers, local: true }))
}

/// Loads an image source: its layers are pulled once somebody needs them.
pub(super) async fn load(
    job: &Job,
    name: &str,
    op: &pb::SourceOp,
    platform: Option<&pb::Platform>,
) -> Result<(Value, bool)> {
    let mode = match op.attrs.get("image.resolvemode").map(String::as_str) {
        Some("pull") => ResolveMode::ForcePull,
        _ => ResolveMode::PreferLocal,
    };
    let found = resolution(job, name, platform, mode).await?;
    let shown = platform_text(platform);
    // A name that a frontend has pinned is the one that the user wrote.
    let written = if found.local { name.split('@').next().unwrap_or(name) } else { name };
    if let Some(uri) = material::package(written, shown.as_deref()) {
        job.inner.materials.add(uri, found.image.digest.clone());
    }
    let mut layers = found.layers.clone();
    if let Some(limit) = op.attrs.get("image.layerlimit").and_then(|limit| limit.parse::<usize>().ok()) {
        layers.truncate(limit);
    }
    let pulled = pull_name(name, &found);
    let mut base = Base::new(&pulled, Origin::Registry, shown, job.client(), found.layers.clone());
    base.named = job.inner.options.keep_bases;
    let base = Arc::new(base);
    Ok((Value::Layers(Snapshot::of_image(layers, base)), found.local))
}

/// The name to pull by: with the digest that was resolved, so that it is the same image.
fn pull_name(name: &str, found: &Resolution) -> String {
    match Reference::parse(name) {
        Ok(reference) if reference.digest().is_none() && !found.local => {
            // A name for people stays: the classic builder leaves it behind.
            reference.or_latest().to_string()
        }
        _ => name.to_owned(),
    }
}

/// A cache that the client names: its results, and where its layers come from.
struct Import {
    config: Vec<u8>,
    base: Base,
}

/// What the caches that the client names have, by key. One that can't be had is no cache.
pub(crate) async fn imports(job: &Job) -> HashMap<String, Snapshot> {
    let mut known = HashMap::new();
    for import in &job.inner.options.cache_imports {
        let attribute = |name: &str| import.attributes.get(name).filter(|value| !value.is_empty());
        let found = match (import.kind.as_str(), attribute("ref"), attribute("src"), attribute("digest")) {
            ("registry" | "inline", Some(name), _, _) => {
                job.internal(&format!("importing cache manifest from {name}"), from_registry(job, name)).await
            }
            ("local", _, Some(directory), Some(digest)) => {
                let shown = format!("importing cache manifest from local:{digest}");
                job.internal(&shown, from_client(job, directory, digest)).await
            }
            (kind, ..) => {
                tracing::debug!(kind, "cache import that nothing is known of");
                continue;
            }
        };
        let Import { config, base } = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, kind = import.kind, "cache can't be imported");
                continue;
            }
        };
        let base = Arc::new(base);
        for entry in crate::export::read_inline(&config) {
            let layers: Option<Vec<Digest>> =
                entry.layers.iter().map(|place| base.layers.get(*place).cloned()).collect();
            let Some(layers) = layers else { continue };
            let snapshot = Snapshot::of_image(layers, Arc::clone(&base));
            for key in entry.keys {
                known.entry(key).or_insert_with(|| snapshot.clone());
            }
        }
    }
    known
}

async fn from_registry(job: &Job, name: &str) -> Result<Import> {
    let reference = Reference::parse(name).map_err(skiff_images::Error::from)?.or_latest();
    let images = job.inner.solver.inner.config.images.clone();
    // An image that is here tells of the cache as well, when it was made with one.
    if let Some(found) = local(&images, &reference, None).await?
        && !crate::export::read_inline(&found.image.config).is_empty()
    {
        let base =
            Base::new(&pull_name(name, &found), Origin::Registry, None, job.client(), found.layers.clone());
        return Ok(Import { config: found.image.config, base });
    }
    let auth = job.client().credentials.registry(reference.domain()).await?;
    let described = images.describe(&reference.to_string(), None, auth).await?;
    // What is read now is what is pulled later.
    let pinned = format!("{}@{}", reference.name(), described.digest);
    let base = Base::new(&pinned, Origin::RegistryCache, None, job.client(), described.layers);
    Ok(Import { config: described.config, base })
}

async fn from_client(job: &Job, directory: &str, digest: &str) -> Result<Import> {
    let wrong = |_| Error::invalid(format!("invalid digest {digest:?} of a local cache"));
    let digest: Digest = digest.parse().map_err(wrong)?;
    let blobs = ClientBlobs {
        client: job.client().clone(),
        session: String::new(),
        store: format!("local:{directory}"),
    };
    let described = job.solver().images().describe_blobs(&blobs, &digest, None).await?;
    let config = described.config;
    let origin = Origin::Blobs { blobs, digest };
    Ok(Import { config, base: Base::new(directory, origin, None, job.client(), described.layers) })
}
