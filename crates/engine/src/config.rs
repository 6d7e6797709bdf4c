//! What an engine is opened with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use skiff_network::AddressPool;

use crate::network::Forwarder;
use crate::publish::Publisher;
use crate::sources::Sources;

/// The default network.
#[derive(Debug, Clone)]
pub struct BridgeNetwork {
    /// The name of the bridge interface, at most 15 bytes.
    pub name: String,
    /// The subnet; without one, a free one is chosen that the machine's routes don't know.
    pub subnet: Option<Ipv4Net>,
    /// The MTU of the bridge and of the containers' interfaces.
    pub mtu: u32,
}

impl Default for BridgeNetwork {
    fn default() -> Self {
        Self { name: "docker0".to_owned(), subnet: None, mtu: 1500 }
    }
}

/// When the machine's packet filter is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketFilter {
    /// With the engine: the machine has other networks that the containers must be kept apart from.
    AtStart,
    /// With the first user-defined network: there is nothing to filter before, and kernel modules cost time.
    OnDemand,
}

/// How containers reach the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Egress {
    /// With the machine's own addresses, by its packet filter.
    Masquerade,
    /// They are caught: a program on this machine carries what they send ([`skiff_network::outside`]).
    Caught,
}

/// What an engine is opened with.
#[derive(Clone)]
pub struct Config {
    /// The directory that holds everything durable.
    pub root: PathBuf,
    /// The engine's name in `docker info`.
    pub name: String,
    /// The product's version in `docker version`.
    pub version: String,
    /// The image store.
    pub images: skiff_images::Store,
    /// The connection to the parent of all containers.
    pub supervisor: skiff_supervisor::Client,
    /// Who binds host addresses for published ports.
    pub publisher: Arc<dyn Publisher>,
    /// Who knows where the host paths of bind mounts are.
    pub sources: Arc<dyn Sources>,
    /// The host address of a published port that names none.
    pub publish_default_ip: IpAddr,
    /// The default network.
    pub bridge: BridgeNetwork,
    /// Whether containers may share interfaces of this machine (macvlan, ipvlan): a guest has none to share.
    pub shares_interfaces: bool,
    /// Where subnets of new networks come from, in order.
    pub address_pools: Vec<AddressPool>,
    /// How containers reach the outside.
    pub egress: Egress,
    /// What `host-gateway` stands for; without one, the default network's gateway.
    pub host_gateway: Option<IpAddr>,
    /// When the machine's packet filter is set up.
    pub packet_filter: PacketFilter,
    /// Who answers what containers ask their resolver about the world.
    pub forwarder: Arc<dyn Forwarder>,
    /// The cgroup v2 directory under which each container gets its own; `None`: containers run without limits.
    pub cgroup_parent: Option<PathBuf>,
    /// A static program that can be the init of a container (`--init`); started as `docker-init -- COMMAND…`.
    pub init: Option<PathBuf>,
    /// The file whose name servers and search domains containers inherit.
    pub resolv_conf: PathBuf,
    /// Name servers for containers when `resolv_conf` names none that a container can reach.
    pub fallback_dns: Vec<IpAddr>,
    /// Registry mirrors, as shown by `docker info`.
    pub registry_mirrors: Vec<String>,
}

impl Config {
    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("root", &self.root)
            .field("bridge", &self.bridge)
            .finish_non_exhaustive()
    }
}
