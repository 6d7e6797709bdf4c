use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use ipnet::Ipv4Net;
use netlink_packet_route::link::InfoKind;

use crate::netlink::Socket;
use crate::{Endpoint, Error, SubnetLock, links, netns, subnet, sysctl};

/// How a bridge shall look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// The subnet of its containers.
    pub subnet: Ipv4Net,
    /// The bridge's own address, which containers use as gateway.
    pub gateway: Ipv4Addr,
    /// The MTU of the bridge and of everything attached, in bytes.
    pub mtu: u32,
    /// Who made it, written into the kernel's link so that [`remove_stale_bridges`](crate::remove_stale_bridges) finds it.
    pub owner: String,
    /// Whether the containers may talk to each other.
    pub neighbours: Neighbours,
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

    /// Creates a bridge on the first subnet that nothing on the host uses, `preferred` before Docker's default pools.
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
    ) -> Result<Self, Error> {
        let lock = SubnetLock::acquire()?;
        let subnet = lock.choose(name, preferred)?;
        let gateway = subnet.hosts().next().unwrap_or(subnet.addr());
        Self::ensure(&BridgeConfig {
            name: name.into(),
            subnet,
            gateway,
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
        let inside = || {
            let mut socket = Socket::open()?;
            let index = links::by_name(&mut socket, &endpoint.container_ifname)?.index;
            let mut batch = vec![
                links::set_up(index, &endpoint.container_ifname),
                links::new_address(index, endpoint.ip, endpoint.prefix_len),
            ];
            batch.extend(endpoint.gateway.map(|gateway| links::new_default_route(index, gateway)));
            socket.batch(batch)
        };
        match netns::enter(netns, inside) {
            Ok(Ok(_)) => Ok(()),
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
    let wanted = Ipv4Net::new(config.gateway, config.subnet.prefix_len()).unwrap_or(config.subnet);
    let mut present = false;
    for (_, address) in links::addresses(socket)?.into_iter().filter(|(at, _)| *at == index) {
        if address == wanted {
            present = true;
        } else {
            socket.request(links::delete_address(index, address.addr(), address.prefix_len()))?;
        }
    }
    if !present {
        let routes = links::routes(socket)?;
        if let Some((_, other)) =
            routes.iter().find(|(at, net)| *at != index && subnet::overlap(*net, config.subnet))
        {
            return Err(Error::SubnetInUse { subnet: config.subnet, other: *other });
        }
        socket.request(links::new_address(index, wanted.addr(), wanted.prefix_len()))?;
    }
    sysctl::set("ipv4/ip_forward", "1")?;
    sysctl::set_if_present("bridge/bridge-nf-call-iptables", "0")?;
    sysctl::set_if_present("bridge/bridge-nf-call-arptables", "0")
}
