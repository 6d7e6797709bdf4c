//! Volumes.

use async_trait::async_trait;
use skiff_docker_api::backend::{
    BodyReader, ByteStream, PathStat, VolumeFile, VolumeFileKind, VolumeFiles, Volumes,
};
use skiff_docker_api::models::{Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse};
use skiff_docker_api::{Filters, Result};

use super::Adapter;
use super::containers::path_stat;
use super::convert::{self, OrApiError};

#[async_trait]
impl Volumes for Adapter {
    async fn list_volumes(&self, filters: Filters) -> Result<VolumeListResponse> {
        self.0.list_volumes(convert::filters(&filters)).await.or_api()
    }

    async fn create_volume(&self, request: VolumeCreateRequest) -> Result<Volume> {
        self.0.create_volume(request).await.or_api()
    }

    async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.0.inspect_volume(name).await.or_api()
    }

    async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        self.0.remove_volume(name, force).await.or_api()
    }

    async fn prune_volumes(&self, filters: Filters) -> Result<VolumePruneResponse> {
        self.0.prune_volumes(convert::filters(&filters)).await.or_api()
    }

    async fn volume_files(&self, name: &str, path: &str) -> Result<VolumeFiles> {
        let (files, cut) = self.0.volume_files(name, path).await.or_api()?;
        Ok(VolumeFiles { files: files.into_iter().map(file).collect(), cut })
    }

    async fn stat_volume_path(&self, name: &str, path: &str) -> Result<PathStat> {
        self.0.volume_path(name, path).await.or_api().map(path_stat)
    }

    async fn volume_archive(&self, name: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let archive = self.0.volume_archive(name, path).await.or_api()?;
        Ok((path_stat(archive.stat), archive.bytes))
    }

    async fn put_volume_archive(&self, name: &str, path: &str, archive: BodyReader) -> Result<()> {
        self.0.put_volume_archive(name, path, archive).await.or_api()
    }
}

fn file(file: skiff_engine::VolumeFile) -> VolumeFile {
    // The kinds of stat(2).
    let kind = match file.mode & 0o170_000 {
        0o100_000 => VolumeFileKind::File,
        0o040_000 => VolumeFileKind::Directory,
        0o120_000 => VolumeFileKind::Link,
        _ => VolumeFileKind::Other,
    };
    VolumeFile {
        name: file.name,
        kind,
        size: file.size,
        mode: file.mode,
        uid: file.uid,
        gid: file.gid,
        modified: file.modified,
        target: file.target,
    }
}
