//! The kernel's tables of sockets, as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{Listener, Transport};

/// State LISTEN in `/proc/net/tcp`.
const LISTEN: &str = "0A";
/// A datagram socket that is not connected.
const UNCONNECTED: &str = "07";

/// The waiting sockets of a table; lines that make no sense are passed over.
pub fn parse(text: &str, transport: Transport) -> impl Iterator<Item = Listener> + '_ {
    text.lines().filter_map(move |line| waiting(line, transport))
}

/// `sl local_address rem_address st … inode`
fn waiting(line: &str, transport: Transport) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let wanted = match transport {
        Transport::Tcp => LISTEN,
        Transport::Udp => UNCONNECTED,
    };
    if state != wanted {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener { address: SocketAddr::new(parse_ip(ip)?, port), inode })
}

/// Words of 32 bits in the host's byte order, each as eight hexadecimal digits.
fn parse_ip(text: &str) -> Option<IpAddr> {
    if !text.is_ascii() {
        return None;
    }
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for index in 0..4 {
                bytes[index * 4..index * 4 + 4].copy_from_slice(&word(index * 8)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str, transport: Transport) -> Option<(String, u64)> {
        waiting(line, transport).map(|listener| (listener.address.to_string(), listener.inode))
    }

    #[test]
    fn table_lines_are_read_and_nonsense_is_not() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 x";
        assert_eq!(one(line, Transport::Tcp), Some(("127.0.0.1:8080".into(), 4242)));
        assert_eq!(one(line, Transport::Udp), None);
        let line = "   1: 00000000000000000000000001000000:0050 0:0 0A 0 0 0 0 0 77 1";
        assert_eq!(one(line, Transport::Tcp), Some(("[::1]:80".into(), 77)));
        let line = "  123: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 9 2 x 0";
        assert_eq!(one(line, Transport::Udp), Some(("0.0.0.0:53".into(), 9)));
        for bad in
            ["", "0: x:y 0 0A", "0: 0100007F:1F90 0 01 0 0 0 0 0 1", "0: é100007:1F90 0 0A 0 0 0 0 0 1"]
        {
            assert_eq!(one(bad, Transport::Tcp), None);
        }
    }
}
