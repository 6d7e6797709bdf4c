use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::link::InfoKind;

use crate::endpoint::{mac_of, mac_of_ipv6};
use crate::netlink::Socket;
use crate::{AddressPool, Endpoint, Error, SubnetLock, links, netns, subnet, sysctl};

/// What every router of a link may have as its own address there, as Docker gives it.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// How a bridge shall look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// The bridge's own addresses, at most one of each family, with the prefixes of its containers' subnets. Containers
    /// use them as gateways.
    pub addresses: Vec<IpNet>,
    /// The MTU of the bridge and of everything attached, in bytes.
    pub mtu: u32,
    /// Who made it, written into the kernel's link so that [`remove_stale_bridges`](crate::remove_stale_bridges) finds it.
    pub owner: String,
    /// Whether the containers may talk to each other.
    pub neighbours: Neighbours,
}

impl BridgeConfig {
    /// The IPv4 subnet and the bridge's address in it.
    pub fn ipv4(&self) -> Option<(Ipv4Net, Ipv4Addr)> {
        self.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some((net.trunc(), net.addr())),
            IpNet::V6(_) => None,
        })
    }

    /// The bridge's hardware address, which follows from its first address, or its name.
    pub(crate) fn mac(&self) -> [u8; 6] {
        match self.addresses.first().map(IpNet::addr) {
            Some(IpAddr::V4(ip)) => mac_of(ip),
            Some(IpAddr::V6(ip)) => mac_of_ipv6(ip),
            None => {
                let sum = self.name.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
                mac_of(sum.into())
            }
        }
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|net| matches!(net, IpNet::V6(_)))
    }
}

/// Whether the containers of a bridge may talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// They may.
    Reachable,
    /// They reach the bridge itself and what is behind it, not each other.
    Isolated,
}

/// A bridge in the network namespace of the thread that called [`Bridge::ensure`].
pub struct Bridge {
    config: BridgeConfig,
    index: u32,
    socket: Mutex<Socket>,
}

impl Bridge {
    /// Creates the bridge, or brings an existing one of that name into the wanted state.
    ///
    /// Also switches on what containers need to reach each other and the world: IPv4 forwarding, and (where the
    /// `br_netfilter` module is loaded) no firewall rules of the host for frames that only cross the bridge.
    ///
    /// # Errors
    /// [`Error::SubnetInUse`] when another interface routes a part of the subnet: a new bridge is then removed again.
    pub fn ensure(config: &BridgeConfig) -> Result<Self, Error> {
        links::check_name(&config.name)?;
        let mut socket = Socket::open()?;
        let (index, is_new) = match links::by_name(&mut socket, &config.name) {
            Ok(link) if link.kind == Some(InfoKind::Bridge) => {
                socket.request(links::update_bridge(link.index, config))?;
                (link.index, false)
            }
            Ok(link) => return Err(Error::NotABridge { name: link.name }),
            Err(error) if error.is_not_found() => {
                socket.request(links::new_bridge(config))?;
                let index = links::by_name(&mut socket, &config.name)?.index;
                socket.request(links::update_bridge(index, config))?;
                (index, true)
            }
            Err(error) => return Err(error),
        };
        if let Err(error) = configure(&mut socket, index, config) {
            if is_new {
                // The first error is the one to tell.
                let _ = socket.request(links::delete(&config.name));
            }
            return Err(error);
        }
        Ok(Self { config: config.clone(), index, socket: Mutex::new(socket) })
    }

    /// Creates a bridge on the first subnet that nothing on the host uses, `preferred` before those of `pools`.
    ///
    /// The choice and the creation are one step for all engines of this host: a lock that dies with its holder (an
    /// abstract socket name) keeps two of them from choosing the same subnet. The gateway is the subnet's first address.
    ///
    /// # Errors
    /// [`SubnetError`](crate::SubnetError) when all pools are taken.
    pub fn create_on_free_subnet(
        name: &str,
        owner: &str,
        mtu: u32,
        preferred: Option<Ipv4Net>,
        pools: &[AddressPool],
    ) -> Result<Self, Error> {
        let lock = SubnetLock::acquire()?;
        let subnet = lock.choose(name, preferred, pools)?;
        let gateway = subnet.hosts().next().unwrap_or(subnet.addr());
        Self::ensure(&BridgeConfig {
            name: name.into(),
            addresses: Ipv4Net::new(gateway, subnet.prefix_len()).map(IpNet::V4).into_iter().collect(),
            mtu,
            owner: owner.into(),
            neighbours: Neighbours::Reachable,
        })
    }

    /// Tells how the bridge was configured.
    pub fn config(&self) -> &BridgeConfig {
        &self.config
    }

    /// Connects a namespace: creates the veth pair, and gives the inner end its name, address and default route.
    ///
    /// On error nothing is left behind.
    pub fn attach(&self, endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<(), Error> {
        links::check_name(&endpoint.host_name)?;
        links::check_name(&endpoint.container_ifname)?;
        self.socket().request(links::new_veth(endpoint, self.index, self.config.mtu, netns))?;
        if self.config.neighbours == Neighbours::Isolated {
            let mut socket = self.socket();
            let port = links::by_name(&mut socket, &endpoint.host_name)?.index;
            socket.request(links::isolate_port(port, &endpoint.host_name))?;
        }
        let inside = || links::configure_inside(endpoint);
        match netns::enter(netns, inside) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) | Err(error) => {
                // The first error is the one to tell.
                let _ = self.detach(&endpoint.host_name);
                Err(error)
            }
        }
    }

    /// Deletes the veth pair with this outer name; a pair that is gone already is fine.
    ///
    /// The kernel lets the caller wait for a grace period here. Dropping the last reference to the container's namespace
    /// removes the pair too, in the background.
    pub fn detach(&self, host_name: &str) -> Result<(), Error> {
        match self.socket().request(links::delete(host_name)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes the bridge; one that is gone already is fine.
    pub fn delete(self) -> Result<(), Error> {
        self.detach(&self.config.name)
    }

    fn socket(&self) -> std::sync::MutexGuard<'_, Socket> {
        // A panic between send and receive leaves at most answers with old sequence numbers, which are passed over.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn configure(socket: &mut Socket, index: u32, config: &BridgeConfig) -> Result<(), Error> {
    let mut wanted = config.addresses.clone();
    if config.has_ipv6() {
        sysctl::set(&format!("ipv6/conf/{}/disable_ipv6", config.name), "0")?;
        sysctl::set_if_present(&format!("ipv6/conf/{}/accept_ra", config.name), "0")?;
        wanted.push(IpNet::new_assert(LINK_LOCAL.into(), 64));
    }
    // The kernel's own link-local address stays beside it.
    let is_kernels = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
    let present: Vec<IpNet> = links::addresses(socket)?
        .into_iter()
        .filter(|(at, net)| *at == index && (wanted.contains(net) || !is_kernels(net)))
        .map(|(_, net)| net)
        .collect();
    for address in present.iter().filter(|address| !wanted.contains(address)) {
        socket.request(links::delete_address(index, *address))?;
    }
    let missing = wanted.into_iter().filter(|address| !present.contains(address)).collect::<Vec<_>>();
    let routes = if missing.is_empty() { Vec::new() } else { links::routes(socket)? };
    for address in missing {
        let taken = routes.iter().find(|(at, net)| *at != index && subnet::overlap(*net, address.trunc()));
        if let Some((_, other)) = taken.filter(|_| !is_kernels(&address)) {
            return Err(Error::SubnetInUse { subnet: address.trunc(), other: *other });
        }
        socket.request(links::new_address(index, address))?;
    }
    sysctl::set("ipv4/ip_forward", "1")?;
    // Whether IP's packet filters see what stays on a bridge (`bridge-nf-call-…`) is for all bridges of a machine, and those
    // of others may depend on it: it stays as it is. Ours work either way.
    if config.has_ipv6() { sysctl::forward_ipv6() } else { Ok(()) }
}
