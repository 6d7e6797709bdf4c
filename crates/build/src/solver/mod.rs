//! The solver: from a graph to snapshots, with everything that was done before taken from the cache.
//!
//! A [`Job`] is one build. What it solves is lazy: a [`Ref`] does nothing until somebody reads, evaluates or exports it.
//! Equal vertices of jobs that run at the same time are done once.

mod cache;
mod detached;
mod exec;
mod file;
mod image;
mod key;
mod layout;
mod material;
mod merge;
mod mounts;
mod names;
mod options;
mod read;
mod report;
mod source;
mod usage;
mod used;
mod value;
mod vertex;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1;
use tokio_util::sync::CancellationToken;

pub use material::Material;
pub use options::{CacheImport, Config, Entitlement, JobOptions, Limits, PruneOptions, UsageRecord};
pub use read::{DirEntry, Mounted, Ref};
pub(crate) use used::UsedResult;
pub(crate) use value::{Snapshot, Value};

use self::cache::Cache;
use self::image::Resolutions;
use self::material::Materials;
use self::mounts::CacheMounts;
pub(crate) use self::report::Reporter;
use self::source::Locals;
pub(crate) use self::source::context_key;
use self::used::Used;
use self::vertex::{Flights, Memo};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::files;
use crate::frontend::{ResolveMode, ResolvedImage};
use crate::graph::{Graph, pb};
use crate::progress::{Event, Progress};

/// The solver. Clones share it.
#[derive(Clone)]
pub struct Solver {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Solver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Solver").finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub config: Config,
    pub files: Arc<files::Store>,
    cache: Arc<Cache>,
    locals: Locals,
    mounts: CacheMounts,
    flights: Flights,
    /// The records that results come from, by what the results are.
    makers: Mutex<HashMap<String, String>>,
    /// Steps that the classic builder has shown.
    pub shown: crate::classic::Shown,
    /// Jobs that exist.
    jobs: AtomicUsize,
    /// Whether the cache is about to be measured.
    collecting: AtomicBool,
}

/// One build. Clones share it; when the last one and the last [`Ref`] of it go, what it still does is cancelled.
#[derive(Clone)]
pub struct Job {
    inner: Arc<JobInner>,
}

struct JobInner {
    solver: Solver,
    options: JobOptions,
    memo: Mutex<HashMap<String, Memo>>,
    resolutions: Resolutions,
    /// What it was made from.
    materials: Materials,
    /// What it has made or found made.
    used: Used,
    /// What the caches that the client names have.
    imports: tokio::sync::OnceCell<HashMap<String, Snapshot>>,
    /// Vertices that were told of.
    announced: Mutex<std::collections::HashSet<String>>,
    cancelled: CancellationToken,
    /// Whether it counts no more among the jobs that there are.
    ended: AtomicBool,
}

impl JobInner {
    /// Ends all work. What is asked about the job afterwards keeps nothing in use.
    fn end(&self) {
        self.cancelled.cancel();
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.solver.inner.jobs.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for JobInner {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

impl Solver {
    /// Opens the cache, or makes it, and clears away what an interrupted build left.
    ///
    /// # Errors
    /// When the directory or the database can't be used.
    pub fn open(config: Config) -> Result<Solver> {
        let root = &config.root;
        std::fs::create_dir_all(root).map_err(|error| Error::io("create", root, error))?;
        Ok(Solver {
            inner: Arc::new(Inner {
                files: Arc::new(files::Store::open(&root.join("contexts"))?),
                cache: Arc::new(Cache::open(config.images.clone())),
                locals: Locals::open(root.join("contexts/trees"))?,
                mounts: CacheMounts::open(root.join("mounts"))?,
                flights: Flights::default(),
                makers: Mutex::default(),
                shown: crate::classic::Shown::default(),
                jobs: AtomicUsize::new(0),
                collecting: AtomicBool::new(false),
                config,
            }),
        })
    }

    /// Begins a build.
    pub fn begin(&self, options: JobOptions) -> Job {
        self.inner.jobs.fetch_add(1, Ordering::AcqRel);
        Job {
            inner: Arc::new(JobInner {
                solver: self.clone(),
                options,
                memo: Mutex::default(),
                resolutions: Resolutions::default(),
                materials: Materials::default(),
                used: Used::default(),
                imports: tokio::sync::OnceCell::new(),
                announced: Mutex::default(),
                cancelled: CancellationToken::new(),
                ended: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(crate) fn images(&self) -> &skiff_images::Store {
        &self.inner.config.images
    }
}

impl Inner {
    /// Notes which record a result comes from.
    fn note(&self, snapshot: &Snapshot, record: &str) {
        let id = Value::Layers(snapshot.clone()).id();
        self.makers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, record.to_owned());
    }

    /// The record that a result comes from.
    fn record_of(&self, value: &Value) -> Option<String> {
        self.makers.lock().unwrap_or_else(PoisonError::into_inner).get(&value.id()).cloned()
    }
}

impl Job {
    /// What the client offers.
    pub fn client(&self) -> &Client {
        &self.inner.options.client
    }

    /// Who is told about the progress.
    pub fn progress(&self) -> &dyn Progress {
        &*self.inner.options.progress
    }

    /// What has been used of other people's: images, repositories, files of the web.
    pub fn materials(&self) -> Vec<Material> {
        self.inner.materials.all()
    }

    /// What it has made or found made.
    pub(crate) fn used(&self) -> Vec<UsedResult> {
        self.inner.used.all()
    }

    /// Says whether the job may do something.
    pub(crate) fn may(&self, entitlement: Entitlement) -> bool {
        self.inner.options.entitlements.contains(&entitlement)
    }

    pub(crate) fn solver(&self) -> &Solver {
        &self.inner.solver
    }

    pub(crate) fn listener(&self) -> &Arc<dyn Progress> {
        &self.inner.options.progress
    }

    /// Sees to it that layers are here.
    pub(crate) async fn realize(&self, snapshot: &Snapshot) -> Result<skiff_images::Held> {
        snapshot.realize(&self.inner.solver.inner).await
    }

    /// When layers were made and by what, as far as the cache knows; the others are told as of now.
    pub(crate) fn layer_times(&self, layers: &[String]) -> Vec<(String, String)> {
        let known = self.inner.solver.inner.cache.makers();
        let now = cache::seconds();
        let time = |layer: &String| match known.get(layer) {
            Some((created, description)) => (crate::export::time_text(*created), description.clone()),
            None => (crate::export::time_text(now), String::new()),
        };
        layers.iter().map(time).collect()
    }

    /// The cached results that an image of these layers has in it.
    pub(crate) fn cache_entries(&self, layers: &[String]) -> Vec<crate::export::CacheEntry> {
        let mut entries = Vec::new();
        for (_, record) in self.inner.solver.inner.cache.all() {
            let is_part = record.layers.len() <= layers.len()
                && record.own > 0
                && record.layers.iter().zip(layers).all(|(have, layer)| have.as_str() == layer);
            if is_part {
                let layers = (0..record.layers.len()).collect();
                entries.push(crate::export::CacheEntry { layers, keys: record.keys });
            }
        }
        entries.sort_by_key(|entry| entry.layers.len());
        entries
    }

    /// Takes a definition; nothing is done yet.
    ///
    /// # Errors
    /// A malformed definition.
    pub fn solve(&self, definition: pb::Definition) -> Result<Ref> {
        let graph = Graph::parse(&definition)?;
        self.entitled(&graph)?;
        Ok(Ref::new(self.clone(), definition, graph))
    }

    /// Refuses a graph that wants more than the job may do.
    fn entitled(&self, graph: &Graph) -> Result<()> {
        for vertex in graph.vertices() {
            let Some(pb::op::Op::Exec(op)) = &vertex.op.op else { continue };
            let missing = match (op.network(), op.security()) {
                (pb::NetMode::Host, _) if !self.may(Entitlement::NetworkHost) => "network.host",
                (_, pb::SecurityMode::Insecure) if !self.may(Entitlement::SecurityInsecure) => {
                    "security.insecure"
                }
                _ => continue,
            };
            return Err(Error::Denied { message: format!("failed to load LLB: {missing} is not allowed") });
        }
        Ok(())
    }

    /// Tells of the vertices of a graph that nobody has heard of.
    fn announce(&self, graph: &Graph) {
        let mut announced = self.inner.announced.lock().unwrap_or_else(PoisonError::into_inner);
        for vertex in graph.vertices() {
            if announced.insert(vertex.digest.clone()) {
                self.progress().event(Event::Vertex(report::describe(vertex)));
            }
        }
    }

    /// Finds out what image a name means now and how it is configured, without its layers. Within a job a name means
    /// the same image always: an image source of the job is the image that was resolved.
    ///
    /// `log_name` names the vertex that shows it: `[internal] load metadata for docker.io/library/alpine:3`.
    ///
    /// # Errors
    /// A name that is none; what the registry answers.
    pub async fn resolve_image(
        &self,
        name: &str,
        platform: Option<&pb::Platform>,
        mode: ResolveMode,
        log_name: Option<&str>,
    ) -> Result<ResolvedImage> {
        let work = image::resolve(self, name, platform, mode);
        match log_name {
            Some(log_name) => self.internal(log_name, work).await,
            None => work.await,
        }
    }

    /// The same for an image in an OCI layout of the client: `NAME[:TAG]@DIGEST`. `store` and `session` may be empty.
    ///
    /// # Errors
    /// When the client has no such image.
    pub async fn resolve_layout(
        &self,
        place: &str,
        store: &str,
        session: &str,
        platform: Option<&pb::Platform>,
        log_name: Option<&str>,
    ) -> Result<ResolvedImage> {
        let work = layout::resolve(self, place, store, session, platform);
        match log_name {
            Some(log_name) => self.internal(log_name, work).await,
            None => work.await,
        }
    }

    /// Shows work of a frontend as a vertex of its own (`[internal] load .dockerignore`) while `work` runs.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn internal<T>(&self, name: &str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let digest = crate::graph::digest(format!("{name} {}", random_id()).as_bytes());
        let vertex = v1::Vertex { digest, name: name.to_owned(), ..v1::Vertex::default() };
        let reporter = Reporter::new(Arc::clone(&self.inner.options.progress), vertex);
        reporter.started();
        let result = tokio::select! {
            () = self.inner.cancelled.cancelled() => Err(Error::Cancelled),
            result = work => result,
        };
        match &result {
            Ok(_) => reporter.completed(false),
            Err(error) => reporter.failed(error),
        }
        result
    }

    /// Cancels everything that the job does; its references answer [`Error::Cancelled`] from then on.
    pub fn cancel(&self) {
        self.inner.end();
    }
}

/// Runs blocking work on the threads that are there for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::failed(format!("a worker failed: {error}"))),
    }
}

/// An id that nothing else has.
pub(crate) fn random_id() -> String {
    let mut bytes = [0u8; 16];
    // Before the pool is ready it waits; it never fails otherwise (getrandom(2)).
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    hex::encode(bytes)
}
