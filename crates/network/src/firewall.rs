//! The host's part of the packet filter: who may reach whom, and with which address containers leave.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::Error;
use crate::nft::{Chain, ChainKind, Family, Hook, Protocol, Rule, Socket, Table};

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

/// A network as the firewall sees it: its part of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The bridge's interface.
    pub bridge: String,
    /// The addresses behind it.
    pub subnet: IpNet,
    /// Whether the outside can be reached.
    pub outside: Outside,
    /// Who gets in without having been asked.
    pub inside: Inside,
}

/// Who gets into a network without having been asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inside {
    /// Whoever comes through a published port.
    Published,
    /// Whoever wants one of these ports, too.
    Ports(Vec<(Protocol, SocketAddr)>),
    /// Everybody.
    Open,
}

/// The tables of one engine, one for each family. Engines side by side have tables of different names and don't disturb each other.
#[derive(Debug, Clone)]
pub struct Firewall {
    name: String,
}

/// Source NAT comes after everything that looks at a packet's own addresses.
const SOURCE_NAT: i32 = 100;
const FILTER: i32 = 0;
pub const DESTINATION_NAT: i32 = -100;
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
        self.replace(zones, |zones| vec![forward(zones), leave(zones)])
    }

    /// Writes the table of each family. IPv6 needs one only with networks that have it.
    fn replace(&self, zones: &[Zone], chains: impl Fn(&[Zone]) -> Vec<Chain>) -> Result<(), Error> {
        let (four, six): (Vec<Zone>, Vec<Zone>) =
            zones.iter().cloned().partition(|zone| matches!(zone.subnet, IpNet::V4(_)));
        let mut socket = Socket::open()?;
        let table = |family, zones: &[Zone]| Table {
            name: self.name.clone(),
            family,
            owned: false,
            chains: chains(zones),
        };
        if six.is_empty() {
            // A kernel without the family has no such table either.
            let _ = socket.delete(Family::Ipv6, &self.name);
        } else {
            socket.replace(&table(Family::Ipv6, &six))?;
        }
        socket.replace(&table(Family::Ipv4, &four))
    }

    /// Takes the tables away; those that are gone already are fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<(), Error> {
        let mut socket = Socket::open()?;
        let _ = socket.delete(Family::Ipv6, &self.name);
        socket.delete(Family::Ipv4, &self.name)
    }

    /// Whether the IPv4 table is there.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn exists(&self) -> Result<bool, Error> {
        Socket::open()?.has(Family::Ipv4, &self.name)
    }
}

fn forward(zones: &[Zone]) -> Chain {
    let mut rules = Vec::new();
    // Even an answer does not cross the border of a closed network.
    for zone in zones.iter().filter(|zone| zone.outside == Outside::Closed) {
        rules.push(Rule::new().in_interface(&zone.bridge).not_out_interface(&zone.bridge).drop());
        rules.push(Rule::new().out_interface(&zone.bridge).not_in_interface(&zone.bridge).drop());
    }
    rules.push(Rule::new().known_flow().accept());
    // What was led here through a published port.
    rules.push(Rule::new().translated().accept());
    for zone in zones.iter().filter(|zone| zone.outside != Outside::Closed) {
        match &zone.inside {
            Inside::Published => {}
            Inside::Ports(ports) => rules.extend(ports.iter().map(|(protocol, address)| {
                Rule::new()
                    .out_interface(&zone.bridge)
                    .destination_address(address.ip())
                    .protocol(*protocol)
                    .destination_port(address.port())
                    .accept()
            })),
            Inside::Open => continue,
        }
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
    let table = Table { name: RESOLVER_TABLE.to_owned(), family: Family::Ipv4, owned: false, chains };
    Socket::open()?.replace(&table)
}
