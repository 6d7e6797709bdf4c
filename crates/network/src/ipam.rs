//! Addresses of one subnet.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Why an address was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// Every address of the range is taken.
    #[error("no available IPv4 addresses on this network's address pools")]
    Exhausted,
    /// The address that was asked for is taken (or is the gateway's).
    #[error("Address already in use")]
    InUse {
        /// The address.
        ip: Ipv4Addr,
    },
    /// The address that was asked for cannot belong to a container of this subnet.
    #[error("requested address is out of range")]
    OutOfRange {
        /// The address.
        ip: Ipv4Addr,
    },
    /// The gateway is no usable address of the subnet.
    #[error("no matching subnet for gateway {gateway}")]
    GatewayOutside {
        /// The gateway as given.
        gateway: Ipv4Addr,
    },
    /// The range is not a part of the subnet.
    #[error("no matching subnet for range {range}")]
    RangeOutside {
        /// The range as given.
        range: Ipv4Net,
    },
}

/// Hands out the addresses of one subnet, lowest free one first, as Docker's bridge driver does.
///
/// Pure and in memory. It can be stored and restored with serde.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    /// Where [`allocate`](Self::allocate) looks; specific addresses may lie outside, but inside the subnet.
    range: Ipv4Net,
    taken: BTreeSet<Ipv4Addr>,
}

impl Ipam {
    /// Starts with every address free.
    ///
    /// Without `gateway` it is the first usable address; without `range` the whole subnet is handed out.
    ///
    /// # Errors
    /// [`IpamError::GatewayOutside`] and [`IpamError::RangeOutside`].
    pub fn new(
        subnet: Ipv4Net,
        gateway: Option<Ipv4Addr>,
        range: Option<Ipv4Net>,
    ) -> Result<Self, IpamError> {
        let subnet = subnet.trunc();
        let gateway = gateway.unwrap_or_else(|| subnet.hosts().next().unwrap_or(subnet.addr()));
        if !usable(subnet, gateway) {
            return Err(IpamError::GatewayOutside { gateway });
        }
        let range = range.map_or(subnet, |range| range.trunc());
        if !subnet.contains(&range) {
            return Err(IpamError::RangeOutside { range });
        }
        Ok(Self { subnet, gateway, range, taken: BTreeSet::new() })
    }

    /// The subnet.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// The gateway, which is never handed out.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Takes the lowest free address of the range.
    ///
    /// # Errors
    /// [`IpamError::Exhausted`].
    pub fn allocate(&mut self) -> Result<Ipv4Addr, IpamError> {
        let first = u32::from(self.range.network());
        let last = u32::from(self.range.broadcast());
        // One walk over the taken addresses finds the first gap.
        let mut taken = self
            .taken
            .range(self.range.network()..=self.range.broadcast())
            .map(|ip| u32::from(*ip))
            .peekable();
        for candidate in first..=last {
            if taken.next_if_eq(&candidate).is_some() {
                continue;
            }
            let ip = Ipv4Addr::from(candidate);
            if ip != self.gateway && usable(self.subnet, ip) {
                self.taken.insert(ip);
                return Ok(ip);
            }
        }
        Err(IpamError::Exhausted)
    }

    /// Takes this address.
    ///
    /// # Errors
    /// [`IpamError::InUse`] and [`IpamError::OutOfRange`].
    pub fn allocate_specific(&mut self, ip: Ipv4Addr) -> Result<(), IpamError> {
        if !usable(self.subnet, ip) {
            return Err(IpamError::OutOfRange { ip });
        }
        if ip == self.gateway || !self.taken.insert(ip) {
            return Err(IpamError::InUse { ip });
        }
        Ok(())
    }

    /// Gives an address back. Returns whether it was taken.
    pub fn release(&mut self, ip: Ipv4Addr) -> bool {
        self.taken.remove(&ip)
    }

    /// Tells how many addresses are taken.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }
}

/// Network and broadcast address belong to nobody, except in nets too small to have them (RFC 3021).
fn usable(subnet: Ipv4Net, ip: Ipv4Addr) -> bool {
    subnet.contains(&ip)
        && (subnet.prefix_len() >= 31 || (ip != subnet.network() && ip != subnet.broadcast()))
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
        assert_eq!(ipam.allocate_specific(ip("10.1.5.0")), Err(IpamError::InUse { ip: ip("10.1.5.0") }));
        for _ in 0..3 {
            ipam.allocate().unwrap();
        }
        assert_eq!(ipam.allocate(), Err(IpamError::Exhausted));
    }

    #[test]
    fn addresses_that_are_nobodys_are_refused() {
        let mut ipam = Ipam::new(net("10.1.0.0/24"), None, None).unwrap();
        for bad in ["10.1.0.0", "10.1.0.255", "10.1.1.1"] {
            assert_eq!(ipam.allocate_specific(ip(bad)), Err(IpamError::OutOfRange { ip: ip(bad) }));
        }
        assert_eq!(ipam.allocate_specific(ip("10.1.0.1")), Err(IpamError::InUse { ip: ip("10.1.0.1") }));
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
        assert_eq!(ipam.allocate(), Err(IpamError::Exhausted));
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
                            prop_assert_eq!(error, IpamError::Exhausted);
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
