//! Container networks: bridges, veth pairs, network namespaces and address management.
//!
//! Everything here is synchronous: a request to the kernel over rtnetlink is answered before `send` returns to user
//! space, so there is nothing to wait for. The pieces, from the outside in:
//!
//! - [`Ipam`] hands out the addresses of one subnet; [`choose_subnet`] finds a subnet that the host does not use.
//! - [`NetNs`] is a network namespace kept alive by one descriptor only: no bind mount outlives a killed engine.
//! - [`Bridge`] is a Linux bridge; [`Bridge::attach`] puts a namespace on it through a veth pair.
//! - [`Parent`] is an interface of the host that containers share (macvlan, ipvlan).
//! - [`Firewall`] is the engine's own nftables tables: networks apart from each other, and their way out;
//!   [`Forwards`] are the published ports in it, as long as the engine lives.
//! - [`forget_flows`] makes the kernel forget what led to containers that are gone; [`LetThrough`] has other firewalls of
//!   the machine pass what this one has decided about.
//! - [`outside`] catches what leaves a machine without a network card, so that a program can carry it.
//! - [`remove_stale_links`] and [`remove_stale_bridges`] delete what a previous engine left behind.
//!
//! # What an attachment costs
//!
//! `attach` sends one message that creates both ends of the pair, the inner one directly inside the container's namespace
//! under its final name, the outer one up and on the bridge; then, from a short-lived thread inside the namespace, one
//! batch with the link's state, the address and the default route. Deleting a link makes the kernel wait for an RCU grace
//! period (tens of milliseconds), whereas a namespace whose last descriptor goes away is torn down by a kernel worker
//! together with its links. So the fast way to detach a container is to drop its [`NetNs`].
#![forbid(unsafe_code)]

mod bridge;
mod conntrack;
mod endpoint;
mod error;
mod firewall;
mod forwards;
mod ipam;
mod let_through;
mod links;
mod netlink;
mod netns;
mod nft;
pub mod outside;
mod parent;
mod stale;
mod subnet;
mod sysctl;

pub use bridge::{Bridge, BridgeConfig, Neighbours};
pub use conntrack::{Direction, Flow, forget_flows};
pub use endpoint::{Endpoint, mac_of, mac_of_ipv6, mac_text};
pub use error::Error;
pub use firewall::{Firewall, Inside, Outside, Zone, redirect_resolver};
pub use forwards::{Forward, Forwards};
pub use ipam::{Ipam, IpamError, Subnet};
pub use let_through::{LetThrough, remove_stale_chains};
pub use netns::{NetNs, bring_loopback_up};
pub use nft::{Family, Protocol};
pub use parent::{Ipvlan, IpvlanFlag, Macvlan, Parent, ParentConfig, Sharing};
pub use stale::{remove_stale_bridges, remove_stale_links};
pub use subnet::{
    AddressPool, SubnetError, SubnetLock, choose_subnet, choose_subnet_ipv6, default_pools, host_addresses,
    host_routes, unique_local_pool,
};
