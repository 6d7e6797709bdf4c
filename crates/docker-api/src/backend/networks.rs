//! Networks.

use async_trait::async_trait;
use bollard_stubs::models::{
    EndpointSettings, Network, NetworkCreateRequest, NetworkCreateResponse, NetworkInspect,
    NetworkPruneResponse,
};

use crate::error::Result;
use crate::filters::Filters;

/// `GET /networks/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InspectNetwork {
    /// Services too; without meaning outside a swarm.
    pub verbose: bool,
    /// Only a network of this scope (`local`, `global`, `swarm`).
    pub scope: Option<String>,
}

/// The networks.
#[async_trait]
pub trait Networks: Send + Sync + 'static {
    /// Lists networks; filters are any of `dangling driver id label name scope type`.
    async fn list_networks(&self, filters: Filters) -> Result<Vec<Network>>;

    /// Describes a network, by name, id or unique prefix of an id.
    async fn inspect_network(&self, id: &str, options: InspectNetwork) -> Result<NetworkInspect>;

    /// Makes a network.
    async fn create_network(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse>;

    /// Puts a container on a network.
    async fn connect_network(
        &self,
        id: &str,
        container: &str,
        settings: Option<EndpointSettings>,
    ) -> Result<()>;

    /// Takes a container from a network; `force` also if the network has lost track of it.
    async fn disconnect_network(&self, id: &str, container: &str, force: bool) -> Result<()>;

    /// Removes a network.
    async fn remove_network(&self, id: &str) -> Result<()>;

    /// Removes unused networks of users; filters are any of `label label! until`.
    async fn prune_networks(&self, filters: Filters) -> Result<NetworkPruneResponse>;
}
