//! Networks.

use async_trait::async_trait;
use skiff_docker_api::backend::{InspectNetwork, Networks};
use skiff_docker_api::models::{Network, NetworkInspect};
use skiff_docker_api::{Filters, Result};

use super::Adapter;
use super::convert::{self, OrApiError};

#[async_trait]
impl Networks for Adapter {
    async fn list_networks(&self, filters: Filters) -> Result<Vec<Network>> {
        self.0.list_networks(convert::filters(&filters)).await.or_api()
    }

    async fn inspect_network(&self, id: &str, _options: InspectNetwork) -> Result<NetworkInspect> {
        // Neither option changes anything outside a swarm.
        self.0.inspect_network(id).await.or_api()
    }
}
