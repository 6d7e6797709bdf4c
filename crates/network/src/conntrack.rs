//! The kernel's memory of flows: what it remembers of an address that leads elsewhere now has to be forgotten.
//!
//! A flow keeps its translation as long as packets come, whatever the packet filter says by then. A client that goes on
//! sending datagrams from one port would reach the address of a container that is gone for ever; dockerd forgets such flows
//! too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Error;
use crate::nft::{Attributes, Family, Protocol, Socket};

// linux/netfilter/nfnetlink_conntrack.h
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const SOURCE: [u16; 2] = [1, 3];
const DESTINATION: [u16; 2] = [2, 4];
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// Where its packets come from.
    pub from: SocketAddr,
    /// Where they go.
    pub to: SocketAddr,
}

/// A flow that the kernel remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Tcp or udp.
    pub protocol: Protocol,
    /// As whoever began it sees it.
    pub original: Direction,
    /// As whoever answers sees it: not the reverse where addresses are translated.
    pub reply: Direction,
}

impl Flow {
    /// Whether its destination is translated to this one.
    pub fn leads_to(&self, target: SocketAddr) -> bool {
        self.reply.from == target && self.original.to != target
    }
}

/// Makes the kernel forget the flows of the calling thread's namespace that `is_stale` picks; returns how many.
///
/// # Errors
/// When the kernel remembers no flows, or does not tell.
pub fn forget_flows(family: Family, is_stale: impl Fn(&Flow) -> bool) -> Result<usize, Error> {
    let mut socket = Socket::open()?;
    let mut stale = Vec::new();
    socket.dump(SUBSYSTEM, GET, family, |attributes| {
        if let Some((flow, original)) = read(attributes)
            && is_stale(&flow)
        {
            stale.push(original);
        }
    })?;
    let mut count = 0;
    for original in stale {
        let tuple = Attributes::default().nested(TUPLE_ORIGINAL, &Attributes::of(&original));
        match socket.ask(SUBSYSTEM, DELETE, family, &tuple) {
            Ok(()) => count += 1,
            // It may have ended by itself.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// A flow, and the attributes that name it.
fn read(attributes: &[u8]) -> Option<(Flow, Vec<u8>)> {
    let original = find(attributes, TUPLE_ORIGINAL)?;
    let (protocol, there) = direction(original)?;
    let (_, back) = direction(find(attributes, TUPLE_REPLY)?)?;
    Some((Flow { protocol, original: there, reply: back }, original.to_vec()))
}

fn direction(tuple: &[u8]) -> Option<(Protocol, Direction)> {
    let (addresses, ports) = (find(tuple, TUPLE_ADDRESSES)?, find(tuple, TUPLE_PROTOCOL)?);
    let address = |kinds: [u16; 2]| -> Option<IpAddr> {
        if let Some(four) = find(addresses, kinds[0]) {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(four).ok()?).into());
        }
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(find(addresses, kinds[1])?).ok()?).into())
    };
    let port = |kind| Some(u16::from_be_bytes(find(ports, kind)?.try_into().ok()?));
    let protocol = match find(ports, PROTOCOL_NUMBER)? {
        [6] => Protocol::Tcp,
        [17] => Protocol::Udp,
        _ => return None,
    };
    let from = SocketAddr::new(address(SOURCE)?, port(SOURCE_PORT)?);
    let to = SocketAddr::new(address(DESTINATION)?, port(DESTINATION_PORT)?);
    Some((protocol, Direction { from, to }))
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    const KIND: u16 = 0x3fff;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & KIND;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tuple(from: (&str, u16), to: (&str, u16), protocol: u8) -> Attributes {
        let octets = |ip: &str| ip.parse::<Ipv4Addr>().unwrap().octets();
        let addresses = Attributes::default().bytes(1, &octets(from.0)).bytes(2, &octets(to.0));
        let ports = Attributes::default()
            .bytes(1, &[protocol])
            .bytes(2, &from.1.to_be_bytes())
            .bytes(3, &to.1.to_be_bytes());
        Attributes::default().nested(1, &addresses).nested(2, &ports)
    }

    #[test]
    fn a_translated_flow_is_known_by_who_answers() {
        let there = tuple(("10.0.0.9", 4000), ("10.0.0.1", 53), 17);
        let back = tuple(("172.17.0.2", 5353), ("10.0.0.9", 4000), 17);
        let flow = Attributes::default().nested(1, &there).nested(2, &back);
        let (flow, name) = read(flow.as_bytes()).unwrap();
        assert_eq!(name, there.as_bytes());
        assert_eq!(flow.original.to, "10.0.0.1:53".parse().unwrap());
        assert!(flow.leads_to("172.17.0.2:5353".parse().unwrap()));
        assert!(!flow.leads_to("172.17.0.2:53".parse().unwrap()));
        let icmp = tuple(("10.0.0.9", 4000), ("10.0.0.1", 53), 1);
        assert!(read(Attributes::default().nested(1, &icmp).nested(2, &icmp).as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic_or_stall(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
