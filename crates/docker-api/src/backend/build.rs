//! Builds and their cache.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;

use super::{Auth, BodyReader, ProgressStream};
use crate::error::Result;
use crate::filters::Filters;

/// A limit of a build's steps, as clients send it in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BuildUlimit {
    /// `nofile`, ….
    pub name: String,
    /// The soft limit.
    pub soft: i64,
    /// The hard limit.
    pub hard: i64,
}

/// `POST /build` for the classic builder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildImage {
    /// Names for the image (`t`, several times).
    pub tags: Vec<String>,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// Where the context comes from instead of the body.
    pub remote: String,
    /// Only the id is told (`q`).
    pub quiet: bool,
    /// Nothing is taken from the cache (`nocache`).
    pub no_cache: bool,
    /// Base images are asked for at their registries.
    pub pull: bool,
    /// Values of `ARG`s; `None` for one without a value.
    pub build_args: BTreeMap<String, Option<String>>,
    /// Labels for the image.
    pub labels: BTreeMap<String, String>,
    /// The stage to build.
    pub target: String,
    /// The network of steps.
    pub network: String,
    /// `name:ip` lines.
    pub extra_hosts: Vec<String>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of memory and swap.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds.
    pub cpu_quota: i64,
    /// `0-1,3`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// Limits of processes.
    pub ulimits: Vec<BuildUlimit>,
    /// The parent of the steps' cgroups.
    pub cgroup_parent: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Images that may have results in them.
    pub cache_from: Vec<String>,
    /// Logins, by registry (`X-Registry-Config`).
    pub logins: HashMap<String, Auth>,
}

/// A record of the build cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildCacheRecord {
    /// Its id.
    pub id: String,
    /// The records that it was made from.
    pub parents: Vec<String>,
    /// `regular`, `source.local`, `exec.cachemount`, ….
    pub kind: String,
    /// What it is of.
    pub description: String,
    /// Whether a build uses it now.
    pub in_use: bool,
    /// Whether an image has the same layers.
    pub shared: bool,
    /// Bytes.
    pub size: u64,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it was used last.
    pub last_used: Option<String>,
    /// How often.
    pub usage_count: u64,
}

/// `POST /build/prune`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PruneBuilds {
    /// Everything.
    pub all: bool,
    /// So many bytes may stay (`keep-storage`, `reserved-space`).
    pub keep_storage: Option<u64>,
    /// So many bytes may be used afterwards (`max-used-space`).
    pub max_used_space: Option<u64>,
    /// So many bytes are to be free on the disk (`min-free-space`).
    pub min_free_space: Option<u64>,
    /// Which ones.
    pub filters: Filters,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedBuilds {
    /// The records' ids.
    pub deleted: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

/// The builder.
#[async_trait]
pub trait Build: Send + Sync + 'static {
    /// Builds an image from a context in one archive.
    async fn build_image(&self, request: BuildImage, context: BodyReader) -> Result<ProgressStream>;

    /// Removes build cache that no build uses.
    async fn prune_builds(&self, request: PruneBuilds) -> Result<PrunedBuilds>;
}
