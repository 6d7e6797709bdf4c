//! What solvers, jobs and prunes are told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::client::Client;
use crate::files::Tree;
use crate::progress::Progress;
use crate::step::StepRunner;

/// What a build may do beyond the usual; without it, the step is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entitlement {
    /// `network.host`: `RUN --network=host`.
    NetworkHost,
    /// `security.insecure`: `RUN --security=insecure`.
    SecurityInsecure,
}

/// Limits of the classic builder, for each step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory; 0: no bound.
    pub memory: i64,
    /// Bytes of memory and swap; -1: no bound.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// Microseconds of a period.
    pub cpu_period: i64,
    /// Microseconds that may be used in a period.
    pub cpu_quota: i64,
    /// CPUs, as `0-1,3`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
}

/// Where results may come from beside the solver's own cache (`--cache-from`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheImport {
    /// `registry`, `local`, `inline` (an image of the store or a registry), ….
    pub kind: String,
    /// Its attributes: `ref`, `src`, `digest`, ….
    pub attributes: BTreeMap<String, String>,
}

/// What a solver is opened with.
#[derive(Clone)]
pub struct Config {
    /// The directory of everything that it keeps: cache database, contexts' files, cache mounts.
    pub root: PathBuf,
    /// The image store, whose layers results are.
    pub images: skiff_images::Store,
    /// Who runs commands.
    pub runner: Arc<dyn StepRunner>,
    /// The cache is cut down to so many bytes once it has more; oldest first.
    pub keep_storage: u64,
}

/// What a job is begun with.
#[derive(Clone)]
pub struct JobOptions {
    /// What the client offers.
    pub client: Client,
    /// Who is told about the progress.
    pub progress: Arc<dyn Progress>,
    /// What it may do.
    pub entitlements: HashSet<Entitlement>,
    /// Limits of each step.
    pub limits: Limits,
    /// Size of `/dev/shm` of each step, in bytes; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// The network of steps that say nothing, by name; `None`: the default bridge.
    pub network: Option<String>,
    /// Where cached results may come from.
    pub cache_imports: Vec<CacheImport>,
    /// Layers of the only images that cached results may come from, each image's lowest first; `None`: all of the cache.
    pub cache_within: Option<Vec<Vec<skiff_images::Digest>>>,
    /// Whether images that are pulled for the build become images of the store, as with the classic builder.
    pub keep_bases: bool,
    /// Contexts that are here already, by name: the classic builder's.
    pub(crate) contexts: HashMap<String, Arc<Tree>>,
}

impl JobOptions {
    /// Options without limits and entitlements.
    pub fn new(client: Client, progress: Arc<dyn Progress>) -> JobOptions {
        JobOptions {
            client,
            progress,
            entitlements: HashSet::new(),
            limits: Limits::default(),
            shm_size: None,
            network: None,
            cache_imports: Vec::new(),
            cache_within: None,
            keep_bases: false,
            contexts: HashMap::new(),
        }
    }
}

/// Something in the cache, for `docker system df`, `buildx du` and prunes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Its id.
    pub id: String,
    /// `regular`, `source.local`, `exec.cachemount`, `source.git.checkout`, `internal`, `frontend`.
    pub kind: String,
    /// What it is of: the vertex's name.
    pub description: String,
    /// The records that it was made from.
    pub parents: Vec<String>,
    /// Its own bytes.
    pub size: u64,
    /// Whether a build uses it now.
    pub in_use: bool,
    /// Whether an image has the same layers.
    pub shared: bool,
    /// Whether it may change (cache mounts).
    pub mutable: bool,
    /// When it was made.
    pub created: SystemTime,
    /// When it was used last.
    pub last_used: Option<SystemTime>,
    /// How often it was used.
    pub usage_count: u64,
}

/// What a prune removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Also what is internal, or shared with images. (`--all`)
    pub all: bool,
    /// What was used within that time is kept (`--filter until=24h`).
    pub keep_duration: Option<Duration>,
    /// So many bytes are kept in any case (`--keep-storage`, `--reserved-space`).
    pub keep_bytes: Option<u64>,
    /// So many bytes may remain (`--max-used-space`).
    pub max_used: Option<u64>,
    /// So many bytes are to be free on the disk; nothing goes for it while they are (`--min-free-space`).
    pub min_free: Option<u64>,
    /// Filters: `id`, `parent`, `type`, `description`, `inuse`, `mutable`, `immutable`, `shared`, `private`, with `==`,
    /// `!=` and `~=` as containerd has them; all of a text's comma-separated terms, any of the texts.
    pub filters: Vec<String>,
}
