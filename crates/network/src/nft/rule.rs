//! Rules: matches from left to right, then what to do.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

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
/// `ESTABLISHED` and `RELATED` among the bits of `ct state`.
const KNOWN_FLOW: u32 = 2 | 4;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
const ADDRESS_IS_LOCAL: u32 = 2;
const NAT_SOURCE: u32 = 0;
const NAT_DESTINATION: u32 = 1;
const FAMILY_IPV4: u32 = 2;
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
    pub fn source_subnet(self, subnet: Ipv4Net) -> Self {
        self.address(12, subnet)
    }

    /// Matches packets to a subnet.
    #[must_use]
    pub fn destination_subnet(self, subnet: Ipv4Net) -> Self {
        self.address(16, subnet)
    }

    /// Matches packets to an address.
    #[must_use]
    pub fn destination_address(self, ip: Ipv4Addr) -> Self {
        self.address(16, Ipv4Net::from(ip))
    }

    /// Matches packets from an address.
    #[must_use]
    pub fn source_address(self, ip: Ipv4Addr) -> Self {
        self.address(12, Ipv4Net::from(ip))
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

    /// Matches packets whose destination is no address of this namespace's own.
    #[must_use]
    pub fn destination_elsewhere(self) -> Self {
        let fib = Attributes::default()
            .number(1, REG_1)
            .number(2, FIB_RESULT_ADDRESS_TYPE)
            .number(3, FIB_DESTINATION);
        self.expression("fib", &fib).compare(CMP_NEQ, &ADDRESS_IS_LOCAL.to_ne_bytes())
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
    pub fn destination_nat(self, ip: Ipv4Addr, port: u16) -> Self {
        self.nat(NAT_DESTINATION, ip, port)
    }

    /// Gives the packet another source.
    #[must_use]
    pub fn source_nat(self, ip: Ipv4Addr, port: u16) -> Self {
        self.nat(NAT_SOURCE, ip, port)
    }

    /// Marks the packet and hands it to the transparent listener on this local port.
    #[must_use]
    pub fn transparent_proxy(self, port: u16, mark: u32) -> Self {
        let set_mark = Attributes::default().number(2, META_MARK).number(3, REG_1);
        let proxy = Attributes::default().number(1, FAMILY_IPV4).number(3, REG_2);
        self.load(REG_1, &mark.to_ne_bytes())
            .expression("meta", &set_mark)
            .load(REG_2, &port.to_be_bytes())
            .expression("tproxy", &proxy)
            .verdict(ACCEPT)
    }

    pub(super) fn expressions(&self) -> &Attributes {
        &self.expressions
    }

    fn nat(self, kind: u32, ip: Ipv4Addr, port: u16) -> Self {
        let nat =
            Attributes::default().number(1, kind).number(2, FAMILY_IPV4).number(3, REG_1).number(5, REG_2);
        self.load(REG_1, &ip.octets()).load(REG_2, &port.to_be_bytes()).expression("nat", &nat)
    }

    /// The four bytes of an address at `offset` of the IP header.
    fn address(self, offset: u32, net: Ipv4Net) -> Self {
        let rule = self.payload(BASE_NETWORK, offset, 4);
        let rule = if net.prefix_len() < 32 { rule.mask(&net.netmask().octets()) } else { rule };
        rule.compare(CMP_EQ, &net.network().octets())
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

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(1, bytes)
}

fn padded(name: &str) -> [u8; NAME_SIZE] {
    let mut bytes = [0; NAME_SIZE];
    let length = name.len().min(NAME_SIZE - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}
