//! Sockets that wait, made the same way on every system.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Socket, Type};

use crate::{Transport, owner_of};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Listens for connections. An IPv6 address takes IPv6 connections only.
///
/// The socket does not block, as asynchronous runtimes want it.
///
/// # Errors
/// What the system says; `AddrNotAvailable` where it lacks the address's family.
pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM)?;
    // Elsewhere the option means that others may listen on the same port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Waits for datagrams. An IPv6 address takes IPv6 datagrams only.
///
/// # Errors
/// As [`bind_tcp`].
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None).map_err(|error| {
        // EAFNOSUPPORT has no kind of its own.
        io::Error::new(io::ErrorKind::AddrNotAvailable, error)
    })?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Says in Docker's words why an address could not be bound, and who has it. Blocks for as long as it takes to look
/// through the processes.
#[must_use]
pub fn refusal(error: &io::Error, address: SocketAddr, transport: Transport) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => match owner_of(address, transport) {
            Some(owner) => format!("address already in use (by {owner})"),
            None => "address already in use".to_owned(),
        },
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_have_the_same_port_at_once() {
        let four = bind_tcp("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = four.local_addr().unwrap().port();
        match bind_tcp(format!("[::]:{port}").parse().unwrap()) {
            Ok(six) => assert_eq!(six.local_addr().unwrap().port(), port),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable),
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_refusal_names_the_process_in_the_way() {
        let udp = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = udp.local_addr().unwrap();
        let error = bind_udp(address).unwrap_err();
        let text = refusal(&error, address, Transport::Udp);
        assert!(text.starts_with("address already in use (by "), "{text}");
        assert!(text.ends_with(&format!(", pid {})", std::process::id())), "{text}");
        let far = bind_tcp("192.0.2.1:80".parse().unwrap()).unwrap_err();
        assert_eq!(refusal(&far, address, Transport::Tcp), "cannot assign requested address");
    }
}
