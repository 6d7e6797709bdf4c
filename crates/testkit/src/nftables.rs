//! The packet filter's tables, asked for over netlink: no program is needed.

use std::io;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ERROR: u16 = 2;
/// IPv4 and IPv6.
const FAMILIES: [u8; 2] = [2, 10];

/// Whether this namespace has a table of this name.
pub fn exists(table: &str) -> bool {
    FAMILIES
        .iter()
        .any(|family| ask(&message(SUBSYSTEM << 8 | GET_TABLE, REQUEST | ACK, *family, 0, table)).is_ok())
}

/// Deletes the tables of this name; those that are not there are fine.
pub fn delete(table: &str) {
    for family in FAMILIES {
        let mut bytes = message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, "");
        bytes.extend(message(SUBSYSTEM << 8 | DELETE_TABLE, REQUEST | ACK, family, 0, table));
        bytes.extend(message(BATCH_END, REQUEST, 0, SUBSYSTEM, ""));
        let _ = ask(&bytes);
    }
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, table: &str) -> Vec<u8> {
    let mut body = vec![family, 0];
    body.extend(resource.to_be_bytes());
    if !table.is_empty() {
        let name = [table.as_bytes(), &[0]].concat();
        body.extend(u16::try_from(name.len() + 4).expect("names are short").to_ne_bytes());
        body.extend(1u16.to_ne_bytes());
        body.extend(&name);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut bytes = Vec::new();
    bytes.extend(u32::try_from(body.len() + 16).expect("messages are short").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// The kernel's word on a request: the first error number that it sends, 0 being none.
fn ask(bytes: &[u8]) -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    rustix::net::send(&socket, bytes, SendFlags::empty())?;
    let mut buffer = [0; 8192];
    loop {
        let (length, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while rest.len() >= 20 {
            let size = u32::from_ne_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            if u16::from_ne_bytes([rest[4], rest[5]]) == ERROR {
                let code = i32::from_ne_bytes(rest[16..20].try_into().expect("four bytes"));
                return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            rest = &rest[size.max(16).next_multiple_of(4).min(rest.len())..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_nobody_made_is_not_there() {
        assert!(!exists("skiff_never_made"));
        delete("skiff_never_made");
    }
}
