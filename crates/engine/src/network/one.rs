//! One network: its bridge, its addresses, and who is on it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard_stubs::models::EndpointSettings;
use skiff_network::{Bridge, BridgeConfig, Ipam, IpamError, Neighbours, Outside, Zone};

use super::settings::parse_mac;
use crate::config::Egress;
use crate::error::{Code, Error, Result, chain};
use crate::names;
use crate::state::{Endpoint, NetworkRecord, Record};

/// How long the end waits for the links of the last containers.
const LAST_LINKS: Duration = Duration::from_secs(2);
const DEFAULT_MTU: u32 = 1500;

/// A network.
pub(crate) struct Network {
    record: NetworkRecord,
    state: Mutex<State>,
}

struct State {
    /// The bridge, or why there is none.
    bridge: Result<Arc<Bridge>, String>,
    ipam: Option<Ipam>,
    /// Who is on it now, by endpoint.
    members: HashMap<String, Member>,
    /// Set by the removal: nobody may come any more.
    removed: bool,
}

/// A container's place on a network, as the network knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub container: String,
    pub ip: Ipv4Addr,
}

impl Network {
    /// Makes the bridge that the record describes, or takes it over.
    pub fn open(record: NetworkRecord, owner: &str) -> Self {
        let bridge = match bridge_config(&record, owner) {
            Some(config) => Bridge::ensure(&config),
            None => return Self::without_bridge(record),
        };
        Self::with_bridge(record, bridge)
    }

    /// Takes a bridge that was just made.
    pub fn with_bridge(record: NetworkRecord, bridge: Result<Bridge, skiff_network::Error>) -> Self {
        let bridge = bridge.map(Arc::new).map_err(|error| {
            let error = chain(&error);
            tracing::error!(error, bridge = record.bridge, "network is not available");
            error
        });
        let ipam = record.subnet.and_then(|subnet| Ipam::new(subnet, record.gateway, record.range).ok());
        let ipam = ipam.map(|mut ipam| {
            for ip in record.reserved.values() {
                // The gateway may be named among them.
                let _ = ipam.allocate_specific(*ip);
            }
            ipam
        });
        let state = State { bridge, ipam, members: HashMap::new(), removed: false };
        Self { record, state: Mutex::new(state) }
    }

    /// A network that needs nothing: host and none.
    pub fn without_bridge(record: NetworkRecord) -> Self {
        let bridge = Err("the network has no bridge".to_owned());
        let state = State { bridge, ipam: None, members: HashMap::new(), removed: false };
        Self { record, state: Mutex::new(state) }
    }

    pub fn record(&self) -> &NetworkRecord {
        &self.record
    }

    /// Whether containers on it have an interface.
    pub fn is_bridge(&self) -> bool {
        self.record.driver == "bridge"
    }

    /// An option of the driver that is a number or an address, if it is given and one.
    pub fn option<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.record.options.get(key)?.parse().ok()
    }

    /// Takes an address and makes up an endpoint for it.
    pub fn allocate(
        &self,
        container: &Record,
        settings: &EndpointSettings,
        prefix: &str,
        ifname: String,
    ) -> Result<Endpoint> {
        let mut state = self.state();
        if state.removed {
            return Err(Error::not_found(format!("network {} not found", self.record.name)));
        }
        if let Err(reason) = &state.bridge {
            return Err(unavailable(reason));
        }
        let ipam = state.ipam.as_mut().ok_or_else(|| unavailable("the bridge's subnet has no addresses"))?;
        let wanted = settings.ipam_config.as_ref().and_then(|ipam| ipam.ipv4_address.as_deref());
        let ip = match wanted.filter(|ip| !ip.is_empty()).and_then(|ip| ip.parse().ok()) {
            Some(ip) => ipam.allocate_specific(ip).map(|()| ip),
            None => ipam.allocate(),
        };
        let ip = ip.map_err(|error| {
            let code = match error {
                IpamError::InUse { .. } => Code::Forbidden,
                IpamError::OutOfRange { .. } => Code::InvalidArgument,
                _ => Code::Unavailable,
            };
            Error::new(code, format!("failed to set up container networking: {error}"))
        })?;
        let prefix_len = ipam.subnet().prefix_len();
        let id = names::random_id();
        state.members.insert(id.clone(), Member { container: container.id.clone(), ip });
        let mac = settings.mac_address.clone().filter(|mac| !mac.is_empty());
        let model = skiff_network::Endpoint::new("", ip, prefix_len, Ipv4Addr::UNSPECIFIED);
        Ok(Endpoint {
            host_name: format!("{prefix}{}", &id[..8]),
            id,
            network: self.record.id.clone(),
            ifname,
            ip,
            prefix_len,
            mac: mac.unwrap_or_else(|| model.mac_text()),
            gateway: self.record.gateway.filter(|_| !self.record.internal),
            default_route: false,
        })
    }

    /// Takes the address of a container that runs already.
    pub fn reserve(&self, container: &str, endpoint: &Endpoint) {
        let mut state = self.state();
        if let Some(ipam) = state.ipam.as_mut()
            && let Err(error) = ipam.allocate_specific(endpoint.ip)
        {
            tracing::warn!(%error, ip = %endpoint.ip, "address of a running container is taken");
        }
        let member = Member { container: container.to_owned(), ip: endpoint.ip };
        state.members.insert(endpoint.id.clone(), member);
    }

    /// Connects a network namespace.
    pub fn attach(&self, endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<()> {
        let bridge = self.state().bridge.as_ref().map(Arc::clone).map_err(|reason| unavailable(reason))?;
        let mut model = skiff_network::Endpoint::new(
            endpoint.host_name.clone(),
            endpoint.ip,
            endpoint.prefix_len,
            Ipv4Addr::UNSPECIFIED,
        );
        model.container_ifname.clone_from(&endpoint.ifname);
        model.gateway = endpoint.gateway.filter(|_| endpoint.default_route);
        if let Some(mac) = parse_mac(&endpoint.mac) {
            model.mac = mac;
        }
        bridge
            .attach(&model, netns)
            .map_err(|error| Error::internal("failed to set up container networking", &error))
    }

    /// Takes an endpoint away and frees its address: in this order, so that nobody gets an address still in use.
    pub fn release(&self, endpoint: &Endpoint) {
        let bridge = self.state().bridge.as_ref().ok().map(Arc::clone);
        if let Some(bridge) = bridge
            && let Err(error) = bridge.detach(&endpoint.host_name)
        {
            tracing::warn!(error = chain(&error), link = endpoint.host_name, "link can't be removed");
        }
        let mut state = self.state();
        if let Some(ipam) = state.ipam.as_mut() {
            ipam.release(endpoint.ip);
        }
        state.members.remove(&endpoint.id);
    }

    /// Whether the address that these settings name belonged to a container that is just leaving.
    pub fn is_returning(&self, settings: &EndpointSettings) -> bool {
        let wanted = settings.ipam_config.as_ref().and_then(|ipam| ipam.ipv4_address.as_deref());
        let Some(ip) = wanted.and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else { return false };
        let never =
            self.record.gateway == Some(ip) || self.record.reserved.values().any(|other| *other == ip);
        !never && self.state().members.values().all(|member| member.ip != ip)
    }

    /// Lets the network be removed although the endpoint's link is still on its way out.
    pub fn leave(&self, endpoint: &Endpoint) {
        self.state().members.remove(&endpoint.id);
    }

    /// Who is on it now.
    pub fn members(&self) -> Vec<Member> {
        self.state().members.values().cloned().collect()
    }

    /// Keeps everybody from coming, for its removal.
    ///
    /// # Errors
    /// With the endpoints (id and container) that are there.
    pub fn seal(&self) -> Result<(), Vec<(String, String)>> {
        let mut state = self.state();
        if state.members.is_empty() {
            state.removed = true;
            return Ok(());
        }
        Err(state.members.iter().map(|(id, member)| (id.clone(), member.container.clone())).collect())
    }

    /// The opposite of [`seal`](Self::seal), after a removal that failed.
    pub fn unseal(&self) {
        self.state().removed = false;
    }

    /// Takes the bridge away.
    pub fn close(&self) {
        let closed = Err("the engine is stopping".to_owned());
        let bridge = std::mem::replace(&mut self.state().bridge, closed);
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

    /// Whether the bridge is there.
    pub fn unavailable(&self) -> Option<String> {
        self.state().bridge.as_ref().err().cloned()
    }

    /// The network as the firewall sees it; nothing without a bridge.
    pub fn zone(&self, egress: Egress) -> Option<Zone> {
        if !self.is_bridge() {
            return None;
        }
        let masquerade = self.option("com.docker.network.bridge.enable_ip_masquerade").unwrap_or(true);
        let outside = match egress {
            _ if self.record.internal => Outside::Closed,
            Egress::Masquerade if masquerade => Outside::Masqueraded,
            _ => Outside::Routed,
        };
        Some(Zone { bridge: self.record.bridge.clone(), subnet: self.record.subnet?, outside })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(reason: &str) -> Error {
    Error::new(Code::Unavailable, format!("failed to set up container networking: {reason}"))
}

/// How the bridge of a record shall look.
pub(super) fn bridge_config(record: &NetworkRecord, owner: &str) -> Option<BridgeConfig> {
    let option = |key: &str| record.options.get(key);
    let talk = option("com.docker.network.bridge.enable_icc").is_none_or(|value| value != "false");
    Some(BridgeConfig {
        name: record.bridge.clone(),
        subnet: record.subnet?,
        gateway: record.gateway?,
        mtu: option("com.docker.network.driver.mtu")
            .and_then(|mtu| mtu.parse().ok())
            .filter(|mtu| *mtu > 0)
            .unwrap_or(DEFAULT_MTU),
        owner: owner.to_owned(),
        neighbours: if talk { Neighbours::Reachable } else { Neighbours::Isolated },
    })
}
