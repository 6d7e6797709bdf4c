//! Container networks: bridges, veth pairs, network namespaces and address management.
//!
//! Everything here is synchronous: a request to the kernel over rtnetlink is answered before `send` returns to user
//! space, so there is nothing to wait for. The pieces, from the outside in:
//!
//! - [`Ipam`] hands out the addresses of one subnet; [`choose_subnet`] finds a subnet that the host does not use.
//! - [`NetNs`] is a network namespace kept alive by one descriptor only: no bind mount outlives a killed engine.
//! - [`Bridge`] is a Linux bridge; [`Bridge::attach`] puts a namespace on it through a veth pair.
//! - [`Firewall`] is the engine's own nftables table: networks apart from each other, and their way out.
//! - [`dns`] reads and writes the messages of the resolver that containers ask.
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
pub mod dns;
mod endpoint;
mod error;
mod firewall;
mod ipam;
mod links;
mod netlink;
mod netns;
mod nft;
mod stale;
mod subnet;
mod sysctl;

pub use bridge::{Bridge, BridgeConfig, Neighbours};
pub use endpoint::{Endpoint, mac_of};
pub use error::Error;
pub use firewall::{Firewall, Outside, Proxy, Zone, redirect_resolver};
pub use ipam::{Ipam, IpamError};
pub use netns::{NetNs, bring_loopback_up};
pub use stale::{remove_stale_bridges, remove_stale_links};
pub use subnet::{SubnetError, SubnetLock, choose_subnet, default_pools, host_routes};
