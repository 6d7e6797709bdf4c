//! Who listens: the sockets that wait for connections and datagrams, and the processes that hold them.
//!
//! Both ends of a published port need to know: the host names the process that is in the way, and an explanation of a
//! dead connection looks for the listener inside the container. The kernel's tables are read as text (`/proc/net/tcp` and
//! its siblings, proc_net_tcp documentation of the kernel); systems without them tell nothing.
#![forbid(unsafe_code)]

mod bind;
mod owner;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use bind::{bind_tcp, bind_udp, refusal};
pub use owner::Owner;

/// What is listened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A socket that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Where it waits.
    pub address: SocketAddr,
    /// Its number in the kernel.
    pub inode: u64,
}

/// Lists the sockets of a process's network that wait, by address; nothing where that can't be read.
///
/// `process` is its directory below `/proc`, such as `/proc/self` or `/proc/42`.
#[must_use]
pub fn of_process(process: &Path, transport: Transport) -> Vec<Listener> {
    let tables = match transport {
        Transport::Tcp => ["net/tcp", "net/tcp6"],
        Transport::Udp => ["net/udp", "net/udp6"],
    };
    let mut all: Vec<Listener> = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(process.join(table)).ok())
        .flat_map(|text| table::parse(&text, transport).collect::<Vec<_>>())
        .collect();
    all.sort_by_key(|listener| listener.address);
    all
}

/// Lists the sockets of this process's own network that keep `address` from being bound.
#[must_use]
pub fn in_the_way(address: SocketAddr, transport: Transport) -> Vec<Listener> {
    let mut all = of_process(Path::new("/proc/self"), transport);
    all.retain(|listener| clash(listener.address, address));
    all
}

/// Finds the process that keeps `address` from being bound.
///
/// Other users' processes keep their sockets to themselves: then there is no answer.
#[must_use]
pub fn owner_of(address: SocketAddr, transport: Transport) -> Option<Owner> {
    in_the_way(address, transport).into_iter().find_map(|listener| owner::find(listener.inode))
}

/// Finds the process that holds a socket of this process's own network.
#[must_use]
pub fn owner(listener: &Listener) -> Option<Owner> {
    owner::find(listener.inode)
}

/// Two sockets clash on the same port when either takes every address or both take the same one.
///
/// Every IPv4 address and one IPv6 address do not clash; every IPv6 address may mean every IPv4 address too.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_clash_when_one_takes_what_the_other_wants() {
        let clash = |a: &str, b: &str| clash(a.parse().unwrap(), b.parse().unwrap());
        assert!(clash("0.0.0.0:80", "127.0.0.1:80"));
        assert!(clash("127.0.0.1:80", "0.0.0.0:80"));
        assert!(clash("[::]:80", "127.0.0.1:80"));
        assert!(clash("[::1]:80", "[::]:80"));
        assert!(!clash("0.0.0.0:80", "[::1]:80"));
        assert!(!clash("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!clash("127.0.0.1:80", "127.0.0.1:81"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn own_sockets_are_found_by_any_clashing_address() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let (tcp, udp) = ((tcp.local_addr().unwrap(), &tcp), (udp.local_addr().unwrap(), &udp));
        let everywhere = SocketAddr::new("0.0.0.0".parse().unwrap(), tcp.0.port());
        for asked in [tcp.0, everywhere] {
            assert_eq!(owner_of(asked, Transport::Tcp).unwrap().pid, std::process::id());
        }
        assert_eq!(owner_of(udp.0, Transport::Udp).unwrap().pid, std::process::id());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(owner_of(free, Transport::Tcp), None);
    }
}
