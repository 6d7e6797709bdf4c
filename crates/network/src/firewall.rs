//! The host's part of the packet filter: who may reach whom, and with which address containers leave.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::Error;
use crate::nft::{self, Chain, ChainKind, Hook, Protocol, Rule, Table};

/// Whether the outside can be reached from a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// With the host's own address.
    Masqueraded,
    /// With the containers' own addresses: something else routes or translates them.
    Routed,
    /// Not at all.
    Closed,
}

/// A network as the firewall sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The bridge's interface.
    pub bridge: String,
    /// The addresses behind it.
    pub subnet: Ipv4Net,
    /// Whether the outside can be reached.
    pub outside: Outside,
}

/// The IPv4 table of one engine. Engines side by side have tables of different names and don't disturb each other.
#[derive(Debug, Clone)]
pub struct Firewall {
    name: String,
}

/// Source NAT comes after everything that looks at a packet's own addresses.
const SOURCE_NAT: i32 = 100;
const FILTER: i32 = 0;
const DESTINATION_NAT: i32 = -100;
const MANGLE: i32 = -150;
/// The name of the table inside a container's namespace.
const RESOLVER_TABLE: &str = "skiff_resolver";

impl Firewall {
    /// Names the table; nothing is done yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Makes the kernel's table say exactly what these networks need.
    ///
    /// - Nothing but answers gets from anywhere into a network: networks can't reach each other.
    /// - Nothing gets out of a closed network.
    /// - What gets out of a masqueraded one has the host's address.
    ///
    /// # Errors
    /// When the kernel refuses; then the old table stands.
    pub fn apply(&self, zones: &[Zone]) -> Result<(), Error> {
        nft::replace(&Table { name: self.name.clone(), chains: vec![forward(zones), leave(zones)] })
    }

    /// Like [`apply`](Self::apply), and hands what leaves the networks to a transparent listener of this host.
    ///
    /// # Errors
    /// When the kernel refuses; then the old table stands.
    pub fn apply_with_proxy(&self, zones: &[Zone], proxy: Proxy) -> Result<(), Error> {
        let chains = vec![forward(zones), leave(zones), catch(zones, proxy)];
        nft::replace(&Table { name: self.name.clone(), chains })
    }

    /// Takes the table away; one that is gone already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<(), Error> {
        nft::delete(&self.name)
    }

    /// Whether the table is there.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn exists(&self) -> Result<bool, Error> {
        nft::exists(&self.name)
    }
}

/// A transparent listener on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxy {
    /// Its port, TCP and UDP.
    pub port: u16,
    /// The mark that its packets get, which a routing rule delivers locally.
    pub mark: u32,
}

fn forward(zones: &[Zone]) -> Chain {
    let mut rules = Vec::new();
    // Even an answer does not cross the border of a closed network.
    for zone in zones.iter().filter(|zone| zone.outside == Outside::Closed) {
        rules.push(Rule::new().in_interface(&zone.bridge).not_out_interface(&zone.bridge).drop());
        rules.push(Rule::new().out_interface(&zone.bridge).not_in_interface(&zone.bridge).drop());
    }
    rules.push(Rule::new().known_flow().accept());
    for zone in zones.iter().filter(|zone| zone.outside != Outside::Closed) {
        rules.push(Rule::new().out_interface(&zone.bridge).not_in_interface(&zone.bridge).drop());
    }
    Chain { name: "forward", kind: ChainKind::Filter, hook: Hook::Forward, priority: FILTER, rules }
}

fn leave(zones: &[Zone]) -> Chain {
    let masqueraded = zones.iter().filter(|zone| zone.outside == Outside::Masqueraded);
    let rules = masqueraded
        .map(|zone| Rule::new().source_subnet(zone.subnet).not_out_interface(&zone.bridge).masquerade())
        .collect();
    Chain { name: "postrouting", kind: ChainKind::Nat, hook: Hook::Postrouting, priority: SOURCE_NAT, rules }
}

fn catch(zones: &[Zone], proxy: Proxy) -> Chain {
    let mut rules = Vec::new();
    for zone in zones.iter().filter(|zone| zone.outside != Outside::Closed) {
        // Other networks are not the outside: those packets meet the forward chain.
        for other in zones {
            rules.push(Rule::new().in_interface(&zone.bridge).destination_subnet(other.subnet).accept());
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            rules.push(
                Rule::new()
                    .in_interface(&zone.bridge)
                    .protocol(protocol)
                    .destination_elsewhere()
                    .transparent_proxy(proxy.port, proxy.mark),
            );
        }
    }
    Chain { name: "prerouting", kind: ChainKind::Filter, hook: Hook::Prerouting, priority: MANGLE, rules }
}

/// Leads what the calling thread's namespace sends to port 53 of `address` to these ports of the same address.
///
/// The other way round answers get port 53 again. This keeps port 53 of every address free for the container's own use.
///
/// # Errors
/// When the kernel refuses.
pub fn redirect_resolver(address: Ipv4Addr, udp: u16, tcp: u16) -> Result<(), Error> {
    const DOMAIN: u16 = 53;
    let ports = [(Protocol::Udp, udp), (Protocol::Tcp, tcp)];
    let there = ports.map(|(protocol, port)| {
        Rule::new()
            .destination_address(address)
            .protocol(protocol)
            .destination_port(DOMAIN)
            .destination_nat(address, port)
    });
    let back = ports.map(|(protocol, port)| {
        Rule::new().source_address(address).protocol(protocol).source_port(port).source_nat(address, DOMAIN)
    });
    let chain = |name, hook, priority, rules: [Rule; 2]| Chain {
        name,
        kind: ChainKind::Nat,
        hook,
        priority,
        rules: rules.into(),
    };
    let chains = vec![
        chain("output", Hook::Output, DESTINATION_NAT, there),
        chain("postrouting", Hook::Postrouting, SOURCE_NAT, back),
    ];
    nft::replace(&Table { name: RESOLVER_TABLE.to_owned(), chains })
}
