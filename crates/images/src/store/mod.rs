//! The image store: what is committed, who holds what, and where it is on disk.
//!
//! Life of a layer:
//! ```text
//! staging/N ──publish──► layers/HEX, leased ──commit──► recorded in images.redb ──last image goes──► removed
//!                              └─ last lease ends without a commit ─► removed
//! ```
//! A commit writes the image's blobs, syncs the file system once, then makes one database transaction; what the
//! database does not name does not exist for anybody, and is swept at open.

mod commit;
mod kept;
mod layout;
mod lease;
mod metadata;
mod names;
mod outgoing;
mod remove;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;

pub(crate) use commit::NewImage;
pub use kept::{Held, Kept};
pub(crate) use layout::{Layout, Staged as StagedPath};
pub(crate) use lease::{LayerLease, WorkGuard};
pub(crate) use metadata::LayerRecord;
pub use remove::{InUse, Parents, Removed};

use self::lease::WorkLocks;
use self::metadata::{Committed, Metadata};
use crate::config::Config;
use crate::digest::Digest;
use crate::error::Error;
use crate::image::{self, HistoryEntry, Image, ParsedConfig};
use crate::layer::Limits;
use crate::platform::Platform;
use crate::push::Pushed;
use crate::reference::{Reference, Target};
use crate::registry::Client;

/// The image store; clones share one store.
///
/// Methods that are not `async` read memory or make one short transaction and may be called from anywhere,
/// except [`Store::remove`], which deletes files and belongs on a blocking thread.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub layout: Layout,
    pub limits: Limits,
    pub client: Arc<Client>,
    /// Permits for layer downloads, of all pulls together.
    pub downloads: Arc<Semaphore>,
    pub work: WorkLocks,
    metadata: Metadata,
    /// Held while a change goes to disk and to memory; never take it while holding `state`.
    commit: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    committed: Committed,
    parsed: HashMap<String, ParsedConfig>,
    /// How many operations hold a layer.
    leases: HashMap<Digest, usize>,
    /// Layers on disk that no image has yet.
    pending: HashMap<Digest, LayerRecord>,
    /// Those of them whose last image was removed: what they were packed as goes with them. What a pull that has failed
    /// left is kept for the next one instead.
    removed: HashSet<Digest>,
    /// Compressed forms made for pushing, by the layer's diff id.
    packed: HashMap<Digest, (Digest, u64)>,
    /// Lists of manifests that builds have pushed, by their complete names, for clients that ask for the push again.
    pub lists: HashMap<String, (Pushed, Instant)>,
}

/// How many layers are downloaded at once.
const PARALLEL_DOWNLOADS: usize = 3;

impl Store {
    /// Opens the store, or makes it, and clears away what interrupted operations left.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it open; storage and database errors.
    pub fn open(config: Config) -> Result<Store, Error> {
        std::fs::create_dir_all(&config.root).map_err(|e| Error::io("create", &config.root, e))?;
        // The database comes first: its lock keeps a second process from sweeping under the first one.
        let (metadata, committed) = Metadata::open(&config.root)?;
        let layout = Layout::open(&config.root)?;
        let mut state = State { committed, ..State::default() };
        for id in state.committed.images.keys() {
            match read_config(&layout, id) {
                Ok(parsed) => {
                    state.parsed.insert(id.clone(), parsed);
                }
                Err(error) => tracing::error!(image = %id, %error, "image configuration is unreadable"),
            }
        }
        let blobs = state.referenced_blobs();
        layout.sweep(|layer| state.committed.layers.contains_key(layer), |blob| blobs.contains(blob))?;
        let client = Client::new(&config)?;
        Ok(Store {
            inner: Arc::new(Inner {
                layout,
                limits: config.limits,
                client,
                downloads: Arc::new(Semaphore::new(PARALLEL_DOWNLOADS)),
                work: WorkLocks::default(),
                metadata,
                commit: Mutex::new(()),
                state: Mutex::new(state),
            }),
        })
    }

    /// Lists all images, newest first.
    pub fn list(&self) -> Vec<Image> {
        let state = self.inner.state();
        let mut images: Vec<Image> = state.parsed.keys().filter_map(|id| state.image(id)).collect();
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        images
    }

    /// Finds an image by name, by digest, by id, or by the beginning of its id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], also for an ambiguous beginning; a reference that is none.
    pub fn get(&self, reference_or_id: &str) -> Result<Image, Error> {
        let target = Target::parse(reference_or_id)?;
        let state = self.inner.state();
        let id = state.find(reference_or_id, &target)?;
        state.image(&id).ok_or_else(|| Error::NoSuchImage { reference: target.familiar() })
    }

    /// Returns the directories of an image's layers for an overlay, the top one first.
    ///
    /// Works with the complete id of a removed image as long as a container keeps its layers.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]
    pub fn lower_dirs(&self, id: &str) -> Result<Vec<PathBuf>, Error> {
        let state = self.inner.state();
        let id = match state.committed.images.contains_key(id) {
            true => id.to_owned(),
            false => state.find(id, &Target::parse(id)?)?,
        };
        let record = &state.committed.images[&id];
        // An overlay takes no directory twice; the upper of two hides the other.
        let mut seen = HashSet::new();
        let layers = record.layers.iter().rev().filter(|layer| seen.insert(*layer));
        Ok(layers.map(|layer| self.inner.layout.layer(layer)).collect())
    }

    /// Returns the lines of `docker history`.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn history(&self, reference_or_id: &str) -> Result<Vec<HistoryEntry>, Error> {
        let image = self.get(reference_or_id)?;
        let state = self.inner.state();
        let sizes: Vec<u64> =
            image.layers.iter().map(|l| state.committed.layers.get(l).map_or(0, |r| r.size)).collect();
        Ok(image::history(&image, &sizes))
    }

    /// The variables by which registries are reached through proxies.
    pub async fn proxies(&self) -> crate::ProxyVariables {
        self.inner.client.proxies().await
    }

    /// Returns the number of bytes that the files of all images' layers take, shared ones once: what Docker calls the size
    /// of its layers. The compressed forms that are kept for pushing come on top.
    pub fn disk_usage(&self) -> u64 {
        let state = self.inner.state();
        let layers: HashSet<&Digest> = state.committed.images.values().flat_map(|r| &r.layers).collect();
        layers.into_iter().filter_map(|layer| state.committed.layers.get(layer)).map(|layer| layer.size).sum()
    }

    /// Says which images others were made of here, and by which.
    pub fn children(&self) -> HashMap<String, Vec<String>> {
        let state = self.inner.state();
        let mut children: HashMap<String, Vec<String>> = HashMap::new();
        for (id, record) in state.committed.images.iter().filter(|(_, record)| !record.hidden) {
            if let Some(parent) = &record.parent {
                children.entry(parent.clone()).or_default().push(id.clone());
            }
        }
        children
    }

    /// Returns how many bytes of each image's layers other images have too.
    pub fn shared_sizes(&self) -> HashMap<String, u64> {
        let state = self.inner.state();
        let images = || state.committed.images.iter().filter(|(_, record)| !record.hidden);
        let mut users: HashMap<&Digest, usize> = HashMap::new();
        for (_, record) in images() {
            // An image that has the same layer twice shares it with nobody.
            let layers: HashSet<&Digest> = record.layers.iter().collect();
            layers.into_iter().for_each(|layer| *users.entry(layer).or_default() += 1);
        }
        let size = |layer: &Digest| state.committed.layers.get(layer).map_or(0, |record| record.size);
        let shared = |layers: &[Digest]| layers.iter().filter(|layer| users[layer] > 1).map(size).sum();
        images().map(|(id, record)| (id.clone(), shared(&record.layers))).collect()
    }

    /// Says whether a name leads to exactly this image id now.
    pub(crate) fn name_is(&self, name: &Reference, id: &str) -> bool {
        self.inner.state().committed.names.get(&name.to_string()).is_some_and(|have| have == id)
    }

    /// Returns the platform to use where none is asked for.
    pub(crate) fn platform(platform: Option<&str>) -> Result<Platform, Error> {
        match platform {
            Some(text) if !text.is_empty() => text.parse(),
            _ => Ok(Platform::host()),
        }
    }
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the image that callers see; hidden ones are none.
    fn image(&self, id: &str) -> Option<Image> {
        let record = self.committed.images.get(id).filter(|record| !record.hidden)?;
        let parsed = self.parsed.get(id)?;
        let size = record.layers.iter().filter_map(|l| self.committed.layers.get(l)).map(|l| l.size).sum();
        let mut image = parsed.image(size, record.parent.clone(), record.last_tagged);
        for name in self.names_of(id) {
            match name.digest() {
                Some(_) => image.repo_digests.push(name.familiar()),
                None => image.repo_tags.push(name.familiar()),
            }
        }
        Some(image)
    }

    /// Lists the names of an image in the order of their complete forms.
    fn names_of(&self, id: &str) -> Vec<Reference> {
        self.committed
            .names
            .iter()
            .filter(|(_, have)| *have == id)
            .filter_map(|(name, _)| Reference::parse(name).ok())
            .collect()
    }

    /// Resolves what a user typed to an image id, in Docker's order: name first, then id.
    fn find(&self, typed: &str, target: &Target) -> Result<String, Error> {
        let missing = || Error::NoSuchImage { reference: target.familiar() };
        let shown = |id: &str| self.committed.images.get(id).is_some_and(|record| !record.hidden);
        match target {
            Target::Id(id) => Some(id.to_string()).filter(|id| shown(id)).ok_or_else(missing),
            Target::Name(name) => {
                let name = name.clone().or_latest().prefer_digest().to_string();
                if let Some(id) = self.committed.names.get(&name).filter(|id| shown(id)) {
                    return Ok(id.clone());
                }
                self.find_by_prefix(typed).ok_or_else(missing)
            }
        }
    }

    fn find_by_prefix(&self, typed: &str) -> Option<String> {
        let digits = typed.strip_prefix("sha256:").unwrap_or(typed);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let prefix = format!("sha256:{digits}");
        let mut found = self
            .committed
            .images
            .iter()
            .filter(|(id, record)| !record.hidden && id.starts_with(&prefix))
            .map(|(id, _)| id.clone());
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Says whether a record of somebody else's keeps a layer.
    fn is_kept(&self, layer: &Digest) -> bool {
        self.committed.kept.values().any(|kept| kept.layers.contains(layer))
    }

    /// Lists every blob that a committed image needs.
    /// Blobs that an image needs, or that an operation is about to commit.
    fn needed_blobs(&self) -> HashSet<Digest> {
        let mut needed = self.referenced_blobs();
        needed.extend(self.pending.values().filter_map(|record| record.blob.clone()));
        needed
    }

    fn referenced_blobs(&self) -> HashSet<Digest> {
        let of_images = self.committed.images.iter().flat_map(|(id, record)| {
            id.parse::<Digest>().into_iter().chain(record.manifests.iter().cloned())
        });
        let of_layers = self.committed.layers.values().filter_map(|layer| layer.blob.clone());
        of_images.chain(of_layers).collect()
    }
}

fn read_config(layout: &Layout, id: &str) -> Result<ParsedConfig, Error> {
    let digest = id.parse().map_err(|e| Error::Database { reason: format!("image id {id}: {e}") })?;
    let path = layout.blob(&digest);
    let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    if Digest::of(&bytes) != digest {
        return Err(Error::ManifestMismatch { digest: id.to_owned() });
    }
    ParsedConfig::parse(&bytes)
}
