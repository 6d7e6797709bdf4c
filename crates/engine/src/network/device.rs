//! What the containers of a network are connected to: a bridge, or an interface of the host that they share.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use ipnet::IpNet;
use skiff_network::{
    Bridge, BridgeConfig, Error, Ipvlan, IpvlanFlag, Macvlan, Neighbours, Parent, ParentConfig, Sharing,
};

use super::options::GatewayMode;
use super::settings::parse_mac;
use crate::names;
use crate::state::{Endpoint, NetworkRecord};

const DEFAULT_MTU: u32 = 1500;
/// What the names of interfaces begin with that stand for a parent that is not given, as with dockerd.
const DUMMY: &str = "dm-";

/// A network's device.
pub(crate) enum Device {
    /// A bridge of its own.
    Bridge(Bridge),
    /// An interface of the host.
    Parent(Parent),
}

impl Device {
    /// Makes the device of a record, or takes it over; nothing for a driver without any.
    pub fn open(record: &NetworkRecord, owner: &str) -> Option<Result<Self, Error>> {
        if let Some(sharing) = sharing(record) {
            let (name, owner) = (record.bridge.clone(), owner.to_owned());
            let dummy = name.starts_with(DUMMY);
            return Some(Parent::ensure(&ParentConfig { name, dummy, sharing, owner }).map(Self::Parent));
        }
        Some(Bridge::ensure(&bridge_config(record, owner)?).map(Self::Bridge))
    }

    /// Connects a network namespace.
    pub fn attach(
        &self,
        record: &NetworkRecord,
        endpoint: &Endpoint,
        netns: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let model = endpoint_model(record, endpoint);
        match self {
            Self::Bridge(bridge) => bridge.attach(&model, netns),
            Self::Parent(parent) => parent.attach(&model, netns),
        }
    }

    /// Takes an endpoint's link away. A part of a shared interface is only seen inside its namespace, and goes with it.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<(), Error> {
        match self {
            Self::Bridge(bridge) => bridge.detach(&endpoint.host_name),
            Self::Parent(_) => Ok(()),
        }
    }

    /// Takes away what was made for the network.
    pub fn delete(self) -> Result<(), Error> {
        match self {
            Self::Bridge(bridge) => bridge.delete(),
            Self::Parent(parent) => parent.delete(),
        }
    }
}

/// Whether containers on networks of a driver share an interface of the host.
pub(super) fn shares_interface(driver: &str) -> bool {
    matches!(driver, "macvlan" | "ipvlan")
}

/// The interface of the host that a network with these options uses.
pub(super) fn parent_name(id: &str, parent: Option<&String>) -> String {
    match parent.filter(|name| !name.is_empty()) {
        Some(name) => name.clone(),
        None => format!("{DUMMY}{}", names::short(id)),
    }
}

/// How the containers of a network share their interface; the options were checked when it was made.
fn sharing(record: &NetworkRecord) -> Option<Sharing> {
    let option = |key: &str| record.options.get(key).map_or("", String::as_str);
    match record.driver.as_str() {
        "macvlan" => Some(Sharing::Macvlan(match option("macvlan_mode") {
            "private" => Macvlan::Private,
            "vepa" => Macvlan::Vepa,
            "passthru" => Macvlan::Passthru,
            _ => Macvlan::Bridge,
        })),
        "ipvlan" => {
            let mode = match option("ipvlan_mode") {
                "l3" => Ipvlan::L3,
                "l3s" => Ipvlan::L3s,
                _ => Ipvlan::L2,
            };
            let flag = match option("ipvlan_flag") {
                "private" => IpvlanFlag::Private,
                "vepa" => IpvlanFlag::Vepa,
                _ => IpvlanFlag::Bridge,
            };
            Some(Sharing::Ipvlan(mode, flag))
        }
        _ => None,
    }
}

/// What the kernel is told about an endpoint.
fn endpoint_model(record: &NetworkRecord, endpoint: &Endpoint) -> skiff_network::Endpoint {
    let four = endpoint.gateway.filter(|_| endpoint.default_route).map(IpAddr::from);
    let six = endpoint.gateway6.filter(|_| endpoint.default_route6).map(IpAddr::from);
    let ways: Vec<IpAddr> = four.into_iter().chain(six).collect();
    // Where the parent routes, there is nobody to ask for the way.
    let routes_itself = matches!(sharing(record), Some(Sharing::Ipvlan(Ipvlan::L3 | Ipvlan::L3s, _)));
    let mac = parse_mac(&endpoint.mac)
        .unwrap_or_else(|| skiff_network::mac_of(endpoint.ip.unwrap_or(Ipv4Addr::UNSPECIFIED)));
    skiff_network::Endpoint {
        host_name: endpoint.host_name.clone(),
        container_ifname: endpoint.ifname.clone(),
        addresses: endpoint.addresses(),
        mac,
        gateways: if routes_itself { Vec::new() } else { ways.clone() },
        device_routes: if routes_itself { ways.iter().map(IpAddr::is_ipv6).collect() } else { Vec::new() },
        settings: endpoint.settings.clone(),
    }
}

/// How the bridge of a record shall look; nothing for a network without addresses.
fn bridge_config(record: &NetworkRecord, owner: &str) -> Option<BridgeConfig> {
    let option = |key: &str| record.options.get(key);
    let talk = option("com.docker.network.bridge.enable_icc")
        .is_none_or(|value| !matches!(value.as_str(), "false" | "0"));
    if record.subnet.is_none() && record.subnet6.is_none() {
        return None;
    }
    let own = |subnet: IpNet, gateway: Option<IpAddr>| {
        let has_address = GatewayMode::of(record, subnet) != GatewayMode::Isolated;
        gateway.filter(|_| has_address).and_then(|ip| IpNet::new(ip, subnet.prefix_len()).ok())
    };
    let four = record.subnet.and_then(|subnet| own(subnet.into(), record.gateway.map(IpAddr::from)));
    let six = record.subnet6.and_then(|subnet| own(subnet.into(), record.gateway6.map(IpAddr::from)));
    Some(BridgeConfig {
        name: record.bridge.clone(),
        addresses: four.into_iter().chain(six).collect(),
        mtu: option("com.docker.network.driver.mtu")
            .and_then(|mtu| mtu.parse().ok())
            .filter(|mtu| *mtu > 0)
            .unwrap_or(DEFAULT_MTU),
        owner: owner.to_owned(),
        neighbours: if talk { Neighbours::Reachable } else { Neighbours::Isolated },
    })
}
