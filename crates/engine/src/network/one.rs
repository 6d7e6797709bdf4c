//! One network: its device, its addresses, and who is on it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard_stubs::models::EndpointSettings;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skiff_network::{Inside, Ipam, IpamError, Outside, Subnet, Zone};

use super::device::{Device, shares_interface};
use super::options::{GatewayMode, interface_settings};
use crate::config::Egress;
use crate::error::{Code, Error, Result, chain};
use crate::names;
use crate::state::{Endpoint, NetworkRecord, Record};

/// How long the end waits for the links of the last containers.
const LAST_LINKS: Duration = Duration::from_secs(2);

/// A network.
pub(crate) struct Network {
    record: NetworkRecord,
    state: Mutex<State>,
}

struct State {
    /// The bridge or the shared interface, or why there is none.
    device: Result<Arc<Device>, String>,
    ipam: Option<Ipam<Ipv4Net>>,
    ipam6: Option<Ipam<Ipv6Net>>,
    /// Who is on it now, by endpoint.
    members: HashMap<String, Member>,
    /// Set by the removal: nobody may come any more.
    removed: bool,
}

/// A container's place on a network, as the network knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub container: String,
    pub ips: Vec<IpAddr>,
}

impl Network {
    /// Makes the device that the record describes, or takes it over.
    pub fn open(record: NetworkRecord, owner: &str) -> Self {
        match Device::open(&record, owner) {
            Some(device) => Self::with_device(record, device),
            None => Self::without_device(record),
        }
    }

    /// Takes a device that was just made.
    pub fn with_device(record: NetworkRecord, device: Result<Device, skiff_network::Error>) -> Self {
        let device = device.map(Arc::new).map_err(|error| {
            let error = chain(&error);
            tracing::error!(error, bridge = record.bridge, "network is not available");
            error
        });
        let ipam = record.subnet.and_then(|net| pool(net, record.gateway, record.range, &record.reserved));
        let ipam6 =
            record.subnet6.and_then(|net| pool(net, record.gateway6, record.range6, &record.reserved6));
        let state = State { device, ipam, ipam6, members: HashMap::new(), removed: false };
        Self { record, state: Mutex::new(state) }
    }

    /// A network that needs nothing: host and none.
    pub fn without_device(record: NetworkRecord) -> Self {
        let device = Err("the network has no interface".to_owned());
        let state = State { device, ipam: None, ipam6: None, members: HashMap::new(), removed: false };
        Self { record, state: Mutex::new(state) }
    }

    pub fn record(&self) -> &NetworkRecord {
        &self.record
    }

    /// Whether containers on it have an interface.
    pub fn has_interfaces(&self) -> bool {
        self.is_bridge() || shares_interface(&self.record.driver)
    }

    /// Whether they are on a bridge, which is what ports can be published on.
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
        if let Err(reason) = &state.device {
            return Err(unavailable(reason));
        }
        let wanted = settings.ipam_config.as_ref();
        let wanted4 = wanted.and_then(|wanted| wanted.ipv4_address.as_deref());
        let wanted6 = wanted.and_then(|wanted| wanted.ipv6_address.as_deref());
        if state.ipam.is_none() && state.ipam6.is_none() {
            return Err(unavailable("the network has no addresses"));
        }
        let ip = state.ipam.as_mut().map(|ipam| take(ipam, wanted4)).transpose()?;
        let ip6 = state.ipam6.as_mut().map(|ipam| take(ipam, wanted6)).transpose();
        let ip6 = match ip6 {
            Ok(ip6) => ip6,
            Err(error) => {
                if let (Some(ipam), Some(ip)) = (state.ipam.as_mut(), ip) {
                    ipam.release(ip);
                }
                return Err(error);
            }
        };
        let id = names::random_id();
        let ips = ip.map(IpAddr::from).into_iter().chain(ip6.map(IpAddr::from)).collect();
        state.members.insert(id.clone(), Member { container: container.id.clone(), ips });
        let mac = settings.mac_address.clone().filter(|mac| !mac.is_empty());
        let own_mac = match (ip, ip6) {
            (Some(ip), _) => skiff_network::mac_of(ip),
            (None, ip6) => skiff_network::mac_of_ipv6(ip6.unwrap_or(Ipv6Addr::UNSPECIFIED)),
        };
        Ok(Endpoint {
            host_name: format!("{prefix}{}", &id[..8]),
            id,
            network: self.record.id.clone(),
            settings: interface_settings(settings.driver_opts.as_ref(), &ifname)?,
            ifname,
            ip,
            prefix_len: self.record.subnet.filter(|_| ip.is_some()).map_or(0, |net| net.prefix_len()),
            mac: mac.unwrap_or_else(|| skiff_network::mac_text(own_mac)),
            gateway: self.record.gateway.filter(|_| self.has_way_out()),
            default_route: false,
            ip6,
            prefix_len6: self.record.subnet6.filter(|_| ip6.is_some()).map_or(0, |net| net.prefix_len()),
            gateway6: self.record.gateway6.filter(|_| self.has_way_out()),
            default_route6: false,
        })
    }

    /// Whether published ports are translated, by family: IPv4, then IPv6. Those of routed networks are opened.
    pub fn is_translated(&self) -> [bool; 2] {
        let translated = |subnet: Option<IpNet>| {
            subnet.is_none_or(|subnet| GatewayMode::of(&self.record, subnet) != GatewayMode::Routed)
        };
        [translated(self.record.subnet.map(IpNet::V4)), translated(self.record.subnet6.map(IpNet::V6))]
    }

    fn has_way_out(&self) -> bool {
        !self.record.internal
    }

    /// Takes the address of a container that runs already.
    pub fn reserve(&self, container: &str, endpoint: &Endpoint) {
        let mut state = self.state();
        let four = state.ipam.as_mut().zip(endpoint.ip).map(|(ipam, ip)| ipam.allocate_specific(ip));
        let six = state.ipam6.as_mut().zip(endpoint.ip6).map(|(ipam, ip)| ipam.allocate_specific(ip));
        for error in [four, six].into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, link = endpoint.host_name, "address of a running container is taken");
        }
        let member = Member { container: container.to_owned(), ips: endpoint.ips().collect() };
        state.members.insert(endpoint.id.clone(), member);
    }

    /// Connects a network namespace.
    pub fn attach(&self, endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<()> {
        let device = self.state().device.as_ref().map(Arc::clone).map_err(|reason| unavailable(reason))?;
        device
            .attach(&self.record, endpoint, netns)
            .map_err(|error| Error::internal("failed to set up container networking", &error))
    }

    /// Takes an endpoint away and frees its address: in this order, so that nobody gets an address still in use.
    pub fn release(&self, endpoint: &Endpoint) {
        let device = self.state().device.as_ref().ok().map(Arc::clone);
        if let Some(device) = device
            && let Err(error) = device.detach(endpoint)
        {
            tracing::warn!(error = chain(&error), link = endpoint.host_name, "link can't be removed");
        }
        let mut state = self.state();
        if let (Some(ipam), Some(ip)) = (state.ipam.as_mut(), endpoint.ip) {
            ipam.release(ip);
        }
        if let (Some(ipam), Some(ip)) = (state.ipam6.as_mut(), endpoint.ip6) {
            ipam.release(ip);
        }
        state.members.remove(&endpoint.id);
    }

    /// Whether the addresses that these settings name belonged to a container that is just leaving.
    pub fn is_returning(&self, settings: &EndpointSettings) -> bool {
        let Some(ipam) = &settings.ipam_config else { return false };
        let wanted: Vec<IpAddr> = [&ipam.ipv4_address, &ipam.ipv6_address]
            .into_iter()
            .filter_map(|text| text.as_deref()?.parse().ok())
            .collect();
        let record = &self.record;
        let never = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => {
                record.gateway == Some(*ip) || record.reserved.values().any(|other| other == ip)
            }
            IpAddr::V6(ip) => {
                record.gateway6 == Some(*ip) || record.reserved6.values().any(|other| other == ip)
            }
        };
        !wanted.is_empty()
            && !wanted.iter().any(never)
            && self.state().members.values().all(|member| wanted.iter().all(|ip| !member.ips.contains(ip)))
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

    /// Takes the device away.
    pub fn close(&self) {
        let closed = Err("the engine is stopping".to_owned());
        let device = std::mem::replace(&mut self.state().device, closed);
        let Ok(mut device) = device else { return };
        let deadline = Instant::now() + LAST_LINKS;
        // The links of the last containers may still be on their way out.
        loop {
            match Arc::try_unwrap(device) {
                Ok(only) => {
                    if let Err(error) = only.delete() {
                        tracing::warn!(error = chain(&error), "bridge can't be removed");
                    }
                    return;
                }
                Err(_) if Instant::now() >= deadline => {
                    return tracing::warn!("bridge is left: it is in use");
                }
                Err(shared) => device = shared,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Why there is no device.
    pub fn unavailable(&self) -> Option<String> {
        self.state().device.as_ref().err().cloned()
    }

    /// The network as the firewall sees it, one zone for each family; nothing without a bridge.
    pub fn zones(&self, egress: Egress, open: &[(skiff_network::Protocol, SocketAddr)]) -> Vec<Zone> {
        if !self.is_bridge() {
            return Vec::new();
        }
        let masquerade = self.switch("com.docker.network.bridge.enable_ip_masquerade");
        let zone = |subnet: IpNet| {
            let mode = GatewayMode::of(&self.record, subnet);
            let outside = match egress {
                _ if self.record.internal => Outside::Closed,
                Egress::Masquerade if masquerade && mode != GatewayMode::Routed => Outside::Masqueraded,
                _ => Outside::Routed,
            };
            let own = open.iter().filter(|(_, address)| subnet.contains(&address.ip())).copied();
            let inside = match mode {
                GatewayMode::NatUnprotected => Inside::Open,
                GatewayMode::Routed => Inside::Ports(own.collect()),
                GatewayMode::Nat | GatewayMode::Isolated => Inside::Published,
            };
            Zone { bridge: self.record.bridge.clone(), subnet, outside, inside }
        };
        self.record.subnets().map(zone).collect()
    }

    /// An option of the bridge driver that is on unless it is switched off.
    fn switch(&self, key: &str) -> bool {
        self.record.options.get(key).is_none_or(|value| !matches!(value.as_str(), "false" | "0"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(reason: &str) -> Error {
    Error::new(Code::Unavailable, format!("failed to set up container networking: {reason}"))
}

/// The addresses of one family that a network has to give.
fn pool<N: Subnet>(
    subnet: N,
    gateway: Option<N::Address>,
    range: Option<N>,
    reserved: &std::collections::BTreeMap<String, N::Address>,
) -> Option<Ipam<N>> {
    let mut ipam = Ipam::new(subnet, gateway, range).ok()?;
    for ip in reserved.values() {
        // The gateway may be named among them.
        let _ = ipam.allocate_specific(*ip);
    }
    Some(ipam)
}

/// Takes the address that is wanted, or any.
fn take<N: Subnet>(ipam: &mut Ipam<N>, wanted: Option<&str>) -> Result<N::Address>
where
    N::Address: std::str::FromStr,
{
    let ip = match wanted.filter(|ip| !ip.is_empty()).and_then(|ip| ip.parse().ok()) {
        Some(ip) => ipam.allocate_specific(ip).map(|()| ip),
        None => ipam.allocate(),
    };
    ip.map_err(|error| {
        // To Docker the subnet's own address and the last one are taken.
        let error = match error {
            IpamError::OutOfRange { ip } => IpamError::InUse { ip },
            other => other,
        };
        let code = match error {
            IpamError::InUse { .. } => Code::Forbidden,
            _ => Code::Unavailable,
        };
        Error::new(code, format!("failed to set up container networking: {error}"))
    })
}
