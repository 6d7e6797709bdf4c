//! Builds and their cache.

use async_trait::async_trait;
use futures_util::StreamExt;
use skiff_build::Limits;
use skiff_build::classic::{Line, Request};
use skiff_docker_api::Result;
use skiff_docker_api::backend::{
    BodyReader, Build, BuildCacheRecord, BuildImage, ErrorDetail, Progress, ProgressStream, PruneBuilds,
    PrunedBuilds,
};

use super::Adapter;
use super::convert::{self, OrApiError};
use super::images::credentials;

#[async_trait]
impl Build for Adapter {
    async fn build_image(&self, request: BuildImage, context: BodyReader) -> Result<ProgressStream> {
        let lines = self.0.build_image(classic(request), context);
        Ok(Box::pin(lines.map(|line| line.map(progress).or_api())))
    }

    async fn prune_builds(&self, request: PruneBuilds) -> Result<PrunedBuilds> {
        let request = skiff_engine::PruneBuilds {
            all: request.all,
            keep_storage: request.keep_storage,
            max_used_space: request.max_used_space,
            min_free_space: request.min_free_space,
            filters: convert::filters(&request.filters),
        };
        let pruned = self.0.prune_builds(request).await.or_api()?;
        Ok(PrunedBuilds { deleted: pruned.deleted, reclaimed: pruned.reclaimed })
    }
}

impl Adapter {
    /// The build cache for `GET /system/df`.
    pub(super) async fn build_cache(&self) -> Result<Vec<BuildCacheRecord>> {
        let record = |record: skiff_engine::BuildCacheRecord| BuildCacheRecord {
            id: record.id,
            parents: record.parents,
            kind: record.kind,
            description: record.description,
            in_use: record.in_use,
            shared: record.shared,
            size: record.size,
            created: record.created,
            last_used: record.last_used,
            usage_count: record.usage_count,
        };
        Ok(self.0.build_cache().await.or_api()?.into_iter().map(record).collect())
    }
}

fn progress(line: Line) -> Progress {
    match line {
        Line::Text(text) => Progress::stream(text),
        Line::Result(result) => Progress { aux: Some(result), ..Progress::default() },
        Line::Failed { code, message } => Progress {
            error: Some(message.clone()),
            error_detail: Some(ErrorDetail { code: (code != 0).then_some(code), message }),
            ..Progress::default()
        },
    }
}

fn classic(request: BuildImage) -> Request {
    let logins = request.logins.into_iter().filter_map(|(host, auth)| Some((host, credentials(auth)?)));
    let ulimit = |limit: &skiff_docker_api::backend::BuildUlimit| {
        format!("{}={}:{}", limit.name, limit.soft, limit.hard)
    };
    Request {
        tags: request.tags,
        dockerfile: request.dockerfile,
        remote: request.remote,
        target: request.target,
        build_args: request.build_args,
        labels: request.labels,
        no_cache: request.no_cache,
        pull: request.pull,
        quiet: request.quiet,
        network: request.network,
        extra_hosts: request.extra_hosts,
        shm_size: u64::try_from(request.shm_size).unwrap_or(0),
        ulimits: request.ulimits.iter().map(ulimit).collect(),
        limits: Limits {
            memory: request.memory,
            memory_swap: request.memory_swap,
            cpu_shares: request.cpu_shares,
            cpu_period: request.cpu_period,
            cpu_quota: request.cpu_quota,
            cpuset_cpus: request.cpuset_cpus,
            cpuset_mems: request.cpuset_mems,
        },
        cgroup_parent: request.cgroup_parent,
        platform: request.platform,
        cache_from: request.cache_from,
        logins: logins.collect(),
    }
}
