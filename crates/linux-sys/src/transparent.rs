//! Datagrams that were meant for somebody else, with the address they were meant for (`IP_RECVORIGDSTADDR`).
#![expect(unsafe_code, reason = "rustix reads no original destinations")]

use crate::sys::call;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// `IP_ORIGDSTADDR` (linux/in.h), option and message alike.
const ORIGINAL_V4: i32 = 20;
/// `IPV6_ORIGDSTADDR` (linux/in6.h).
const ORIGINAL_V6: i32 = 74;
/// `IPV6_TRANSPARENT` (linux/in6.h).
const TRANSPARENT_V6: i32 = 75;
/// Room for one message with an address of either kind.
const CONTROL: usize = 64;
/// Bytes of `struct cmsghdr` on 64-bit machines.
const MESSAGE_HEADER: usize = 16;

/// A datagram as [`receive`] got it; its bytes are in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its length in bytes; what did not fit the buffer is lost.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Where it was meant to go.
    pub to: SocketAddr,
}

/// Lets a socket of IPv6 have addresses that are not this machine's (`IPV6_TRANSPARENT`); before it is bound.
///
/// # Errors
/// When the process may not.
pub fn set_transparent_v6(socket: impl AsFd) -> io::Result<()> {
    switch_on(socket, libc::IPPROTO_IPV6, TRANSPARENT_V6)
}

/// Has the kernel tell the destination of every datagram of a socket.
pub fn tell_destinations(socket: impl AsFd, v6: bool) -> io::Result<()> {
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, ORIGINAL_V6) } else { (libc::IPPROTO_IP, ORIGINAL_V4) };
    switch_on(socket, level, option)
}

fn switch_on(socket: impl AsFd, level: i32, option: i32) -> io::Result<()> {
    let on = 1i32;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads four bytes from the address, which is that of a live i32.
    unsafe { call!(libc::SYS_setsockopt, fd, level, option, &raw const on, size_of::<i32>()) }?;
    Ok(())
}

/// Receives one datagram from a socket on which [`tell_destinations`] was called.
///
/// # Errors
/// Those of `recvmsg(2)`, and `InvalidData` when the kernel told no addresses.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Datagram> {
    #[repr(align(8))]
    struct Control([u8; CONTROL]);
    let mut control = Control([0; CONTROL]);
    let mut name = [0u8; size_of::<libc::sockaddr_in6>()];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all fields of msghdr are integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = name.len() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: every pointer in the message is to memory that outlives the call, with its true length beside it.
    let length = unsafe { call!(libc::SYS_recvmsg, socket.as_raw_fd(), &raw mut message, flags) }?;
    let told = (message.msg_controllen as usize).min(CONTROL);
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "a datagram without addresses");
    let from = address(&name).ok_or_else(unknown)?;
    let to = destination(&control.0[..told]).ok_or_else(unknown)?;
    Ok(Datagram { length, from, to })
}

/// Finds the destination among the control messages.
fn destination(mut control: &[u8]) -> Option<SocketAddr> {
    while control.len() >= MESSAGE_HEADER {
        let length = usize::from_ne_bytes(control[..8].try_into().ok()?);
        let number = |at: usize| Some(i32::from_ne_bytes(control[at..at + 4].try_into().ok()?));
        let data = control.get(MESSAGE_HEADER..length)?;
        match (number(8)?, number(12)?) {
            (libc::IPPROTO_IP, ORIGINAL_V4) | (libc::IPPROTO_IPV6, ORIGINAL_V6) => return address(data),
            _ => control = control.get(length.next_multiple_of(8)..)?,
        }
    }
    None
}

/// Reads a `sockaddr`.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some((Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some((Ipv6Addr::from(ip), port).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_datagram_comes_with_both_its_addresses() {
        for (ip, v6) in [("127.0.0.1", false), ("::1", true)] {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            let server = UdpSocket::bind((ip, 0)).unwrap();
            tell_destinations(&server, v6).unwrap();
            let client = UdpSocket::bind((ip, 0)).unwrap();
            client.send_to(b"question", server.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 32];
            let datagram = receive(server.as_fd(), &mut buffer).unwrap();
            assert_eq!(&buffer[..datagram.length], b"question");
            assert_eq!(datagram.from, client.local_addr().unwrap());
            assert_eq!(datagram.to, server.local_addr().unwrap());
            let nothing = receive(server.as_fd(), &mut buffer).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn control_bytes_that_make_no_sense_are_no_address() {
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0xff; 64]), None);
        assert_eq!(destination(&[0; 64][..40]), None);
    }
}
