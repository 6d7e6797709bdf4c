//! Networks.

use async_trait::async_trait;
use skiff_docker_api::backend::{InspectNetwork, Networks};
use skiff_docker_api::models::{
    EndpointSettings, Network, NetworkCreateRequest, NetworkCreateResponse, NetworkInspect,
    NetworkPruneResponse,
};
use skiff_docker_api::{Filters, Result};

use super::Adapter;
use super::convert::{self, OrApiError};

#[async_trait]
impl Networks for Adapter {
    async fn list_networks(&self, filters: Filters) -> Result<Vec<Network>> {
        self.0.list_networks(convert::filters(&filters)).await.or_api()
    }

    async fn inspect_network(&self, id: &str, options: InspectNetwork) -> Result<NetworkInspect> {
        // `verbose` changes nothing outside a swarm.
        self.0.inspect_network(id, options.scope.as_deref()).await.or_api()
    }

    async fn create_network(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        self.0.create_network(request).await.or_api()
    }

    async fn connect_network(
        &self,
        id: &str,
        container: &str,
        settings: Option<EndpointSettings>,
    ) -> Result<()> {
        self.0.connect_network(id, container, settings).await.or_api()
    }

    async fn disconnect_network(&self, id: &str, container: &str, force: bool) -> Result<()> {
        self.0.disconnect_network(id, container, force).await.or_api()
    }

    async fn remove_network(&self, id: &str) -> Result<()> {
        self.0.remove_network(id).await.or_api()
    }

    async fn prune_networks(&self, filters: Filters) -> Result<NetworkPruneResponse> {
        self.0.prune_networks(convert::filters(&filters)).await.or_api()
    }
}
