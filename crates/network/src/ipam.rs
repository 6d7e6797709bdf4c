//! Addresses of one subnet.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Why an address was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// Every address of the range is taken.
    #[error("no available {family} addresses on this network's address pools")]
    Exhausted {
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// The address that was asked for is taken (or is the gateway's).
    #[error("Address already in use")]
    InUse {
        /// The address.
        ip: IpAddr,
    },
    /// The address that was asked for cannot belong to a container of this subnet.
    #[error("requested address is out of range")]
    OutOfRange {
        /// The address.
        ip: IpAddr,
    },
    /// The gateway is no usable address of the subnet.
    #[error("no matching subnet for gateway {gateway}")]
    GatewayOutside {
        /// The gateway as given.
        gateway: IpAddr,
    },
    /// The range is not a part of the subnet.
    #[error("no matching subnet for range {range}")]
    RangeOutside {
        /// The range as given.
        range: IpNet,
    },
}

/// A subnet of either family, as far as handing out addresses goes.
pub trait Subnet: Copy + Into<IpNet> {
    /// Its addresses.
    type Address: Copy + Ord + Into<IpAddr>;
    /// `IPv4` or `IPv6`.
    const FAMILY: &'static str;

    /// The same without the bits behind the prefix.
    #[must_use]
    fn trunc(self) -> Self;
    /// The first address.
    fn first(self) -> Self::Address;
    /// The last address.
    fn last(self) -> Self::Address;
    /// Whether an address can belong to somebody.
    fn is_usable(self, ip: Self::Address) -> bool;
    /// Whether all of another is in it.
    fn covers(self, other: Self) -> bool;
    /// An address as a number.
    fn number(ip: Self::Address) -> u128;
    /// A number as an address.
    fn address(number: u128) -> Self::Address;

    /// The address of the subnet's own router, unless its user chooses another.
    fn first_usable(self) -> Self::Address {
        let second = Self::number(self.first()).saturating_add(1);
        let candidates = [self.first(), Self::address(second)];
        candidates.into_iter().find(|ip| self.is_usable(*ip)).unwrap_or(self.first())
    }
}

impl Subnet for Ipv4Net {
    type Address = Ipv4Addr;
    const FAMILY: &'static str = "IPv4";

    fn trunc(self) -> Self {
        Ipv4Net::trunc(&self)
    }

    fn first(self) -> Ipv4Addr {
        self.network()
    }

    fn last(self) -> Ipv4Addr {
        self.broadcast()
    }

    /// Network and broadcast address belong to nobody, except in nets too small to have them (RFC 3021).
    fn is_usable(self, ip: Ipv4Addr) -> bool {
        self.contains(&ip) && (self.prefix_len() >= 31 || (ip != self.network() && ip != self.broadcast()))
    }

    fn covers(self, other: Self) -> bool {
        self.contains(&other)
    }

    fn number(ip: Ipv4Addr) -> u128 {
        u32::from(ip).into()
    }

    fn address(number: u128) -> Ipv4Addr {
        Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))
    }
}

impl Subnet for Ipv6Net {
    type Address = Ipv6Addr;
    const FAMILY: &'static str = "IPv6";

    fn trunc(self) -> Self {
        Ipv6Net::trunc(&self)
    }

    fn first(self) -> Ipv6Addr {
        self.network()
    }

    fn last(self) -> Ipv6Addr {
        self.broadcast()
    }

    /// The first address is every router's (RFC 4291, 2.6.1), except in nets too small to have it (RFC 6164).
    fn is_usable(self, ip: Ipv6Addr) -> bool {
        self.contains(&ip) && (self.prefix_len() >= 127 || ip != self.network())
    }

    fn covers(self, other: Self) -> bool {
        self.contains(&other)
    }

    fn number(ip: Ipv6Addr) -> u128 {
        ip.into()
    }

    fn address(number: u128) -> Ipv6Addr {
        number.into()
    }
}

/// Hands out the addresses of one subnet, lowest free one first, as Docker's bridge driver does.
///
/// Pure and in memory. It can be stored and restored with serde.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "N: Serialize, N::Address: Serialize",
    deserialize = "N: Deserialize<'de>, N::Address: Deserialize<'de>"
))]
pub struct Ipam<N: Subnet = Ipv4Net> {
    subnet: N,
    gateway: N::Address,
    /// Where [`allocate`](Self::allocate) looks; specific addresses may lie outside, but inside the subnet.
    range: N,
    taken: BTreeSet<N::Address>,
}

impl<N: Subnet> Ipam<N> {
    /// Starts with every address free.
    ///
    /// Without `gateway` it is the first usable address; without `range` the whole subnet is handed out.
    ///
    /// # Errors
    /// [`IpamError::GatewayOutside`] and [`IpamError::RangeOutside`].
    pub fn new(subnet: N, gateway: Option<N::Address>, range: Option<N>) -> Result<Self, IpamError> {
        let subnet = subnet.trunc();
        let gateway = gateway.unwrap_or_else(|| subnet.first_usable());
        if !subnet.is_usable(gateway) {
            return Err(IpamError::GatewayOutside { gateway: gateway.into() });
        }
        let range = range.map_or(subnet, Subnet::trunc);
        if !subnet.covers(range) {
            return Err(IpamError::RangeOutside { range: range.into() });
        }
        Ok(Self { subnet, gateway, range, taken: BTreeSet::new() })
    }

    /// The subnet.
    pub fn subnet(&self) -> N {
        self.subnet
    }

    /// The gateway, which is never handed out.
    pub fn gateway(&self) -> N::Address {
        self.gateway
    }

    /// Takes the lowest free address of the range.
    ///
    /// # Errors
    /// [`IpamError::Exhausted`].
    pub fn allocate(&mut self) -> Result<N::Address, IpamError> {
        let (first, last) = (self.range.first(), self.range.last());
        // One walk over the taken addresses finds the first gap.
        let mut taken = self.taken.range(first..=last).copied().peekable();
        for candidate in N::number(first)..=N::number(last) {
            let ip = N::address(candidate);
            if taken.next_if(|taken| *taken == ip).is_some() {
                continue;
            }
            if ip != self.gateway && self.subnet.is_usable(ip) {
                self.taken.insert(ip);
                return Ok(ip);
            }
        }
        Err(IpamError::Exhausted { family: N::FAMILY })
    }

    /// Takes this address.
    ///
    /// # Errors
    /// [`IpamError::InUse`] and [`IpamError::OutOfRange`].
    pub fn allocate_specific(&mut self, ip: N::Address) -> Result<(), IpamError> {
        if !self.subnet.is_usable(ip) {
            return Err(IpamError::OutOfRange { ip: ip.into() });
        }
        if ip == self.gateway || !self.taken.insert(ip) {
            return Err(IpamError::InUse { ip: ip.into() });
        }
        Ok(())
    }

    /// Gives an address back. Returns whether it was taken.
    pub fn release(&mut self, ip: N::Address) -> bool {
        self.taken.remove(&ip)
    }

    /// Tells how many addresses are taken.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_come_in_dockers_order_and_a_released_one_is_next() {
        let mut ipam = Ipam::new(net("172.17.0.0/16"), None, None).unwrap();
        assert_eq!(ipam.gateway(), ip("172.17.0.1"));
        assert_eq!(ipam.allocate(), Ok(ip("172.17.0.2")));
        assert_eq!(ipam.allocate(), Ok(ip("172.17.0.3")));
        assert!(ipam.release(ip("172.17.0.2")));
        assert!(!ipam.release(ip("172.17.0.2")));
        assert_eq!(ipam.allocate(), Ok(ip("172.17.0.2")));
        assert_eq!(ipam.allocate(), Ok(ip("172.17.0.4")));
    }

    #[test]
    fn a_full_subnet_says_so_in_dockers_words() {
        let mut ipam = Ipam::new(net("10.0.0.0/29"), Some(ip("10.0.0.6")), None).unwrap();
        for last in 1..=5 {
            assert_eq!(ipam.allocate(), Ok(Ipv4Addr::new(10, 0, 0, last)));
        }
        assert_eq!(
            ipam.allocate().unwrap_err().to_string(),
            "no available IPv4 addresses on this network's address pools"
        );
    }

    #[test]
    fn a_range_limits_only_the_free_choice() {
        let mut ipam = Ipam::new(net("10.1.0.0/16"), None, Some(net("10.1.5.0/30"))).unwrap();
        assert_eq!(ipam.allocate(), Ok(ip("10.1.5.0")));
        ipam.allocate_specific(ip("10.1.9.9")).unwrap();
        assert_eq!(
            ipam.allocate_specific(ip("10.1.5.0")),
            Err(IpamError::InUse { ip: ip("10.1.5.0").into() })
        );
        for _ in 0..3 {
            ipam.allocate().unwrap();
        }
        assert_eq!(ipam.allocate(), Err(IpamError::Exhausted { family: "IPv4" }));
    }

    #[test]
    fn addresses_that_are_nobodys_are_refused() {
        let mut ipam = Ipam::new(net("10.1.0.0/24"), None, None).unwrap();
        for bad in ["10.1.0.0", "10.1.0.255", "10.1.1.1"] {
            assert_eq!(ipam.allocate_specific(ip(bad)), Err(IpamError::OutOfRange { ip: ip(bad).into() }));
        }
        assert_eq!(
            ipam.allocate_specific(ip("10.1.0.1")),
            Err(IpamError::InUse { ip: ip("10.1.0.1").into() })
        );
        assert!(matches!(
            Ipam::new(net("10.1.0.0/24"), Some(ip("10.2.0.1")), None),
            Err(IpamError::GatewayOutside { .. })
        ));
        assert!(matches!(
            Ipam::new(net("10.1.0.0/24"), None, Some(net("10.1.0.0/16"))),
            Err(IpamError::RangeOutside { .. })
        ));
    }

    #[test]
    fn tiny_subnets_use_every_address() {
        let mut ipam = Ipam::new(net("10.0.0.4/31"), None, None).unwrap();
        assert_eq!((ipam.gateway(), ipam.allocate()), (ip("10.0.0.4"), Ok(ip("10.0.0.5"))));
        let mut ipam = Ipam::new(net("10.0.0.4/32"), None, None).unwrap();
        assert_eq!(ipam.allocate(), Err(IpamError::Exhausted { family: "IPv4" }));
    }

    #[test]
    fn huge_subnets_are_handed_out_from_their_beginning() {
        let net: Ipv6Net = "fd00:1::/64".parse().unwrap();
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let mut ipam = Ipam::new(net, None, None).unwrap();
        assert_eq!(ipam.gateway(), ip("fd00:1::1"));
        assert_eq!(ipam.allocate(), Ok(ip("fd00:1::2")));
        ipam.allocate_specific(ip("fd00:1::3")).unwrap();
        ipam.allocate_specific(ip("fd00:1::ffff:ffff:ffff:ffff")).unwrap();
        assert_eq!(ipam.allocate(), Ok(ip("fd00:1::4")));
        for bad in ["fd00:1::", "fd00:2::1"] {
            assert!(matches!(ipam.allocate_specific(ip(bad)), Err(IpamError::OutOfRange { .. })), "{bad}");
        }
        let mut tiny = Ipam::new("fd00:1::/127".parse::<Ipv6Net>().unwrap(), None, None).unwrap();
        assert_eq!((tiny.gateway(), tiny.allocate()), (ip("fd00:1::"), Ok(ip("fd00:1::1"))));
        assert_eq!(
            tiny.allocate().unwrap_err().to_string(),
            "no available IPv6 addresses on this network's address pools"
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Any,
        Specific(u8),
        Release(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Any),
            (0u8..40).prop_map(Step::Specific),
            (0u8..40).prop_map(Step::Release),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice_and_state_survives_storage(prefix in 27u8..=30, steps in steps()) {
            let subnet = Ipv4Net::new(ip("10.9.8.0"), prefix).unwrap();
            let mut ipam = Ipam::new(subnet, None, None).unwrap();
            let usable: HashSet<_> = subnet.hosts().filter(|ip| *ip != ipam.gateway()).collect();
            let mut model = HashSet::new();
            for step in steps {
                match step {
                    Step::Any => match ipam.allocate() {
                        Ok(ip) => {
                            prop_assert!(usable.contains(&ip) && model.insert(ip));
                            // Lowest first: everything usable below is taken.
                            prop_assert!(usable.iter().filter(|other| **other < ip).all(|other| model.contains(other)));
                        }
                        Err(error) => {
                            prop_assert_eq!(error, IpamError::Exhausted { family: "IPv4" });
                            prop_assert_eq!(&model, &usable);
                        }
                    },
                    Step::Specific(last) => {
                        let ip = Ipv4Addr::new(10, 9, 8, last);
                        prop_assert_eq!(ipam.allocate_specific(ip).is_ok(), usable.contains(&ip) && model.insert(ip));
                    }
                    Step::Release(last) => {
                        let ip = Ipv4Addr::new(10, 9, 8, last);
                        prop_assert_eq!(ipam.release(ip), model.remove(&ip));
                    }
                }
                prop_assert_eq!(ipam.taken(), model.len());
            }
            let stored = serde_json::to_string(&ipam).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ipam>(&stored).unwrap(), ipam);
        }
    }
}
