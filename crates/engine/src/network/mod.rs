//! Networks: the built-in ones, and those that users make.
//!
//! ```text
//!  Networks ── Network ── NetworkRecord   in the database; the built-in ones are made up at every start
//!     │           └────── bridge, addresses, who is on it
//!     └─ firewall: one table, written anew at every change
//! ```
//!
//! A record is committed before its bridge is made and removed after its bridge is gone, so that a killed engine leaves
//! whole networks only; a bridge of ours that no record names is swept by the next start. A container's endpoints are part
//! of its own record.

mod attach;
mod beside;
mod configuration;
mod connect;
mod create;
mod device;
mod forward;
mod links;
mod list;
mod lookup;
mod one;
mod options;
mod outside;
mod pools;
mod remove;
mod resolver;
mod settings;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ipnet::Ipv4Net;
use skiff_network::{
    AddressPool, Bridge, Firewall, NetNs, Zone, remove_stale_bridges, remove_stale_links, unique_local_pool,
};

use crate::config::{BridgeNetwork, Config, Egress, PacketFilter};
use crate::engine::Facts;
use crate::error::{Error, Result, chain};
use crate::state::{Database, NetworkRecord, Table};

use beside::Beside;
pub(crate) use beside::Look;
use device::Device;
pub use forward::{Forwarder, LocalForwarder, NameServers};
pub(crate) use links::Link;
pub(crate) use one::Network;
use outside::CaughtOutside;
pub(crate) use resolver::Resolver;
pub(crate) use settings::dns_names;

/// Where containers of user-defined networks ask for names.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// All networks.
pub(crate) struct Networks {
    all: RwLock<BTreeMap<String, Arc<Network>>>,
    default: Arc<Network>,
    /// What the names of this engine's links begin with: several engines can share a machine.
    prefix: String,
    /// What its bridges and its firewall table are known by.
    owner: String,
    firewall: Firewall,
    beside: Beside,
    egress: Egress,
    outside: Option<CaughtOutside>,
    host_gateway: Option<IpAddr>,
    packet_filter: PacketFilter,
    /// Where subnets of new networks come from.
    pools: Vec<AddressPool>,
    /// Ports of containers on routed networks, which are open to the outside, by container.
    open: Mutex<HashMap<String, Vec<(skiff_network::Protocol, SocketAddr)>>>,
    /// Whether containers may share interfaces of this machine.
    pub shares_interfaces: bool,
    /// Whether the table has been written.
    filtering: AtomicBool,
    /// Held while a network is made or removed.
    changes: Mutex<()>,
    /// A network namespace made in advance: making one takes longer than most of a start.
    spare: Mutex<Option<NetNs>>,
}

impl Networks {
    /// Sets all bridges up. That one fails is told to those who want it, not to other containers.
    pub fn open(config: &Config, facts: &Facts, database: &Database) -> Result<Self> {
        let owner = config.bridge.name.clone();
        let mut pools = config.address_pools.clone();
        // The machine's own unique local addresses come last, as with dockerd.
        pools.push(unique_local_pool(&facts.id));
        let mut all = BTreeMap::new();
        // Those of users first: the default network looks for a subnet beside them.
        for record in database.all::<NetworkRecord>(Table::Networks)? {
            let network = Network::open(record, &owner);
            all.insert(network.record().id.clone(), Arc::new(network));
        }
        let default = Arc::new(open_default(&config.bridge, config, facts, &pools));
        all.insert(default.record().id.clone(), Arc::clone(&default));
        for (name, driver) in [("host", "host"), ("none", "null")] {
            let record = built_in(facts, name, driver);
            all.insert(record.id.clone(), Arc::new(Network::without_device(record)));
        }
        let keep: HashSet<String> = all.values().map(|network| network.record().bridge.clone()).collect();
        match remove_stale_bridges(&owner, &keep) {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => tracing::info!(bridges = removed.len(), "stale bridges removed"),
            Err(error) => tracing::warn!(error = chain(&error), "stale bridges can't be removed"),
        }
        let networks = Self {
            all: RwLock::new(all),
            default,
            prefix: format!("v{}", &facts.id[..5]),
            firewall: Firewall::new(format!("skiff_{owner}")),
            outside: CaughtOutside::of(config.egress, &owner),
            beside: Beside::new(&owner),
            owner,
            egress: config.egress,
            host_gateway: config.host_gateway,
            packet_filter: config.packet_filter,
            pools,
            shares_interfaces: config.shares_interfaces,
            open: Mutex::default(),
            filtering: AtomicBool::new(false),
            changes: Mutex::default(),
            spare: Mutex::default(),
        };
        if let Err(error) = networks.apply_firewall() {
            tracing::warn!(%error, "firewall can't be set up: networks are not apart");
        }
        Ok(networks)
    }

    /// Takes the bridges and the firewall away, at an orderly end: the next engine makes them again.
    pub fn close(&self) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        for network in self.list() {
            network.close();
        }
        if self.filtering.load(Ordering::Relaxed)
            && let Err(error) = self.firewall.remove()
        {
            tracing::warn!(error = chain(&error), "firewall can't be removed");
        }
        if self.egress == Egress::Masquerade {
            self.beside.remove();
        }
    }

    /// All networks, by id.
    pub fn list(&self) -> Vec<Arc<Network>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Finds by id, name, or unique beginning of an id, in this order.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, wanted: &str) -> Result<Arc<Network>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = all.get(wanted) {
            return Ok(Arc::clone(network));
        }
        if let Some(network) = all.values().find(|network| network.record().name == wanted) {
            return Ok(Arc::clone(network));
        }
        let mut found = all.values().filter(|network| network.record().id.starts_with(wanted));
        match (found.next(), found.next()) {
            (Some(only), None) if !wanted.is_empty() => Ok(Arc::clone(only)),
            (Some(_), Some(_)) if !wanted.is_empty() => {
                let count = 2 + found.count();
                Err(Error::invalid(format!(
                    "network {wanted} is ambiguous ({count} matches found based on ID prefix)"
                )))
            }
            _ => Err(Error::not_found(format!("network {wanted} not found"))),
        }
    }

    /// The default network.
    pub fn default_network(&self) -> &Arc<Network> {
        &self.default
    }

    /// The default network's subnet, if it could be set up.
    pub fn default_subnet(&self) -> Option<Ipv4Net> {
        self.default.record().subnet
    }

    /// What `host-gateway` stands for: the host, as containers reach it.
    pub fn host_gateway(&self) -> Option<IpAddr> {
        self.host_gateway.or_else(|| self.default.record().gateway.map(Into::into))
    }

    /// What the names of this engine's links begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A new network namespace. [`prepare`](Self::prepare) should follow once the container runs.
    pub fn namespace(&self) -> Result<NetNs, skiff_network::Error> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        spare.map_or_else(NetNs::create, Ok)
    }

    /// Makes a network namespace for the next container.
    pub fn prepare(&self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_none() {
            match NetNs::create() {
                Ok(netns) => *spare = Some(netns),
                Err(error) => tracing::debug!(error = chain(&error), "no network namespace in advance"),
            }
        }
    }

    /// Removes the links that belong to no running container.
    pub fn sweep(&self, keep: &HashSet<String>) {
        match remove_stale_links(&self.prefix, keep) {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => tracing::info!(links = removed.len(), "stale links removed"),
            Err(error) => tracing::warn!(error = chain(&error), "stale links can't be removed"),
        }
    }

    /// Brings the firewall into agreement with the networks.
    fn apply_firewall(&self) -> Result<()> {
        self.update_outside()?;
        let all = self.list();
        if !self.filtering.load(Ordering::Relaxed)
            && self.packet_filter == PacketFilter::OnDemand
            && !all.iter().any(|network| is_user_defined(&network.record().name))
        {
            return Ok(());
        }
        self.filtering.store(true, Ordering::Relaxed);
        let open: Vec<_> = self.opened().values().flatten().copied().collect();
        let zones: Vec<Zone> = all.iter().flat_map(|network| network.zones(self.egress, &open)).collect();
        self.firewall.apply(&zones).map_err(|error| Error::internal("set up the firewall", &error))?;
        self.look_beside(Look::Now);
        Ok(())
    }

    /// Has other firewalls of this machine let our bridges' packets through. They may have come after us.
    pub fn look_beside(&self, look: Look) {
        if self.egress == Egress::Masquerade {
            let bridges = self.list().into_iter().filter(|network| network.is_bridge());
            self.beside
                .apply(&bridges.map(|network| network.record().bridge.clone()).collect::<Vec<_>>(), look);
        }
    }

    /// Opens ports of a container on a routed network to the outside, instead of those it had.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_ports(
        &self,
        container: &str,
        ports: Vec<(skiff_network::Protocol, SocketAddr)>,
    ) -> Result<()> {
        let changed = match ports.is_empty() {
            true => self.opened().remove(container).is_some(),
            false => self.opened().insert(container.to_owned(), ports.clone()) != Some(ports),
        };
        if changed { self.apply_firewall() } else { Ok(()) }
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<String, Vec<(skiff_network::Protocol, SocketAddr)>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, network: Arc<Network>) {
        let id = network.record().id.clone();
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(id, network);
    }

    fn forget(&self, id: &str) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// Whether containers of the network find each other by name, and so on: everything but the built-in ones.
pub(crate) fn is_user_defined(name: &str) -> bool {
    !matches!(name, "bridge" | "host" | "none" | "default")
}

/// The name of the network behind a network mode.
pub(crate) fn network_name(mode: &str) -> &str {
    match mode {
        "" | "default" => "bridge",
        other => other,
    }
}

fn built_in(facts: &Facts, name: &str, driver: &str) -> NetworkRecord {
    NetworkRecord {
        id: facts.networks.get(name).cloned().unwrap_or_default(),
        name: name.to_owned(),
        created: facts.created,
        driver: driver.to_owned(),
        bridge: String::new(),
        subnet: None,
        range: None,
        gateway: None,
        reserved: BTreeMap::new(),
        own_subnet: false,
        subnet6: None,
        range6: None,
        gateway6: None,
        reserved6: BTreeMap::new(),
        own_subnet6: false,
        dormant: Vec::new(),
        given: Vec::new(),
        ipam_options: None,
        internal: false,
        attachable: false,
        options: Default::default(),
        labels: Default::default(),
        configuration: None,
        config_from: None,
    }
}

fn open_default(wanted: &BridgeNetwork, config: &Config, facts: &Facts, pools: &[AddressPool]) -> Network {
    let mut record = built_in(facts, "bridge", "bridge");
    record.bridge.clone_from(&wanted.name);
    record.options = [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
        ("com.docker.network.bridge.enable_ip_masquerade", "true".to_owned()),
        ("com.docker.network.bridge.host_binding_ipv4", config.publish_default_ip.to_string()),
        ("com.docker.network.bridge.name", wanted.name.clone()),
        ("com.docker.network.driver.mtu", wanted.mtu.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if let Some(subnet) = wanted.subnet {
        record.subnet = Some(subnet.trunc());
        record.gateway = subnet.hosts().next();
        return Network::open(record, &wanted.name);
    }
    let bridge = Bridge::create_on_free_subnet(&wanted.name, &wanted.name, wanted.mtu, facts.subnet, pools);
    if let Some((subnet, gateway)) = bridge.as_ref().ok().and_then(|bridge| bridge.config().ipv4()) {
        record.subnet = Some(subnet);
        record.gateway = Some(gateway);
    }
    Network::with_device(record, bridge.map(Device::Bridge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_built_in_networks_are_not_user_defined() {
        assert!(["bridge", "host", "none", "default"].iter().all(|name| !is_user_defined(name)));
        assert!(is_user_defined("front"));
        assert_eq!([network_name(""), network_name("default"), network_name("x")], ["bridge", "bridge", "x"]);
    }
}
