//! Networks.

use async_trait::async_trait;
use bollard_stubs::models::{Network, NetworkInspect};

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
}
