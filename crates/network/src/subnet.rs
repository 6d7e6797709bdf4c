//! Which subnet a new network gets.

use std::io;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use crate::netlink::Socket;
use crate::{Error, links};

/// How long to wait for another engine that is just creating a network.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// No subnet is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all predefined address pools have been fully subnetted")]
pub struct SubnetError;

/// Lists the subnets of Docker's default address pools, in Docker's order.
///
/// 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in pieces of /20.
pub fn default_pools() -> impl Iterator<Item = Ipv4Net> {
    let large = (17..32).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|part| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, part * 16, 0), 20));
    large.chain(small)
}

/// Chooses the first subnet of the default pools that overlaps nothing in `avoid`.
///
/// # Errors
/// When all of them are taken.
pub fn choose_subnet(avoid: &[Ipv4Net]) -> Result<Ipv4Net, SubnetError> {
    default_pools().find(|net| !overlaps(avoid, *net)).ok_or(SubnetError)
}

/// Lists what the host's main routing table reaches, default routes left out.
pub fn host_routes() -> Result<Vec<Ipv4Net>, Error> {
    Ok(links::routes(&mut Socket::open()?)?.into_iter().map(|(_, net)| net).collect())
}

/// Like [`host_routes`], without the routes through the interface `name`.
pub fn routes_except(name: &str) -> Result<Vec<Ipv4Net>, Error> {
    let mut socket = Socket::open()?;
    let own = links::all(&mut socket)?.into_iter().find(|link| link.name == name).map(|link| link.index);
    let routes = links::routes(&mut socket)?;
    Ok(routes.into_iter().filter(|(index, _)| Some(*index) != own).map(|(_, net)| net).collect())
}

/// Whether `net` shares an address with any of `others`.
pub fn overlaps(others: &[Ipv4Net], net: Ipv4Net) -> bool {
    others.iter().any(|other| overlap(*other, net))
}

/// Whether two nets share an address.
pub fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
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
    pub fn choose(&self, name: &str, preferred: Option<Ipv4Net>) -> Result<Ipv4Net, Error> {
        self.choose_beside(name, preferred, &[])
    }

    /// The same, avoiding `taken` as well.
    ///
    /// # Errors
    /// [`SubnetError`] when all pools are taken.
    pub fn choose_beside(
        &self,
        name: &str,
        preferred: Option<Ipv4Net>,
        taken: &[Ipv4Net],
    ) -> Result<Ipv4Net, Error> {
        let mut avoid = routes_except(name)?;
        avoid.extend(taken);
        match preferred {
            Some(net) if !overlaps(&avoid, net) => Ok(net.trunc()),
            _ => Ok(choose_subnet(&avoid)?),
        }
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

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_choice_is_dockers() {
        assert_eq!(choose_subnet(&[]), Ok(net("172.17.0.0/16")));
        assert_eq!(choose_subnet(&[net("10.0.0.0/8"), net("172.17.3.0/24")]), Ok(net("172.18.0.0/16")));
        assert_eq!(choose_subnet(&[net("172.16.0.0/12")]), Ok(net("192.168.0.0/20")));
    }

    #[test]
    fn exhausted_pools_are_an_error_in_dockers_words() {
        let error = choose_subnet(&[net("172.16.0.0/12"), net("192.168.0.0/16")]).unwrap_err();
        assert_eq!(error.to_string(), "all predefined address pools have been fully subnetted");
    }

    proptest! {
        #[test]
        fn a_chosen_subnet_overlaps_nothing(avoid in prop::collection::vec((any::<u32>(), 9u8..=32), 0..40)) {
            let avoid: Vec<_> =
                avoid.into_iter().map(|(ip, len)| Ipv4Net::new(ip.into(), len).unwrap()).collect();
            if let Ok(chosen) = choose_subnet(&avoid) {
                for other in &avoid {
                    prop_assert!(!chosen.contains(&other.addr()) && !other.contains(&chosen.addr()));
                }
            }
        }
    }
}
