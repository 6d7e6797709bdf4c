//! Volumes.

use async_trait::async_trait;
use bollard_stubs::models::{Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse};
use serde::Serialize;

use super::{BodyReader, ByteStream, PathStat};
use crate::error::Result;
use crate::filters::Filters;

/// What a file in a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeFileKind {
    /// An ordinary file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a socket or a pipe.
    Other,
}

/// A file in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeFile {
    /// Its name; bytes that are no text are replaced.
    pub name: String,
    /// What it is.
    pub kind: VolumeFileKind,
    /// Bytes.
    pub size: i64,
    /// Kind and permissions as stat(2) has them.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When it was changed last, RFC 3339.
    pub modified: String,
    /// Where a link leads.
    pub target: String,
}

/// A directory of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeFiles {
    /// What is in it, in the order of the names.
    pub files: Vec<VolumeFile>,
    /// Whether there is more.
    pub cut: bool,
}

/// The volumes.
#[async_trait]
pub trait Volumes: Send + Sync + 'static {
    /// Lists volumes; filters are any of `dangling driver label name`.
    async fn list_volumes(&self, filters: Filters) -> Result<VolumeListResponse>;

    /// Creates a volume, or returns the one of that name; without a name it is anonymous.
    async fn create_volume(&self, request: VolumeCreateRequest) -> Result<Volume>;

    /// Describes a volume.
    async fn inspect_volume(&self, name: &str) -> Result<Volume>;

    /// Removes a volume; `force` also if it is gone already.
    async fn remove_volume(&self, name: &str, force: bool) -> Result<()>;

    /// Removes unused volumes; filters are any of `all label label!`. Without `all` only anonymous ones (API ≥ 1.42;
    /// for older clients the server sets `all`).
    async fn prune_volumes(&self, filters: Filters) -> Result<VolumePruneResponse>;

    /// Lists a directory of a volume. Skiff's own, as the next three.
    async fn volume_files(&self, name: &str, path: &str) -> Result<VolumeFiles>;

    /// Says what is at a path of a volume.
    async fn stat_volume_path(&self, name: &str, path: &str) -> Result<PathStat>;

    /// Reads what is at a path of a volume.
    async fn volume_archive(&self, name: &str, path: &str) -> Result<(PathStat, ByteStream)>;

    /// Unpacks an archive in a directory of a volume.
    async fn put_volume_archive(&self, name: &str, path: &str, archive: BodyReader) -> Result<()>;
}
