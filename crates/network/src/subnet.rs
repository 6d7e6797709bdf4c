//! Which subnet a new network gets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::netlink::Socket;
use crate::{Error, links};

/// How long to wait for another engine that is just creating a network.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// No subnet is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all predefined address pools have been fully subnetted")]
pub struct SubnetError;

/// Where subnets of new networks come from: as many of `size` bits as fit into `base`, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    /// What is cut into subnets.
    pub base: IpNet,
    /// The length of their prefixes.
    pub size: u8,
}

impl AddressPool {
    /// The subnets, if the pool is of their family.
    fn ipv4(self) -> impl Iterator<Item = Ipv4Net> {
        let base = match self.base {
            IpNet::V4(base) => base.trunc().subnets(self.size).ok(),
            IpNet::V6(_) => None,
        };
        base.into_iter().flatten()
    }

    fn ipv6(self) -> impl Iterator<Item = Ipv6Net> {
        let base = match self.base {
            IpNet::V6(base) => base.trunc().subnets(self.size).ok(),
            IpNet::V4(_) => None,
        };
        base.into_iter().flatten()
    }
}

/// Lists the subnets of Docker's default address pools, in Docker's order.
///
/// 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in pieces of /20.
pub fn default_pools() -> Vec<AddressPool> {
    let pool = |a, b, prefix, size| AddressPool {
        base: IpNet::new_assert(Ipv4Addr::new(a, b, 0, 0).into(), prefix),
        size,
    };
    let large = (17..32).map(|second| pool(172, second, 16, 16));
    large.chain([pool(192, 168, 16, 20)]).collect()
}

/// The pool of unique local addresses (RFC 4193) that belongs to a machine, in subnets of /64.
///
/// `seed` should differ from machine to machine and stay the same on each.
pub fn unique_local_pool(seed: &str) -> AddressPool {
    // FNV-1a: 40 bits of it are the global id.
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
    let word = |high, low| u16::from_be_bytes([high, low]);
    let base = Ipv6Addr::new(word(0xfd, a), word(b, c), word(d, e), 0, 0, 0, 0, 0);
    AddressPool { base: IpNet::new_assert(base.into(), 48), size: 64 }
}

/// Chooses the first subnet of the pools that overlaps nothing in `avoid`.
///
/// # Errors
/// When all of them are taken.
pub fn choose_subnet(pools: &[AddressPool], avoid: &[IpNet]) -> Result<Ipv4Net, SubnetError> {
    let mut candidates = pools.iter().flat_map(|pool| pool.ipv4());
    candidates.find(|net| !overlaps(avoid, IpNet::V4(*net))).ok_or(SubnetError)
}

/// The same for IPv6.
///
/// # Errors
/// When all of them are taken.
pub fn choose_subnet_ipv6(pools: &[AddressPool], avoid: &[IpNet]) -> Result<Ipv6Net, SubnetError> {
    let mut candidates = pools.iter().flat_map(|pool| pool.ipv6());
    candidates.find(|net| !overlaps(avoid, IpNet::V6(*net))).ok_or(SubnetError)
}

/// Lists what the host's main routing table reaches, default routes left out.
pub fn host_routes() -> Result<Vec<IpNet>, Error> {
    Ok(links::routes(&mut Socket::open()?)?.into_iter().map(|(_, net)| net).collect())
}

/// Lists the addresses of the host's interfaces with their prefixes.
///
/// # Errors
/// When the kernel does not tell.
pub fn host_addresses() -> Result<Vec<IpNet>, Error> {
    Ok(links::addresses(&mut Socket::open()?)?.into_iter().map(|(_, net)| net).collect())
}

/// Like [`host_routes`], without the routes through the interface `name`.
pub fn routes_except(name: &str) -> Result<Vec<IpNet>, Error> {
    let mut socket = Socket::open()?;
    let own = links::all(&mut socket)?.into_iter().find(|link| link.name == name).map(|link| link.index);
    let routes = links::routes(&mut socket)?;
    Ok(routes.into_iter().filter(|(index, _)| Some(*index) != own).map(|(_, net)| net).collect())
}

/// Whether `net` shares an address with any of `others`.
pub fn overlaps(others: &[IpNet], net: IpNet) -> bool {
    others.iter().any(|other| overlap(*other, net))
}

/// Whether two nets share an address.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Held while a subnet is chosen and taken, by one engine per network namespace at a time.
///
/// It dies with its holder: it is an abstract socket name.
pub struct SubnetLock {
    _listener: UnixListener,
}

impl SubnetLock {
    /// Chooses a subnet for the bridge `name` that nothing on the host uses: `preferred`, else from Docker's pools.
    ///
    /// # Errors
    /// [`SubnetError`] when all pools are taken.
    pub fn choose(
        &self,
        name: &str,
        preferred: Option<Ipv4Net>,
        pools: &[AddressPool],
    ) -> Result<Ipv4Net, Error> {
        let avoid = routes_except(name)?;
        match preferred {
            Some(net) if !overlaps(&avoid, IpNet::V4(net)) => Ok(net.trunc()),
            _ => Ok(choose_subnet(pools, &avoid)?),
        }
    }

    /// Lists what a new network must stay off: the host's routes and `taken`.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn occupied(&self, taken: &[IpNet]) -> Result<Vec<IpNet>, Error> {
        let mut all = host_routes()?;
        all.extend(taken);
        Ok(all)
    }

    /// Waits until no other engine holds the lock.
    pub fn acquire() -> Result<Self, Error> {
        let refused = |source| Error::Refused { op: "lock", object: "the choice of a subnet".into(), source };
        let name = SocketAddr::from_abstract_name("skiff/choose-subnet").map_err(refused)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match UnixListener::bind_addr(&name) {
                Ok(listener) => return Ok(Self { _listener: listener }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(source) => return Err(refused(source)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn choose(avoid: &[IpNet]) -> Result<IpNet, SubnetError> {
        choose_subnet(&default_pools(), avoid).map(IpNet::V4)
    }

    #[test]
    fn the_first_choice_is_dockers() {
        assert_eq!(choose(&[]), Ok(net("172.17.0.0/16")));
        assert_eq!(choose(&[net("10.0.0.0/8"), net("172.17.3.0/24")]), Ok(net("172.18.0.0/16")));
        assert_eq!(choose(&[net("172.16.0.0/12")]), Ok(net("192.168.0.0/20")));
        assert_eq!(choose(&[net("172.16.0.0/12"), net("192.168.0.0/20")]), Ok(net("192.168.16.0/20")));
    }

    #[test]
    fn exhausted_pools_are_an_error_in_dockers_words() {
        let error = choose(&[net("172.16.0.0/12"), net("192.168.0.0/16")]).unwrap_err();
        assert_eq!(error.to_string(), "all predefined address pools have been fully subnetted");
    }

    #[test]
    fn unique_local_subnets_are_a_machines_own_and_stay_the_same() {
        let pool = unique_local_pool("a machine");
        assert_eq!(pool, unique_local_pool("a machine"));
        assert_ne!(pool, unique_local_pool("another machine"));
        let first = choose_subnet_ipv6(&[pool], &[]).unwrap();
        assert!(first.addr().is_unique_local() && first.prefix_len() == 64);
        let second = choose_subnet_ipv6(&[pool], &[IpNet::V6(first)]).unwrap();
        assert!(pool.base.contains(&IpNet::V6(second)) && first != second);
    }

    #[test]
    fn pools_of_ones_own_are_cut_in_order() {
        let pools = [
            AddressPool { base: net("10.50.0.0/22"), size: 24 },
            AddressPool { base: net("fd00::/60"), size: 64 },
        ];
        assert_eq!(choose_subnet(&pools, &[net("10.50.0.0/24")]).map(IpNet::V4), Ok(net("10.50.1.0/24")));
        assert_eq!(choose_subnet(&pools, &[net("10.50.0.0/16")]), Err(SubnetError));
        assert_eq!(
            choose_subnet_ipv6(&pools, &[net("fd00::/64")]).map(IpNet::V6),
            Ok(net("fd00:0:0:1::/64"))
        );
    }

    proptest! {
        #[test]
        fn a_chosen_subnet_overlaps_nothing(avoid in prop::collection::vec((any::<u32>(), 9u8..=32), 0..40)) {
            let avoid: Vec<_> = avoid
                .into_iter()
                .map(|(ip, len)| IpNet::new(Ipv4Addr::from(ip).into(), len).unwrap())
                .collect();
            if let Ok(chosen) = choose(&avoid) {
                for other in &avoid {
                    prop_assert!(!chosen.contains(&other.addr()) && !other.contains(&chosen.addr()));
                }
            }
        }
    }
}
