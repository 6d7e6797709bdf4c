//! The history of builds, for people to look at. Skiff's own: Docker has it over gRPC alone.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::Serialize;

use crate::error::Result;

/// How a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildState {
    /// It is under way.
    Running,
    /// It has made what it was to make.
    Completed,
    /// Somebody has ended it.
    Canceled,
    /// It has failed.
    Error,
}

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PastBuild {
    /// Its id.
    pub id: String,
    /// The names that its image was to get.
    pub tags: Vec<String>,
    /// Where its files came from; empty for a directory of the client's.
    pub source: String,
    /// The Dockerfile in them, where it was named.
    pub dockerfile: String,
    /// The stage, where one was named.
    pub target: String,
    /// How it stands.
    pub state: BuildState,
    /// Why it failed.
    pub error: String,
    /// When it began, RFC 3339.
    pub created: String,
    /// When it ended.
    pub completed: Option<String>,
    /// Its steps; known when it has ended.
    pub steps: u32,
    /// Those that were in the cache.
    pub cached: u32,
    /// What it was warned of.
    pub warnings: u32,
    /// Whether it stays, however many come after it.
    pub pinned: bool,
}

/// Something that a build has told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "Kind", rename_all = "lowercase")]
pub enum BuildTold {
    /// How a step stands.
    #[serde(rename_all = "PascalCase")]
    Step {
        /// Its id.
        id: String,
        /// What it does.
        name: String,
        /// When it began, RFC 3339.
        started: Option<String>,
        /// When it ended.
        completed: Option<String>,
        /// Whether its result was in the cache.
        cached: bool,
        /// Why it failed.
        error: String,
    },
    /// What a step's process has printed.
    #[serde(rename_all = "PascalCase")]
    Log {
        /// The step.
        step: String,
        /// Its words.
        text: String,
    },
    /// How far a part of a step is.
    #[serde(rename_all = "PascalCase")]
    Part {
        /// The step.
        step: String,
        /// The part.
        name: String,
        /// Bytes or things that are done.
        current: i64,
        /// Of so many; 0 where that is not known.
        total: i64,
    },
    /// Something that the author should know.
    #[serde(rename_all = "PascalCase")]
    Warning {
        /// The step.
        step: String,
        /// In one line.
        text: String,
        /// Where more is written.
        url: String,
    },
}

/// What a build has told, and tells.
pub type BuildTale = BoxStream<'static, Result<BuildTold>>;

/// The history.
#[async_trait]
pub trait BuildHistory: Send + Sync + 'static {
    /// Lists builds: those that run, then those that have ended, the newest first.
    async fn past_builds(&self) -> Result<Vec<PastBuild>>;

    /// What a build has told; of one that runs the stream goes on until its end.
    async fn build_tale(&self, id: &str) -> Result<BuildTale>;

    /// Removes a build that has ended.
    async fn forget_build(&self, id: &str) -> Result<()>;
}
