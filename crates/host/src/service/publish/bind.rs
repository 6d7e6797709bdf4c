//! The host's socket of a published port.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use skiff_link::Protocol;
use skiff_listeners::{bind_tcp, bind_udp};
use tokio::net::{TcpListener, UdpSocket};

/// Ports below this one need privileges on some systems.
const FIRST_FREE: u16 = 1024;

pub(super) enum Socket {
    Tcp(TcpListener),
    Udp(Arc<UdpSocket>),
}

/// A socket that waits.
pub(super) struct Bound {
    pub(super) socket: Socket,
    /// What was asked for, with the port that was chosen.
    pub(super) address: SocketAddr,
    /// Set when it takes every address although loopback was asked for: others are to be turned away.
    pub(super) loopback_only: bool,
}

/// Binds the address.
///
/// macOS lets every user bind low ports on every address, and on loopback nobody: there the socket takes every address
/// and turns away who is not from this machine.
pub(super) fn bind(address: SocketAddr, protocol: Protocol) -> io::Result<Bound> {
    match bind_one(address, protocol) {
        Err(error) if cfg!(target_os = "macos") && needs_every_address(&error, address) => {
            let every: IpAddr = match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let bound = bind_one(SocketAddr::new(every, address.port()), protocol)?;
            Ok(Bound { address, loopback_only: true, ..bound })
        }
        outcome => outcome,
    }
}

/// Listens on a loopback address; tells the address, and whether others must be turned away.
pub(crate) fn bind_loopback(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr, bool)> {
    let Bound { socket, address, loopback_only } = bind(address, Protocol::Tcp)?;
    match socket {
        Socket::Tcp(listener) => Ok((listener, address, loopback_only)),
        Socket::Udp(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn needs_every_address(error: &io::Error, address: SocketAddr) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
        && address.ip().is_loopback()
        && (1..FIRST_FREE).contains(&address.port())
}

fn bind_one(address: SocketAddr, protocol: Protocol) -> io::Result<Bound> {
    let (socket, address) = match protocol {
        Protocol::Tcp => {
            let listener = TcpListener::from_std(bind_tcp(address)?)?;
            let address = listener.local_addr()?;
            (Socket::Tcp(listener), address)
        }
        Protocol::Udp => {
            let socket = UdpSocket::from_std(bind_udp(address)?)?;
            let address = socket.local_addr()?;
            (Socket::Udp(Arc::new(socket)), address)
        }
    };
    Ok(Bound { socket, address, loopback_only: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_low_ports_of_loopback_are_worth_a_second_try() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let needs = |error: &io::Error, address: &str| needs_every_address(error, address.parse().unwrap());
        assert!(needs(&denied, "127.0.0.1:80"));
        assert!(needs(&denied, "[::1]:443"));
        assert!(!needs(&denied, "0.0.0.0:80"));
        assert!(!needs(&denied, "127.0.0.1:8080"));
        assert!(!needs(&io::ErrorKind::AddrInUse.into(), "127.0.0.1:80"));
    }
}
