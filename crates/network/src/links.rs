//! The rtnetlink messages that this crate sends, and the facts it reads from answers.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{Request, Socket};
use crate::{BridgeConfig, Endpoint, Error, sysctl};

/// Loopback is always the first interface of a namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// What a link dump tells about one interface.
pub struct Link {
    pub index: u32,
    pub name: String,
    pub kind: Option<InfoKind>,
    pub alias: Option<String>,
    /// The bridge that it is a port of.
    pub bridge: Option<u32>,
}

/// Refuses what the kernel's `dev_valid_name` refuses.
pub fn check_name(name: &str) -> Result<(), Error> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
        return Err(Error::InvalidName { name: name.into() });
    }
    Ok(())
}

/// Brings an interface up.
pub fn set_up(index: u32, name: &str) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    up(&mut link);
    Request { message: RouteNetlinkMessage::SetLink(link), flags: 0, op: "bring up", object: name.into() }
}

/// Creates a bridge that is up.
pub fn new_bridge(config: &BridgeConfig) -> Request {
    let mut link = LinkMessage::default();
    up(&mut link);
    let settings = vec![InfoBridge::ForwardDelay(0), InfoBridge::MulticastSnooping(false)];
    link.attributes = vec![
        LinkAttribute::IfName(config.name.clone()),
        LinkAttribute::Mtu(config.mtu),
        // A fixed address: otherwise the bridge takes that of a port and changes it as containers come and go.
        LinkAttribute::Address(config.mac().to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(settings)),
        ]),
    ];
    Request {
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        op: "create bridge",
        object: config.name.clone(),
    }
}

/// Sets the MTU and the owner of an existing bridge, which the kernel does not take at its creation, and brings it up.
pub fn update_bridge(index: u32, config: &BridgeConfig) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    up(&mut link);
    link.attributes = vec![LinkAttribute::Mtu(config.mtu), LinkAttribute::IfAlias(config.owner.clone())];
    Request {
        message: RouteNetlinkMessage::SetLink(link),
        flags: 0,
        op: "configure bridge",
        object: config.name.clone(),
    }
}

/// Creates both ends of a veth pair: the outer one up and on the bridge, the inner one inside `netns`.
///
/// The inner one cannot be brought up by the same message: the kernel would do so before the two ends know each other,
/// and `veth_open` answers ENOTCONN.
pub fn new_veth(endpoint: &Endpoint, bridge: u32, mtu: u32, netns: BorrowedFd<'_>) -> Request {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(endpoint.container_ifname.clone()),
        LinkAttribute::Address(endpoint.mac.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    let mut link = LinkMessage::default();
    up(&mut link);
    link.attributes = vec![
        LinkAttribute::IfName(endpoint.host_name.clone()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Controller(bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    Request {
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        op: "create veth pair",
        object: endpoint.host_name.clone(),
    }
}

/// Gives the interface inside a container what belongs to it, and brings it up; in the container's namespace.
pub fn configure_inside(endpoint: &Endpoint) -> Result<(), Error> {
    let mut socket = Socket::open()?;
    let name = &endpoint.container_ifname;
    let index = by_name(&mut socket, name)?.index;
    if endpoint.has_ipv6() {
        // Off by default in the namespaces that are made here.
        sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
    }
    let mut batch = vec![set_up(index, name)];
    batch.extend(endpoint.addresses.iter().map(|address| new_address(index, *address)));
    batch.extend(endpoint.gateways.iter().map(|gateway| new_default_route(index, *gateway)));
    batch.extend(endpoint.device_routes.iter().map(|ipv6| new_device_route(index, *ipv6)));
    socket.batch(batch)?;
    endpoint.settings.iter().try_for_each(|(setting, value)| sysctl::set(setting, value))
}

/// Creates an interface inside a namespace under its final name.
pub fn new_inside(name: &str, attributes: Vec<LinkAttribute>, netns: BorrowedFd<'_>) -> Request {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::NetNsFd(netns.as_raw_fd())];
    link.attributes.extend(attributes);
    Request {
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        op: "create interface",
        object: name.into(),
    }
}

/// Creates an interface that leads nowhere, up.
pub fn new_dummy(name: &str) -> Request {
    new_link(name, vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)])])
}

/// Creates a pair of interfaces in this namespace.
pub fn new_wire(name: &str, peer: &str) -> Request {
    let mut other = LinkMessage::default();
    other.attributes = vec![LinkAttribute::IfName(peer.into())];
    let data = InfoData::Veth(InfoVeth::Peer(other));
    new_link(name, vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)])])
}

/// Creates a VLAN of another interface, up.
pub fn new_vlan(name: &str, base: u32, id: u16) -> Request {
    let data = InfoData::Vlan(vec![InfoVlan::Id(id)]);
    let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)];
    new_link(name, vec![LinkAttribute::Link(base), LinkAttribute::LinkInfo(info)])
}

fn new_link(name: &str, attributes: Vec<LinkAttribute>) -> Request {
    let mut link = LinkMessage::default();
    up(&mut link);
    link.attributes = vec![LinkAttribute::IfName(name.into())];
    link.attributes.extend(attributes);
    Request {
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        op: "create interface",
        object: name.into(),
    }
}

/// Writes down who made an interface.
pub fn mark(index: u32, name: &str, owner: &str) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![LinkAttribute::IfAlias(owner.to_owned())];
    Request {
        message: RouteNetlinkMessage::SetLink(link),
        flags: 0,
        op: "configure interface",
        object: name.into(),
    }
}

/// Deletes an interface by name.
pub fn delete(name: &str) -> Request {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.into())];
    Request {
        message: RouteNetlinkMessage::DelLink(link),
        flags: 0,
        op: "delete interface",
        object: name.into(),
    }
}

/// Gives an interface an address; the connected route comes with it.
pub fn new_address(index: u32, address: IpNet) -> Request {
    Request {
        message: RouteNetlinkMessage::NewAddress(address_message(index, address)),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
        op: "add address",
        object: address.to_string(),
    }
}

/// Takes an address from an interface.
pub fn delete_address(index: u32, address: IpNet) -> Request {
    Request {
        message: RouteNetlinkMessage::DelAddress(address_message(index, address)),
        flags: 0,
        op: "remove address",
        object: address.to_string(),
    }
}

/// Keeps a port of a bridge from reaching other such ports.
pub fn isolate_port(index: u32, name: &str) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)])),
    ])];
    // RTM_SETLINK does not look at what belongs to the port.
    Request { message: RouteNetlinkMessage::NewLink(link), flags: 0, op: "isolate", object: name.into() }
}

/// Adds the default route through `gateway`, or leads the one that is there through it.
pub fn set_default_route(index: u32, gateway: IpAddr) -> Request {
    let mut request = new_default_route(index, gateway);
    request.flags = NLM_F_CREATE | NLM_F_REPLACE;
    request
}

/// Removes the IPv4 default route.
pub fn delete_default_route() -> Request {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        table: RouteHeader::RT_TABLE_MAIN,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    Request {
        message: RouteNetlinkMessage::DelRoute(message),
        flags: 0,
        op: "remove",
        object: "default route".into(),
    }
}

/// Adds the default route through `gateway`.
pub fn new_default_route(index: u32, gateway: IpAddr) -> Request {
    let mut request = default_route(index, gateway.is_ipv6());
    let through = match gateway {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    };
    if let RouteNetlinkMessage::NewRoute(message) = &mut request.message {
        message.attributes.insert(0, RouteAttribute::Gateway(through));
    }
    Request { op: "add default route through", object: gateway.to_string(), ..request }
}

/// Adds a default route that leads out of an interface without a gateway.
pub fn new_device_route(index: u32, ipv6: bool) -> Request {
    let mut request = default_route(index, ipv6);
    if let RouteNetlinkMessage::NewRoute(message) = &mut request.message
        && !ipv6
    {
        message.header.scope = RouteScope::Link;
    }
    request
}

fn default_route(index: u32, ipv6: bool) -> Request {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet },
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Oif(index)];
    Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        op: "add",
        object: "default route".into(),
    }
}

/// Looks an interface up by name.
pub fn by_name(socket: &mut Socket, name: &str) -> Result<Link, Error> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.into())];
    let request = Request {
        message: RouteNetlinkMessage::GetLink(link),
        flags: 0,
        op: "find interface",
        object: name.into(),
    };
    let answers = socket.request(request)?;
    answers
        .into_iter()
        .find_map(read_link)
        .ok_or_else(|| Error::Answer { reason: format!("nothing about interface {name}") })
}

/// Lists all interfaces of the namespace.
pub fn all(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let answers = socket.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), "list interfaces")?;
    Ok(answers.into_iter().filter_map(read_link).collect())
}

/// Lists the addresses of the namespace with the index of their interface.
pub fn addresses(socket: &mut Socket) -> Result<Vec<(u32, IpNet)>, Error> {
    let answers =
        socket.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), "list addresses")?;
    Ok(answers.into_iter().filter_map(read_address).collect())
}

/// Lists the unicast routes of the main table, default routes left out, with the index of their interface.
///
/// Without links of IPv6 among them: every interface has the same.
pub fn routes(socket: &mut Socket) -> Result<Vec<(u32, IpNet)>, Error> {
    let answers = socket.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()), "list routes")?;
    Ok(answers.into_iter().filter_map(read_route).collect())
}

fn up(link: &mut LinkMessage) {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let ip = address.addr();
    let mut message = AddressMessage::default();
    message.header.family = if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    match address {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        IpNet::V4(_) => {}
        // Address management knows that nobody else has it; the kernel would take a second to find out.
        IpNet::V6(_) => message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
    }
    message
}

fn read_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let index = link.header.index;
    let mut name = None;
    let mut kind = None;
    let (mut alias, mut bridge) = (None, None);
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::IfAlias(text) => alias = Some(text),
            LinkAttribute::Controller(index) => bridge = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Link { index, name: name?, kind, alias, bridge })
}

fn read_address(message: RouteNetlinkMessage) -> Option<(u32, IpNet)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    // IPv6 addresses come without the local part.
    let ip = find(true).or_else(|| find(false))?;
    Some((message.header.index, IpNet::new(ip, message.header.prefix_len).ok()?))
}

fn read_route(message: RouteNetlinkMessage) -> Option<(u32, IpNet)> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let destination: IpAddr = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some((*ip).into()),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) if !ip.is_unicast_link_local() => {
            Some((*ip).into())
        }
        _ => None,
    })?;
    let index = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let net = IpNet::new(destination, header.destination_prefix_length).ok()?;
    (net.prefix_len() > 0).then_some((index.unwrap_or(0), net.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "0123456789abcdef", "tab\t"] {
            assert!(matches!(check_name(bad), Err(Error::InvalidName { .. })), "{bad:?}");
        }
        for good in ["skiff0", "veth0123456789a", "br-1.2"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }
}
