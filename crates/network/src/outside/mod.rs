//! The way out of a machine without a network card: packets that would leave are caught and given to a program.
//!
//! ```text
//!  container ─► bridge ─┐ prerouting                                      ┌─► transparent listener, TCP
//!                       ├─ leads to the tunnel? ─ SYN: held in a queue ───┤
//!  own process ─► out ──┘   (own ones: marked,      until decided         ├─► transparent listener, UDP
//!                            routed to loopback)                          │
//!                            anything else ───────────────────────────────┴─► the tunnel: ICMP echo
//! ```
//!
//! - [`Catcher`] is the packet filter's part, [`Way`] the interface and the routes, [`SynQueue`] the held SYNs.
//! - A SYN is answered only when it is known whether the connection exists: let through to the listener, reset, answered
//!   with the ICMP error that the real network gave, or dropped, so that the client tries again ([`Verdict`]).
//! - Both families go the same way, each through routes, a table and listeners of its own.
//! - [`neighbours`] tells which addresses are of the same card, and so of the same container.
//! - [`packet`] reads and writes what goes through the tunnel.

mod catch;
mod neighbours;
pub mod packet;
mod queue;
mod way;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use catch::Catcher;
pub use neighbours::neighbours;
pub use queue::{Held, SynQueue, Verdict};
pub use way::Way;

/// The tunnel's interface.
pub const INTERFACE: &str = "skiff0";
/// The subnet of the tunnel. Docker Desktop uses the same, so that what was written for its addresses works.
pub const SUBNET: (Ipv4Addr, u8) = (Ipv4Addr::new(192, 168, 65, 0), 24);
/// This machine's own address there, from which its own processes leave.
pub const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 65, 1);
/// The same of IPv6, with the length of the subnet.
pub const OWN_ADDRESS6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfdc4, 0xf303, 0x9324, 0, 0, 0, 0, 1), 64);
/// The name server that everybody here can ask.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 65, 7);
/// Where the transparent listeners are. Containers on this machine's own network may want any usual port.
pub const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
/// The same of IPv6.
pub const LISTENER6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 9);

/// Whether the kernel has IPv6.
pub fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").is_dir()
}

/// The mark of packets that belong to the listeners.
const MARK: u32 = 0x5cff_0001;
/// The routing table that delivers marked packets here.
const TABLE: u32 = 0x5cff;
/// The queue of held SYNs.
const QUEUE: u16 = 0x5cff;
