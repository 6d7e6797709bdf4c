//! The interface and the routes.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{INTERFACE, MARK, OWN_ADDRESS, SUBNET, TABLE};
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
        let mut message = default_route(RouteHeader::RT_TABLE_MAIN, RouteType::BlackHole);
        // The way itself is preferred once it is there.
        message.attributes.push(RouteAttribute::Priority(u32::MAX));
        let request = Request {
            message: RouteNetlinkMessage::NewRoute(message),
            flags: NLM_F_CREATE | NLM_F_REPLACE,
            op: "add",
            object: "blackhole route".into(),
        };
        Socket::open()?.request(request).map(drop)
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
        let mut out = default_route(RouteHeader::RT_TABLE_MAIN, RouteType::Unicast);
        out.header.scope = RouteScope::Link;
        out.attributes.push(RouteAttribute::Oif(index));
        let mut here = default_route(RouteHeader::RT_TABLE_UNSPEC, RouteType::Local);
        here.header.scope = RouteScope::Host;
        here.attributes.extend([RouteAttribute::Table(TABLE), RouteAttribute::Oif(links::LOOPBACK_INDEX)]);
        let route = |message| Request {
            message: RouteNetlinkMessage::NewRoute(message),
            flags: NLM_F_CREATE | NLM_F_REPLACE,
            op: "add route of",
            object: INTERFACE.into(),
        };
        let own = Ipv4Net::new_assert(OWN_ADDRESS, SUBNET.1).into();
        socket.batch(vec![
            links::set_up(index, INTERFACE),
            links::new_address(index, own),
            route(out),
            route(here),
        ])?;
        match socket.request(marked_rule()) {
            Err(Error::Refused { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => drop(other?),
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

fn default_route(table: u8, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        table,
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Universe,
        kind,
        ..RouteHeader::default()
    };
    message
}

/// Marked packets are looked up in the table that delivers them here.
fn marked_rule() -> Request {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
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
