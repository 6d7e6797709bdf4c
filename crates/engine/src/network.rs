//! The built-in networks: bridge, host and none.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard_stubs::models::{
    EndpointResource, Ipam as IpamModel, IpamConfig, Network as NetworkModel, NetworkInspect,
};
use ipnet::Ipv4Net;
use skiff_network::{Bridge, BridgeConfig, Ipam, NetNs, remove_stale_links};

use crate::clock;
use crate::config::Config;
use crate::engine::{Engine, Facts};
use crate::error::{Code, Error, Result, chain};
use crate::filters::{Filters, name_matches};
use crate::names;
use crate::state::{Endpoint, Record};

/// How long the end waits for the links of the last containers.
const LAST_LINKS: Duration = Duration::from_secs(2);

/// The default network, and who has which address on it.
pub(crate) struct Network {
    /// The bridge, or why there is none.
    bridge: Mutex<Result<Arc<Bridge>, String>>,
    /// Its subnet and its own address.
    addresses: Option<(Ipv4Net, Ipv4Addr)>,
    ipam: Mutex<Option<Ipam>>,
    /// What the names of this engine's links begin with: several engines can share a machine.
    prefix: String,
    /// A network namespace made in advance: making one takes longer than most of a start.
    spare: Mutex<Option<NetNs>>,
}

impl Network {
    /// Sets the bridge up. That it fails is told to those who want it, not to containers without a network.
    pub fn open(config: &Config, facts: &Facts) -> Self {
        let wanted = &config.bridge;
        let bridge = match wanted.subnet {
            Some(subnet) => Bridge::ensure(&BridgeConfig {
                name: wanted.name.clone(),
                subnet,
                gateway: subnet.hosts().next().unwrap_or(subnet.addr()),
                mtu: wanted.mtu,
            }),
            None => Bridge::create_on_free_subnet(&wanted.name, wanted.mtu, facts.subnet),
        };
        let bridge = bridge.map_err(|error| {
            let error = chain(&error);
            tracing::error!(error, "default network is not available");
            error
        });
        let addresses = bridge.as_ref().ok().map(|bridge| (bridge.config().subnet, bridge.config().gateway));
        let ipam = addresses.and_then(|(subnet, gateway)| Ipam::new(subnet, Some(gateway), None).ok());
        Self {
            bridge: Mutex::new(bridge.map(Arc::new)),
            addresses,
            ipam: Mutex::new(ipam),
            prefix: format!("v{}", &facts.id[..5]),
            spare: Mutex::default(),
        }
    }

    fn bridge(&self) -> Result<Arc<Bridge>> {
        let bridge = self.bridge.lock().unwrap_or_else(PoisonError::into_inner);
        bridge.as_ref().map(Arc::clone).map_err(|reason| {
            Error::new(Code::Unavailable, format!("failed to set up container networking: {reason}"))
        })
    }

    /// Takes the bridge away, at an orderly end: the next engine makes it again, with the same subnet.
    pub fn close(&self) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closed = Err("the engine is stopping".to_owned());
        let bridge =
            std::mem::replace(&mut *self.bridge.lock().unwrap_or_else(PoisonError::into_inner), closed);
        let Ok(mut bridge) = bridge else { return };
        let deadline = Instant::now() + LAST_LINKS;
        // The links of the last containers may still be on their way out.
        loop {
            match Arc::try_unwrap(bridge) {
                Ok(only) => {
                    if let Err(error) = only.delete() {
                        tracing::warn!(error = chain(&error), "bridge can't be removed");
                    }
                    return;
                }
                Err(_) if Instant::now() >= deadline => {
                    return tracing::warn!("bridge is left: it is in use");
                }
                Err(shared) => bridge = shared,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ipam(&self) -> MutexGuard<'_, Option<Ipam>> {
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn subnet(&self) -> Option<Ipv4Net> {
        self.addresses.map(|(subnet, _)| subnet)
    }

    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.addresses.map(|(_, gateway)| gateway)
    }

    /// Takes an address and makes up an endpoint for it.
    pub fn allocate(&self) -> Result<Endpoint> {
        let unavailable = |reason: &str| {
            Error::new(Code::Unavailable, format!("failed to set up container networking: {reason}"))
        };
        let bridge = self.bridge()?;
        let mut ipam = self.ipam();
        let ipam = ipam.as_mut().ok_or_else(|| unavailable("the bridge's subnet has no addresses"))?;
        let ip = ipam.allocate().map_err(|error| unavailable(&error.to_string()))?;
        let id = names::random_id();
        let model = skiff_network::Endpoint::new(
            "",
            ip,
            bridge.config().subnet.prefix_len(),
            bridge.config().gateway,
        );
        Ok(Endpoint {
            host_name: format!("{}{}", self.prefix, &id[..8]),
            id,
            ip,
            prefix_len: model.prefix_len,
            mac: model.mac_text(),
            gateway: model.gateway,
        })
    }

    /// Takes the address of a container that runs already.
    pub fn reserve(&self, endpoint: &Endpoint) {
        if let Some(ipam) = self.ipam().as_mut()
            && let Err(error) = ipam.allocate_specific(endpoint.ip)
        {
            tracing::warn!(%error, ip = %endpoint.ip, "address of a running container is taken");
        }
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

    /// Connects a network namespace.
    pub fn attach(&self, endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<()> {
        let bridge = self.bridge()?;
        let mut model = skiff_network::Endpoint::new(
            endpoint.host_name.clone(),
            endpoint.ip,
            endpoint.prefix_len,
            bridge.config().gateway,
        );
        if let Some(mac) = parse_mac(&endpoint.mac) {
            model.mac = mac;
        }
        bridge
            .attach(&model, netns.as_fd())
            .map_err(|error| Error::internal("failed to set up container networking", &error))
    }

    /// Takes an endpoint away and frees its address: in this order, so that nobody gets an address still in use.
    pub fn release(&self, endpoint: &Endpoint) {
        if let Ok(bridge) = self.bridge()
            && let Err(error) = bridge.detach(&endpoint.host_name)
            && !error.is_not_found()
        {
            tracing::warn!(error = chain(&error), link = endpoint.host_name, "link can't be removed");
        }
        if let Some(ipam) = self.ipam().as_mut() {
            ipam.release(endpoint.ip);
        }
    }

    /// Removes the links that belong to no running container.
    pub fn sweep(&self, keep: &HashSet<String>) {
        if self.addresses.is_none() {
            return;
        }
        match remove_stale_links(&self.prefix, keep) {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => tracing::info!(links = removed.len(), "stale links removed"),
            Err(error) => tracing::warn!(error = chain(&error), "stale links can't be removed"),
        }
    }
}

/// The six bytes of `02:42:ac:11:00:02`.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None })
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// The name of the built-in network behind a network mode.
pub(crate) fn network_name(mode: &str) -> &str {
    match mode {
        "" | "default" => "bridge",
        other => other,
    }
}

impl Engine {
    /// Lists the networks.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn list_networks(&self, filters: Filters) -> Result<Vec<NetworkModel>> {
        filters.check(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = filters.boolean("dangling")?;
        Ok(["bridge", "host", "none"]
            .into_iter()
            .map(|name| self.network_model(name))
            .filter(|network| {
                let name = network.name.as_deref().unwrap_or_default();
                filters.any("name", |wanted| name_matches(wanted, name))
                    && filters.any("id", |wanted| network.id.as_deref().is_some_and(|id| id.starts_with(wanted)))
                    && filters.any("driver", |wanted| network.driver.as_deref() == Some(wanted))
                    && filters.any("scope", |wanted| wanted == "local")
                    && filters.any("type", |wanted| wanted == "builtin")
                    && filters.labels(network.labels.as_ref())
                    // The built-in networks are never dangling.
                    && dangling.is_none_or(|wanted| !wanted)
            })
            .collect())
    }

    /// Describes a network, by name, id or unique beginning of an id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn inspect_network(&self, wanted: &str) -> Result<NetworkInspect> {
        let facts = &self.0.facts;
        let name = facts
            .networks
            .iter()
            .find(|(name, id)| name.as_str() == wanted || (!wanted.is_empty() && id.starts_with(wanted)))
            .map(|(name, _)| name.clone())
            .ok_or_else(|| Error::not_found(format!("network {wanted} not found")))?;
        let model = self.network_model(&name);
        let members = self.0.registry.all().into_iter().map(|container| container.record());
        let containers: HashMap<String, EndpointResource> = members
            .filter(|record| record.state.is_running())
            .filter(|record| network_name(record.host_config.network_mode.as_deref().unwrap_or("")) == name)
            .map(|record| (record.id.clone(), endpoint_resource(&record)))
            .collect();
        Ok(NetworkInspect {
            name: model.name,
            id: model.id,
            created: model.created,
            scope: model.scope,
            driver: model.driver,
            enable_ipv4: model.enable_ipv4,
            enable_ipv6: model.enable_ipv6,
            ipam: model.ipam,
            internal: model.internal,
            attachable: model.attachable,
            ingress: model.ingress,
            config_from: model.config_from,
            config_only: model.config_only,
            options: model.options,
            labels: model.labels,
            peers: None,
            containers: Some(containers),
            ..NetworkInspect::default()
        })
    }

    fn network_model(&self, name: &str) -> NetworkModel {
        let driver = if name == "none" { "null" } else { name };
        let network = &self.0.network;
        let (mut config, mut options) = (Vec::new(), HashMap::new());
        if name == "bridge" {
            if let (Some(subnet), Some(gateway)) = (network.subnet(), network.gateway()) {
                config.push(IpamConfig {
                    subnet: Some(subnet.to_string()),
                    gateway: Some(gateway.to_string()),
                    ..IpamConfig::default()
                });
            }
            let bridge = &self.0.config.bridge;
            for (key, value) in [
                ("com.docker.network.bridge.default_bridge", "true"),
                ("com.docker.network.bridge.enable_icc", "true"),
                ("com.docker.network.bridge.enable_ip_masquerade", "true"),
                (
                    "com.docker.network.bridge.host_binding_ipv4",
                    &self.0.config.publish_default_ip.to_string(),
                ),
                ("com.docker.network.bridge.name", &bridge.name),
                ("com.docker.network.driver.mtu", &bridge.mtu.to_string()),
            ] {
                options.insert(key.to_owned(), value.to_owned());
            }
        }
        NetworkModel {
            name: Some(name.to_owned()),
            id: self.0.facts.networks.get(name).cloned(),
            created: Some(clock::rfc3339(Some(self.0.facts.created))),
            scope: Some("local".to_owned()),
            driver: Some(driver.to_owned()),
            enable_ipv4: Some(true),
            enable_ipv6: Some(false),
            ipam: Some(IpamModel { driver: Some("default".to_owned()), config: Some(config), options: None }),
            internal: Some(false),
            attachable: Some(false),
            ingress: Some(false),
            config_from: None,
            config_only: Some(false),
            options: Some(options),
            labels: Some(HashMap::new()),
            peers: None,
        }
    }
}

fn endpoint_resource(record: &Record) -> EndpointResource {
    let endpoint = record.endpoint.as_ref();
    EndpointResource {
        name: Some(record.name.clone()),
        endpoint_id: Some(endpoint.map_or_else(String::new, |endpoint| endpoint.id.clone())),
        mac_address: Some(endpoint.map_or_else(String::new, |endpoint| endpoint.mac.clone())),
        ipv4_address: Some(
            endpoint.map_or_else(String::new, |endpoint| format!("{}/{}", endpoint.ip, endpoint.prefix_len)),
        ),
        ipv6_address: Some(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_six_pairs_of_digits() {
        assert_eq!(parse_mac("02:42:ac:11:00:02"), Some([2, 0x42, 0xac, 0x11, 0, 2]));
        for wrong in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "0g:42:ac:11:00:02", "2:42:ac:11:00:02"] {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }
}
