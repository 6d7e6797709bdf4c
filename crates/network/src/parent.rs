use std::os::fd::BorrowedFd;

use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, IpVlanFlags, IpVlanMode, LinkAttribute, LinkInfo,
    MacVlanMode,
};

use crate::netlink::Socket;
use crate::{Endpoint, Error, NetNs, links, netns};

/// How containers share an interface of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Each has a hardware address of its own.
    Macvlan(Macvlan),
    /// All have the hardware address of the interface.
    Ipvlan(Ipvlan, IpvlanFlag),
}

/// Who a macvlan interface reaches on the same parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Macvlan {
    /// The others.
    Bridge,
    /// Nobody.
    Private,
    /// The others, through the switch outside.
    Vepa,
    /// It has the parent for itself.
    Passthru,
}

/// At which layer an ipvlan interface shares its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipvlan {
    /// As if it were on the same wire.
    L2,
    /// The parent routes.
    L3,
    /// The parent routes, and its packet filter sees the packets.
    L3s,
}

/// Who an ipvlan interface reaches on the same parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpvlanFlag {
    /// The others.
    Bridge,
    /// Nobody.
    Private,
    /// The others, through the switch outside.
    Vepa,
}

/// A network without a bridge: its containers share an interface of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentConfig {
    /// The interface. One that is not there and is named `PARENT.NUMBER` is made: a VLAN of `PARENT`. The name of a
    /// network without an interface is that of a dummy.
    pub name: String,
    /// Whether the interface is a dummy that is made for the network.
    pub dummy: bool,
    /// How it is shared.
    pub sharing: Sharing,
    /// Who makes interfaces, written into the kernel's link.
    pub owner: String,
}

/// An interface of the host that containers share.
pub struct Parent {
    config: ParentConfig,
    index: u32,
    /// Whether it was made for the network, and goes with it.
    is_ours: bool,
}

impl Parent {
    /// Finds the interface, or makes it.
    ///
    /// # Errors
    /// [`Error::NoParent`] when there is none of the name, and none can be made.
    pub fn ensure(config: &ParentConfig) -> Result<Self, Error> {
        links::check_name(&config.name)?;
        let mut socket = Socket::open()?;
        let name = config.name.as_str();
        match links::by_name(&mut socket, name) {
            Ok(link) => {
                let is_ours = link.alias.as_deref() == Some(config.owner.as_str());
                return Ok(Self { config: config.clone(), index: link.index, is_ours });
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        if config.dummy {
            match socket.request(links::new_dummy(name)) {
                // Kernels without dummies have pairs: one end stands for the wire.
                Err(error) if error.is_not_supported() => {
                    socket.request(links::new_wire(name, &peer_of(name)))?;
                    let peer = links::by_name(&mut socket, &peer_of(name))?.index;
                    socket.request(links::set_up(peer, &peer_of(name)))?;
                }
                outcome => drop(outcome?),
            }
        } else {
            let missing = || Error::NoParent { name: name.to_owned() };
            let (base, id) = name.rsplit_once('.').ok_or_else(missing)?;
            let id = id.parse().ok().filter(|id| (1..4095).contains(id)).ok_or_else(missing)?;
            let base = links::by_name(&mut socket, base).map_err(|_| missing())?.index;
            socket.request(links::new_vlan(name, base, id))?;
        }
        let index = links::by_name(&mut socket, name)?.index;
        socket.request(links::mark(index, name, &config.owner))?;
        Ok(Self { config: config.clone(), index, is_ours: true })
    }

    /// Gives a namespace its part of the interface. On error nothing is left behind.
    pub fn attach(&self, endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<(), Error> {
        links::check_name(&endpoint.container_ifname)?;
        let data = match self.config.sharing {
            Sharing::Macvlan(mode) => InfoData::MacVlan(vec![InfoMacVlan::Mode(match mode {
                Macvlan::Bridge => MacVlanMode::Bridge,
                Macvlan::Private => MacVlanMode::Private,
                Macvlan::Vepa => MacVlanMode::Vepa,
                Macvlan::Passthru => MacVlanMode::Passthrough,
            })]),
            Sharing::Ipvlan(mode, flag) => InfoData::IpVlan(vec![
                InfoIpVlan::Mode(match mode {
                    Ipvlan::L2 => IpVlanMode::L2,
                    Ipvlan::L3 => IpVlanMode::L3,
                    Ipvlan::L3s => IpVlanMode::L3S,
                }),
                InfoIpVlan::Flags(match flag {
                    IpvlanFlag::Bridge => IpVlanFlags::empty(),
                    IpvlanFlag::Private => IpVlanFlags::Private,
                    IpvlanFlag::Vepa => IpVlanFlags::Vepa,
                }),
            ]),
        };
        let (kind, mac) = match self.config.sharing {
            Sharing::Macvlan(_) => (InfoKind::MacVlan, Some(endpoint.mac)),
            Sharing::Ipvlan(..) => (InfoKind::IpVlan, None),
        };
        let mut attributes = vec![LinkAttribute::Link(self.index)];
        attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
        Socket::open()?.request(links::new_inside(&endpoint.container_ifname, attributes, netns))?;
        let configured = netns::enter(netns, || links::configure_inside(endpoint));
        match configured {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) | Err(error) => {
                // The first error is the one to tell.
                let _ = netns::enter(netns, || delete_own(&endpoint.container_ifname));
                Err(error)
            }
        }
    }

    /// Deletes the interface if it was made for the network; one that is gone already is fine.
    pub fn delete(self) -> Result<(), Error> {
        if !self.is_ours {
            return Ok(());
        }
        match Socket::open()?.request(links::delete(&self.config.name)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// The name of the other end of a pair that stands for a dummy.
fn peer_of(name: &str) -> String {
    match name.strip_prefix("dm-") {
        Some(rest) => format!("dp-{rest}"),
        None => format!("{}p", &name[..name.len().min(14)]),
    }
}

impl NetNs {
    /// Deletes an interface inside the namespace; one that is gone already is fine.
    pub fn delete_interface(&self, name: &str) -> Result<(), Error> {
        self.enter(|| delete_own(name))?
    }
}

/// Deletes an interface of the calling thread's namespace.
fn delete_own(name: &str) -> Result<(), Error> {
    match Socket::open()?.request(links::delete(name)) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
