//! Published ports in the packet filter: packets to a port of this host are led to a container, with the client's address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::Error;
use crate::firewall::DESTINATION_NAT;
use crate::nft::{Chain, ChainKind, Family, Hook, Protocol, Rule, Socket, Table};

/// One port of the host that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Tcp or udp.
    pub protocol: Protocol,
    /// The host's address; an unspecified one stands for all of its family.
    pub host: SocketAddr,
    /// The container's address, of the same family.
    pub target: SocketAddr,
    /// The container's bridge. What comes from there stays as it is: an answer would take the short way back and be
    /// nobody's.
    pub bridge: String,
}

/// The forwards of one engine. They go with this value, and so with a killed engine.
///
/// What a process of this host sends to loopback is not led anywhere: somebody has to listen there.
#[derive(Debug)]
pub struct Forwards {
    name: String,
    socket: Socket,
    /// The families that have a table now.
    present: [bool; 2],
}

impl Forwards {
    /// Names the tables; they come with the first forwards.
    ///
    /// # Errors
    /// When the kernel has no packet filter.
    pub fn open(name: impl Into<String>) -> Result<Self, Error> {
        Ok(Self { name: name.into(), socket: Socket::open()?, present: [false; 2] })
    }

    /// Makes the kernel lead exactly these.
    ///
    /// # Errors
    /// When the kernel refuses, for example one that is too old for tables that go with their owner (Linux 5.12). Then the
    /// old forwards stand.
    pub fn apply(&mut self, forwards: &[Forward]) -> Result<(), Error> {
        for (at, family) in [Family::Ipv4, Family::Ipv6].into_iter().enumerate() {
            let is_ours = |forward: &&Forward| forward.target.is_ipv6() == (family == Family::Ipv6);
            let ours: Vec<&Forward> = forwards.iter().filter(is_ours).collect();
            if ours.is_empty() && !self.present[at] {
                continue;
            }
            if ours.is_empty() {
                self.socket.delete(family, &self.name)?;
            } else {
                let chains = vec![
                    chain("prerouting", Hook::Prerouting, &ours, false),
                    chain("output", Hook::Output, &ours, true),
                ];
                self.socket.replace(&Table { name: self.name.clone(), family, owned: true, chains })?;
            }
            self.present[at] = !ours.is_empty();
        }
        Ok(())
    }
}

fn chain(name: &'static str, hook: Hook, forwards: &[&Forward], own: bool) -> Chain {
    let rules = forwards
        .iter()
        .map(|forward| {
            let rule = Rule::new().protocol(forward.protocol).destination_port(forward.host.port());
            let rule = match forward.host.ip() {
                ip if !ip.is_unspecified() => rule.destination_address(ip),
                _ => rule.destination_here(),
            };
            let rule = match (own, forward.host.ip()) {
                (false, _) => rule.not_in_interface(&forward.bridge),
                (true, IpAddr::V4(_)) => {
                    rule.not_destination_subnet(IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8))
                }
                (true, IpAddr::V6(_)) => {
                    rule.not_destination_subnet(IpNet::from(IpAddr::from(std::net::Ipv6Addr::LOCALHOST)))
                }
            };
            rule.destination_nat(forward.target.ip(), forward.target.port())
        })
        .collect();
    Chain { name, kind: ChainKind::Nat, hook, priority: DESTINATION_NAT, rules }
}
