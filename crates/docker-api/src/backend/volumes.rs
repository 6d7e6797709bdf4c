//! Volumes.

use async_trait::async_trait;
use bollard_stubs::models::{Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse};

use crate::error::Result;
use crate::filters::Filters;

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
}
