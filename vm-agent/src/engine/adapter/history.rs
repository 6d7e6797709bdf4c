//! The history of builds.

use async_trait::async_trait;
use futures_util::StreamExt;
use skiff_buildkit::Told;
use skiff_docker_api::Result;
use skiff_docker_api::backend::{BuildHistory, BuildState, BuildTale, BuildTold, PastBuild};

use super::Adapter;
use super::buildkit::api_error;

#[async_trait]
impl BuildHistory for Adapter {
    async fn past_builds(&self) -> Result<Vec<PastBuild>> {
        Ok(self.1.past_builds().into_iter().map(past).collect())
    }

    async fn build_tale(&self, id: &str) -> Result<BuildTale> {
        let tale = self.1.tale(id).await.map_err(api_error)?;
        Ok(tale.map(|told| Ok(one(told))).boxed())
    }

    async fn forget_build(&self, id: &str) -> Result<()> {
        self.1.forget(id).await.map_err(api_error)
    }
}

fn past(build: skiff_buildkit::PastBuild) -> PastBuild {
    let state = match build.status {
        "running" => BuildState::Running,
        "completed" => BuildState::Completed,
        "canceled" => BuildState::Canceled,
        _ => BuildState::Error,
    };
    PastBuild {
        id: build.id,
        tags: build.tags,
        source: build.source,
        dockerfile: build.dockerfile,
        target: build.target,
        state,
        error: build.error,
        created: build.created,
        completed: build.completed,
        steps: build.steps,
        cached: build.cached,
        warnings: build.warnings,
        pinned: build.pinned,
    }
}

fn one(told: Told) -> BuildTold {
    match told {
        Told::Step { id, name, started, completed, cached, error } => {
            BuildTold::Step { id, name, started, completed, cached, error }
        }
        Told::Log { step, text } => BuildTold::Log { step, text },
        Told::Part { step, name, current, total } => BuildTold::Part { step, name, current, total },
        Told::Warning { step, text, url } => BuildTold::Warning { step, text, url },
    }
}
