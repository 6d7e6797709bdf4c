//! Rules: matches from left to right, then what to do.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::attributes::Attributes;

/// A transport protocol, by its number in the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

// The names are those of linux/netfilter/nf_tables.h.
const REG_VERDICT: u32 = 0;
const REG_1: u32 = 1;
const REG_2: u32 = 2;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// `ESTABLISHED` and `RELATED` among the bits of `ct state`.
const KNOWN_FLOW: u32 = 2 | 4;
/// `DST_NAT` among the bits of `ct status`.
const TRANSLATED: u32 = 1 << 5;
const FIB_RESULT_OUT_INTERFACE: u32 = 2;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const ADDRESS_IS_LOCAL: u32 = 2;
const FIB_DESTINATION: u32 = 2;
const NAT_SOURCE: u32 = 0;
const NAT_DESTINATION: u32 = 1;
const FAMILY_IPV4: u32 = 2;
const FAMILY_IPV6: u32 = 10;
/// `FIN`, `SYN`, `RST` and `ACK` of a TCP header's flags, and the one that begins a connection.
const TCP_FLAGS: u8 = 0x17;
const TCP_SYN: u8 = 0x02;
const REJECT_UNREACHABLE: u32 = 0;
const REJECT_RESET: u32 = 1;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// The kernel compares interface names with their padding.
const NAME_SIZE: usize = 16;

/// A rule in the making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    expressions: Attributes,
}

impl Rule {
    /// A rule that matches every packet and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Matches packets that came in through an interface.
    #[must_use]
    pub fn in_interface(self, name: &str) -> Self {
        self.meta(META_IIFNAME).compare(CMP_EQ, &padded(name))
    }

    /// Matches packets that did not come in through an interface.
    #[must_use]
    pub fn not_in_interface(self, name: &str) -> Self {
        self.meta(META_IIFNAME).compare(CMP_NEQ, &padded(name))
    }

    /// Matches packets that go out through an interface.
    #[must_use]
    pub fn out_interface(self, name: &str) -> Self {
        self.meta(META_OIFNAME).compare(CMP_EQ, &padded(name))
    }

    /// Matches packets that don't go out through an interface.
    #[must_use]
    pub fn not_out_interface(self, name: &str) -> Self {
        self.meta(META_OIFNAME).compare(CMP_NEQ, &padded(name))
    }

    /// Matches packets from a subnet.
    #[must_use]
    pub fn source_subnet(self, subnet: impl Into<IpNet>) -> Self {
        self.address(Place::Source, CMP_EQ, subnet.into())
    }

    /// Matches packets to somewhere outside of a subnet.
    #[must_use]
    pub fn not_destination_subnet(self, subnet: impl Into<IpNet>) -> Self {
        self.address(Place::Destination, CMP_NEQ, subnet.into())
    }

    /// Matches packets to an address.
    #[must_use]
    pub fn destination_address(self, ip: impl Into<IpAddr>) -> Self {
        self.address(Place::Destination, CMP_EQ, ip.into().into())
    }

    /// Matches packets from an address.
    #[must_use]
    pub fn source_address(self, ip: impl Into<IpAddr>) -> Self {
        self.address(Place::Source, CMP_EQ, ip.into().into())
    }

    /// Matches packets of a protocol.
    #[must_use]
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.meta(META_L4PROTO).compare(CMP_EQ, &[protocol as u8])
    }

    /// Matches the destination port; after [`protocol`](Self::protocol).
    #[must_use]
    pub fn destination_port(self, port: u16) -> Self {
        self.payload(BASE_TRANSPORT, 2, 2).compare(CMP_EQ, &port.to_be_bytes())
    }

    /// Matches the source port; after [`protocol`](Self::protocol).
    #[must_use]
    pub fn source_port(self, port: u16) -> Self {
        self.payload(BASE_TRANSPORT, 0, 2).compare(CMP_EQ, &port.to_be_bytes())
    }

    /// Matches packets of flows that were let through before, and errors about them.
    #[must_use]
    pub fn known_flow(self) -> Self {
        self.expression("ct", &Attributes::default().number(1, REG_1).number(2, CT_STATE))
            .mask(&KNOWN_FLOW.to_ne_bytes())
            .compare(CMP_NEQ, &[0; 4])
    }

    /// Matches packets of flows whose destination was translated.
    #[must_use]
    pub fn translated(self) -> Self {
        self.expression("ct", &Attributes::default().number(1, REG_1).number(2, CT_STATUS))
            .mask(&TRANSLATED.to_ne_bytes())
            .compare(CMP_NEQ, &[0; 4])
    }

    /// Matches packets whose destination is an address of this namespace's own.
    #[must_use]
    pub fn destination_here(self) -> Self {
        self.destination_kind().compare(CMP_EQ, &ADDRESS_IS_LOCAL.to_ne_bytes())
    }

    fn destination_kind(self) -> Self {
        let fib = Attributes::default()
            .number(1, REG_1)
            .number(2, FIB_RESULT_ADDRESS_TYPE)
            .number(3, FIB_DESTINATION);
        self.expression("fib", &fib)
    }

    /// Ends the chain: the packet goes on.
    #[must_use]
    pub fn accept(self) -> Self {
        self.verdict(ACCEPT)
    }

    /// Drops the packet.
    #[must_use]
    pub fn drop(self) -> Self {
        self.verdict(DROP)
    }

    /// Gives the packet the address of the interface it leaves through.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.expression("masq", &Attributes::default())
    }

    /// Sends the packet to another destination.
    #[must_use]
    pub fn destination_nat(self, ip: impl Into<IpAddr>, port: u16) -> Self {
        self.nat(NAT_DESTINATION, ip.into(), port)
    }

    /// Gives the packet another source.
    #[must_use]
    pub fn source_nat(self, ip: impl Into<IpAddr>, port: u16) -> Self {
        self.nat(NAT_SOURCE, ip.into(), port)
    }

    /// Matches packets whose destination is routed through an interface, before they are routed.
    #[must_use]
    pub fn leads_to(self, name: &str) -> Self {
        let fib = Attributes::default()
            .number(1, REG_1)
            .number(2, FIB_RESULT_OUT_INTERFACE)
            .number(3, FIB_DESTINATION);
        self.expression("fib", &fib).compare(CMP_EQ, &padded(name))
    }

    /// Matches packets with a mark.
    #[must_use]
    pub fn mark(self, mark: u32) -> Self {
        self.meta(META_MARK).compare(CMP_EQ, &mark.to_ne_bytes())
    }

    /// Marks the packet; the rules after this one see it too.
    #[must_use]
    pub fn set_mark(self, mark: u32) -> Self {
        let set_mark = Attributes::default().number(2, META_MARK).number(3, REG_1);
        self.load(REG_1, &mark.to_ne_bytes()).expression("meta", &set_mark)
    }

    /// Matches the first packet of a TCP connection; after [`protocol`](Self::protocol).
    #[must_use]
    pub fn begins_connection(self) -> Self {
        self.payload(BASE_TRANSPORT, 13, 1).mask(&[TCP_FLAGS]).compare(CMP_EQ, &[TCP_SYN])
    }

    /// Holds the packet until the program that reads this queue has decided about it; without one it is dropped.
    #[must_use]
    pub fn queue(self, number: u16) -> Self {
        let queue = Attributes::default().bytes(1, &number.to_be_bytes()).bytes(2, &1u16.to_be_bytes());
        self.expression("queue", &queue)
    }

    /// Drops the packet and answers that nobody listens; after [`protocol`](Self::protocol) TCP.
    #[must_use]
    pub fn reset(self) -> Self {
        self.expression("reject", &Attributes::default().number(1, REJECT_RESET))
    }

    /// Drops the packet and answers that the destination is unreachable, with this code of the family's own messages.
    #[must_use]
    pub fn unreachable(self, code: u8) -> Self {
        self.expression("reject", &Attributes::default().number(1, REJECT_UNREACHABLE).bytes(2, &[code]))
    }

    /// Hands the packet to the transparent listener on this address of this namespace.
    #[must_use]
    pub fn transparent_proxy(self, listener: SocketAddr) -> Self {
        let family = family_of(listener.ip());
        let proxy = Attributes::default().number(1, family).number(2, REG_1).number(3, REG_2);
        self.load(REG_1, &octets(listener.ip()))
            .load(REG_2, &listener.port().to_be_bytes())
            .expression("tproxy", &proxy)
            .verdict(ACCEPT)
    }

    pub(super) fn expressions(&self) -> &Attributes {
        &self.expressions
    }

    fn nat(self, kind: u32, ip: IpAddr, port: u16) -> Self {
        let nat =
            Attributes::default().number(1, kind).number(2, family_of(ip)).number(3, REG_1).number(5, REG_2);
        self.load(REG_1, &octets(ip)).load(REG_2, &port.to_be_bytes()).expression("nat", &nat)
    }

    /// An address of the IP header.
    fn address(self, place: Place, how: u32, net: IpNet) -> Self {
        let (offset, length) = match (&net, place) {
            (IpNet::V4(_), Place::Source) => (12, 4),
            (IpNet::V4(_), Place::Destination) => (16, 4),
            (IpNet::V6(_), Place::Source) => (8, 16),
            (IpNet::V6(_), Place::Destination) => (24, 16),
        };
        let rule = self.payload(BASE_NETWORK, offset, length);
        let rule =
            if net.prefix_len() < net.max_prefix_len() { rule.mask(&octets(net.netmask())) } else { rule };
        rule.compare(how, &octets(net.network()))
    }

    fn meta(self, key: u32) -> Self {
        self.expression("meta", &Attributes::default().number(1, REG_1).number(2, key))
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        let place =
            Attributes::default().number(1, REG_1).number(2, base).number(3, offset).number(4, length);
        self.expression("payload", &place)
    }

    fn mask(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).expect("registers are small");
        let bitwise = Attributes::default()
            .number(1, REG_1)
            .number(2, REG_1)
            .number(3, length)
            .nested(4, &value(mask))
            .nested(5, &value(&vec![0; mask.len()]));
        self.expression("bitwise", &bitwise)
    }

    fn compare(self, how: u32, bytes: &[u8]) -> Self {
        self.expression(
            "cmp",
            &Attributes::default().number(1, REG_1).number(2, how).nested(3, &value(bytes)),
        )
    }

    fn load(self, register: u32, bytes: &[u8]) -> Self {
        self.expression("immediate", &Attributes::default().number(1, register).nested(2, &value(bytes)))
    }

    fn verdict(self, code: u32) -> Self {
        let verdict = Attributes::default().nested(2, &Attributes::default().number(1, code));
        self.expression("immediate", &Attributes::default().number(1, REG_VERDICT).nested(2, &verdict))
    }

    fn expression(mut self, name: &str, data: &Attributes) -> Self {
        let element = Attributes::default().text(1, name).nested(2, data);
        self.expressions = std::mem::take(&mut self.expressions).nested(1, &element);
        self
    }
}

/// Which address of a packet.
#[derive(Clone, Copy)]
enum Place {
    Source,
    Destination,
}

fn family_of(ip: IpAddr) -> u32 {
    if ip.is_ipv6() { FAMILY_IPV6 } else { FAMILY_IPV4 }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(1, bytes)
}

fn padded(name: &str) -> [u8; NAME_SIZE] {
    let mut bytes = [0; NAME_SIZE];
    let length = name.len().min(NAME_SIZE - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}
