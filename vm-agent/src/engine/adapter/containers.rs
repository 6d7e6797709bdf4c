//! Containers.

use async_trait::async_trait;
use futures_util::StreamExt;
use skiff_docker_api::backend::{
    AttachOptions, AttachStreams, BodyReader, ByteStream, CommitContainer, Containers, CreateContainer,
    InspectedContainer, ListContainers, LogStreams, LogsOptions, PathChange, PathStat, PutArchive,
    RemoveContainer, StatsOptions, StatsStream, StopOptions, Tail, TerminalSize, WaitCondition, WaitResult,
};
use skiff_docker_api::models::{
    ContainerCreateResponse, ContainerPruneResponse, ContainerSummary, ContainerTopResponse,
    ContainerUpdateBody, ContainerUpdateResponse,
};
use skiff_docker_api::{Filters, Result};

use super::Adapter;
use super::convert::{self, OrApiError};

#[async_trait]
impl Containers for Adapter {
    async fn create_container(&self, request: CreateContainer) -> Result<ContainerCreateResponse> {
        let request = skiff_engine::CreateContainer {
            name: request.name,
            platform: request.platform,
            body: request.body,
        };
        self.0.create_container(request).await.or_api()
    }

    async fn list_containers(&self, options: ListContainers) -> Result<Vec<ContainerSummary>> {
        let options = skiff_engine::ListContainers {
            all: options.all,
            limit: options.limit,
            size: options.size,
            filters: convert::filters(&options.filters),
        };
        self.0.list_containers(options).await.or_api()
    }

    async fn inspect_container(&self, id: &str, size: bool) -> Result<InspectedContainer> {
        let container = self.0.inspect_container(id, size).await.or_api()?;
        Ok(InspectedContainer { container, mac_address: self.0.wanted_mac_address(id).or_api()? })
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.0.start_container(id).await.or_api()
    }

    async fn stop_container(&self, id: &str, options: StopOptions) -> Result<()> {
        self.0.stop_container(id, stop(options)).await.or_api()
    }

    async fn restart_container(&self, id: &str, options: StopOptions) -> Result<()> {
        self.0.restart_container(id, stop(options)).await.or_api()
    }

    async fn kill_container(&self, id: &str, signal: Option<&str>) -> Result<()> {
        self.0.kill_container(id, signal).await.or_api()
    }

    async fn pause_container(&self, id: &str) -> Result<()> {
        self.0.pause_container(id).await.or_api()
    }

    async fn unpause_container(&self, id: &str) -> Result<()> {
        self.0.unpause_container(id).await.or_api()
    }

    async fn wait_container(&self, id: &str, condition: WaitCondition) -> Result<WaitResult> {
        let condition = match condition {
            WaitCondition::NotRunning => skiff_engine::WaitCondition::NotRunning,
            WaitCondition::NextExit => skiff_engine::WaitCondition::NextExit,
            WaitCondition::Removed => skiff_engine::WaitCondition::Removed,
        };
        let waiting = self.0.wait_container(id, condition).await.or_api()?;
        Ok(Box::pin(async move { waiting.await.or_api() }))
    }

    async fn remove_container(&self, id: &str, options: RemoveContainer) -> Result<()> {
        let options = skiff_engine::RemoveContainer {
            force: options.force,
            volumes: options.volumes,
            link: options.link,
        };
        self.0.remove_container(id, options).await.or_api()
    }

    async fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        self.0.rename_container(id, name).await.or_api()
    }

    async fn update_container(
        &self,
        id: &str,
        update: ContainerUpdateBody,
    ) -> Result<ContainerUpdateResponse> {
        self.0.update_container(id, update).await.or_api()
    }

    async fn resize_container(&self, id: &str, size: TerminalSize) -> Result<()> {
        self.0.resize_container(id, convert::size(size)).await.or_api()
    }

    async fn top_container(&self, id: &str, ps_args: &str) -> Result<ContainerTopResponse> {
        self.0.top_container(id, ps_args).await.or_api()
    }

    async fn container_logs(&self, id: &str, options: LogsOptions) -> Result<LogStreams> {
        let options = skiff_engine::LogsOptions {
            follow: options.follow,
            stdout: options.stdout,
            stderr: options.stderr,
            since: options.since.map(convert::nanoseconds),
            until: options.until.map(convert::nanoseconds),
            timestamps: options.timestamps,
            details: options.details,
            tail: match options.tail {
                Tail::All => None,
                Tail::Lines(lines) => Some(lines),
            },
        };
        let logs = self.0.container_logs(id, options).await.or_api()?;
        Ok(LogStreams { output: convert::chunks(logs.output), tty: logs.tty })
    }

    async fn attach_container(&self, id: &str, options: AttachOptions) -> Result<AttachStreams> {
        let own = skiff_engine::AttachOptions {
            logs: options.logs,
            stream: options.stream,
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        self.0.attach_container(id, own).await.or_api().map(convert::attach)
    }

    async fn container_stats(&self, id: &str, options: StatsOptions) -> Result<StatsStream> {
        let options = skiff_engine::StatsOptions { stream: options.stream, one_shot: options.one_shot };
        let stats = self.0.container_stats(id, options).await.or_api()?;
        Ok(Box::pin(stats.map(OrApiError::or_api)))
    }

    async fn stat_container_path(&self, id: &str, path: &str) -> Result<PathStat> {
        self.0.container_path(id, path).await.or_api().map(path_stat)
    }

    async fn container_archive(&self, id: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let archive = self.0.container_archive(id, path).await.or_api()?;
        Ok((path_stat(archive.stat), archive.bytes))
    }

    async fn put_container_archive(&self, id: &str, options: PutArchive, archive: BodyReader) -> Result<()> {
        let options = skiff_engine::PutArchive {
            path: options.path,
            copy_owner: options.copy_uid_gid,
            keep_kinds: options.no_overwrite_dir_non_dir,
        };
        self.0.put_container_archive(id, options, archive).await.or_api()
    }

    async fn export_container(&self, id: &str) -> Result<ByteStream> {
        self.0.export_container(id).await.or_api()
    }

    async fn container_changes(&self, id: &str) -> Result<Vec<PathChange>> {
        let changes = self.0.container_changes(id).await.or_api()?;
        Ok(changes.into_iter().map(|change| PathChange { path: change.path, kind: change.kind }).collect())
    }

    async fn commit_container(&self, request: CommitContainer) -> Result<String> {
        let request = skiff_engine::CommitContainer {
            container: request.container,
            reference: request.reference,
            author: request.author,
            comment: request.comment,
            pause: request.pause,
            changes: request.changes,
            config: request.config,
        };
        self.0.commit_container(request).await.or_api()
    }

    async fn prune_containers(&self, filters: Filters) -> Result<ContainerPruneResponse> {
        self.0.prune_containers(convert::filters(&filters)).await.or_api()
    }
}

fn stop(options: StopOptions) -> skiff_engine::StopOptions {
    skiff_engine::StopOptions { signal: options.signal, timeout_seconds: options.timeout_seconds }
}

pub(super) fn path_stat(stat: skiff_engine::PathStat) -> PathStat {
    PathStat {
        name: stat.name,
        size: stat.size,
        mode: stat.mode,
        modified: stat.modified,
        link_target: stat.link_target,
    }
}
