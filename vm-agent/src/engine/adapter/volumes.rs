//! Volumes.

use async_trait::async_trait;
use skiff_docker_api::backend::Volumes;
use skiff_docker_api::models::{Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse};
use skiff_docker_api::{Filters, Result};

use super::Adapter;
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
}
