//! What a frontend takes and gives: attributes in, references with metadata out.
//!
//! A frontend is a function of the form `async fn solve(job: &Job, request: FrontendRequest) -> Result<BuildResult>`;
//! the Dockerfile's is `dockerfile::solve`. It reads its files through [`Job::solve`](crate::Job::solve) of a `local://`
//! source and [`Ref::read_file`], finds base images by [`Job::resolve_image`](crate::Job::resolve_image), and answers with
//! references whose metadata has the image's configuration.

use std::collections::BTreeMap;

use crate::graph::pb;
use crate::solver::Ref;

/// The metadata key of an image's configuration (JSON); with several platforms `containerimage.config/linux/arm64`.
pub const IMAGE_CONFIG_KEY: &str = "containerimage.config";
/// The metadata key of the list of platforms.
pub(crate) const PLATFORMS_KEY: &str = "refs.platforms";

/// What a client asks of a frontend, as `Control.Solve` and `LLBBridge.Solve` have it.
#[derive(Debug, Clone, Default)]
pub struct FrontendRequest {
    /// Its attributes: `filename`, `target`, `build-arg:NAME`, `label:NAME`, `platform`, `no-cache`, `context:NAME`, ….
    pub attributes: BTreeMap<String, String>,
    /// Definitions that take the place of `local://` sources and named contexts (`input:NAME`).
    pub inputs: BTreeMap<String, pb::Definition>,
}

/// One reference, or one for each platform.
#[derive(Debug, Clone)]
pub enum Refs {
    /// Nothing was asked for (build checks, outlines).
    None,
    /// One.
    Single(Ref),
    /// By platform (`linux/amd64`).
    Map(BTreeMap<String, Ref>),
}

/// What a build arrives at.
#[derive(Debug, Clone)]
pub struct BuildResult {
    /// The file systems.
    pub refs: Refs,
    /// `containerimage.config`, `refs.platforms`, `frontend.…`.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// Where an image's configuration may come from (`image-resolve-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolveMode {
    /// From the store when it is there, else from the registry. What `docker build` does without `--pull`.
    #[default]
    PreferLocal,
    /// From the registry, always (`--pull`).
    ForcePull,
}

/// A resolved image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The complete name that it was resolved to, `docker.io/library/alpine:3`.
    pub name: String,
    /// The digest of its manifest (or of its manifest list); of its configuration when it has no manifest here.
    pub digest: String,
    /// Its configuration, byte for byte.
    pub config: Vec<u8>,
}
