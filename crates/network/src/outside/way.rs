//! The interface and the routes.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{INTERFACE, MARK, OWN_ADDRESS, OWN_ADDRESS6, SUBNET, TABLE, has_ipv6};
use crate::netlink::{Request, Socket};
use crate::{Error, links, sysctl};

/// The tunnel, and the routes that lead into it; they go with it.
#[derive(Debug)]
pub struct Way {
    tunnel: File,
}

impl Way {
    /// Until there is a way out, lets what would take it disappear: clients try again, where an error would be final.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn prepare() -> Result<(), Error> {
        let mut socket = Socket::open()?;
        for family in families() {
            let mut message = default_route(family, RouteHeader::RT_TABLE_MAIN, RouteType::BlackHole);
            // The way itself is preferred once it is there.
            message.attributes.push(RouteAttribute::Priority(u32::MAX));
            socket.request(Request {
                message: RouteNetlinkMessage::NewRoute(message),
                flags: NLM_F_CREATE | NLM_F_REPLACE,
                op: "add",
                object: "blackhole route".into(),
            })?;
        }
        Ok(())
    }

    /// Makes the interface and leads the default route into it.
    ///
    /// # Errors
    /// When there is such an interface already, or the kernel has no tunnels.
    pub fn open() -> Result<Self, Error> {
        let tunnel = skiff_linux_sys::tun::create(INTERFACE).map_err(|source| Error::Refused {
            op: "create tunnel",
            object: INTERFACE.into(),
            source,
        })?;
        let mut socket = Socket::open()?;
        let index = links::by_name(&mut socket, INTERFACE)?.index;
        // Answers come from addresses that other routes would lead to.
        for interface in ["all", INTERFACE] {
            sysctl::set(&format!("ipv4/conf/{interface}/rp_filter"), "0")?;
        }
        if has_ipv6() {
            sysctl::set(&format!("ipv6/conf/{INTERFACE}/disable_ipv6"), "0")?;
            sysctl::set("ipv6/conf/all/forwarding", "1")?;
        }
        // What stays on a bridge is not what leaves. All bridges here are ours.
        for kind in ["iptables", "ip6tables", "arptables"] {
            sysctl::set_if_present(&format!("bridge/bridge-nf-call-{kind}"), "0")?;
        }
        // Nobody here is flooded by errors, and an error that is held back is a client that waits.
        sysctl::set("ipv4/icmp_ratelimit", "0")?;
        sysctl::set_if_present("ipv6/icmp/ratelimit", "0")?;
        socket.request(links::set_up(index, INTERFACE))?;
        for family in families() {
            lead_out(&mut socket, family, index)?;
        }
        Ok(Self { tunnel })
    }

    /// The packets: each read gives one that leaves, each write is one that comes in. Neither waits.
    pub fn tunnel(&self) -> &File {
        &self.tunnel
    }
}

impl AsFd for Way {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tunnel.as_fd()
    }
}

impl AsRawFd for Way {
    fn as_raw_fd(&self) -> RawFd {
        self.tunnel.as_raw_fd()
    }
}

/// The families of the kernel.
fn families() -> Vec<AddressFamily> {
    let six = has_ipv6().then_some(AddressFamily::Inet6);
    std::iter::once(AddressFamily::Inet).chain(six).collect()
}

/// Leads one family's default route into the tunnel, and what is marked to this machine.
fn lead_out(socket: &mut Socket, family: AddressFamily, index: u32) -> Result<(), Error> {
    let own: IpNet = match family {
        AddressFamily::Inet6 => Ipv6Net::new_assert(OWN_ADDRESS6.0, OWN_ADDRESS6.1).into(),
        _ => Ipv4Net::new_assert(OWN_ADDRESS, SUBNET.1).into(),
    };
    let mut out = default_route(family, RouteHeader::RT_TABLE_MAIN, RouteType::Unicast);
    let mut here = default_route(family, RouteHeader::RT_TABLE_UNSPEC, RouteType::Local);
    if family == AddressFamily::Inet {
        out.header.scope = RouteScope::Link;
        here.header.scope = RouteScope::Host;
    }
    out.attributes.push(RouteAttribute::Oif(index));
    here.attributes.extend([RouteAttribute::Table(TABLE), RouteAttribute::Oif(links::LOOPBACK_INDEX)]);
    let route = |message| Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
        op: "add route of",
        object: INTERFACE.into(),
    };
    socket.batch(vec![links::new_address(index, own), route(out), route(here)])?;
    match socket.request(marked_rule(family)) {
        Err(Error::Refused { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

fn default_route(address_family: AddressFamily, table: u8, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family,
        table,
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Universe,
        kind,
        ..RouteHeader::default()
    };
    message
}

/// Marked packets are looked up in the table that delivers them here.
fn marked_rule(family: AddressFamily) -> Request {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes =
        vec![RuleAttribute::FwMark(MARK), RuleAttribute::Table(TABLE), RuleAttribute::Priority(1000)];
    Request {
        message: RouteNetlinkMessage::NewRule(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        op: "add rule of",
        object: INTERFACE.into(),
    }
}
