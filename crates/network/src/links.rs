//! The rtnetlink messages that this crate sends, and the facts it reads from answers.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{Request, Socket};
use crate::{BridgeConfig, Endpoint, Error, mac_of};

/// Loopback is always the first interface of a namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// What a link dump tells about one interface.
pub struct Link {
    pub index: u32,
    pub name: String,
    pub kind: Option<InfoKind>,
    pub alias: Option<String>,
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
        LinkAttribute::Address(mac_of(config.gateway).to_vec()),
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
pub fn new_address(index: u32, ip: Ipv4Addr, prefix_len: u8) -> Request {
    let message = address_message(index, ip, prefix_len);
    Request {
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
        op: "add address",
        object: format!("{ip}/{prefix_len}"),
    }
}

/// Takes an address from an interface.
pub fn delete_address(index: u32, ip: Ipv4Addr, prefix_len: u8) -> Request {
    let message = address_message(index, ip, prefix_len);
    Request {
        message: RouteNetlinkMessage::DelAddress(message),
        flags: 0,
        op: "remove address",
        object: format!("{ip}/{prefix_len}"),
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
pub fn set_default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let mut request = new_default_route(index, gateway);
    request.flags = NLM_F_CREATE | NLM_F_REPLACE;
    request
}

/// Removes the default route.
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
pub fn new_default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        op: "add default route through",
        object: gateway.to_string(),
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

/// Lists the IPv4 addresses of the namespace with the index of their interface.
pub fn addresses(socket: &mut Socket) -> Result<Vec<(u32, Ipv4Net)>, Error> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    let answers = socket.dump(RouteNetlinkMessage::GetAddress(message), "list addresses")?;
    Ok(answers.into_iter().filter_map(read_address).collect())
}

/// Lists the IPv4 unicast routes of the main table, default routes left out, with the index of their interface.
pub fn routes(socket: &mut Socket) -> Result<Vec<(u32, Ipv4Net)>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    let answers = socket.dump(RouteNetlinkMessage::GetRoute(message), "list routes")?;
    Ok(answers.into_iter().filter_map(read_route).collect())
}

fn up(link: &mut LinkMessage) {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
}

fn address_message(index: u32, ip: Ipv4Addr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(IpAddr::V4(ip)), AddressAttribute::Address(IpAddr::V4(ip))];
    if prefix_len < 31
        && let Ok(net) = Ipv4Net::new(ip, prefix_len)
    {
        message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
    }
    message
}

fn read_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let index = link.header.index;
    let mut name = None;
    let mut kind = None;
    let mut alias = None;
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::IfAlias(text) => alias = Some(text),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Link { index, name: name?, kind, alias })
}

fn read_address(message: RouteNetlinkMessage) -> Option<(u32, Ipv4Net)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
        _ => None,
    })?;
    Some((message.header.index, Ipv4Net::new(ip, message.header.prefix_len).ok()?))
}

fn read_route(message: RouteNetlinkMessage) -> Option<(u32, Ipv4Net)> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(*ip),
        _ => None,
    })?;
    let index = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let net = Ipv4Net::new(destination, header.destination_prefix_length).ok()?;
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
