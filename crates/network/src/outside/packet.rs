//! IPv4 packets, as far as they go through the tunnel: ICMP echo, and ICMP errors.

use std::net::{Ipv4Addr, SocketAddrV4};

const VERSION_4: u8 = 4;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
/// What a fresh packet may still pass.
const TIME_TO_LIVE: u8 = 64;

/// An ICMP echo request or its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// Who sends it.
    pub from: Ipv4Addr,
    /// To whom.
    pub to: Ipv4Addr,
    /// The sender's number for itself.
    pub identifier: u16,
    /// The number of the request.
    pub sequence: u16,
    /// What the reply must repeat.
    pub payload: Vec<u8>,
}

impl Echo {
    /// Reads a whole echo request; anything else is `None`, fragments too.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (header, message) = split(packet)?;
        let (kind, rest) = (*message.first()?, message.get(ICMP_HEADER..)?);
        let fragment = word(header, 6)? & 0x3fff;
        if header[9] != ICMP || kind != ECHO_REQUEST || message[1] != 0 || fragment != 0 {
            return None;
        }
        let length = usize::from(word(header, 2)?).checked_sub(header.len() + ICMP_HEADER)?;
        Some(Self {
            from: address(header, 12)?,
            to: address(header, 16)?,
            identifier: word(message, 4)?,
            sequence: word(message, 6)?,
            payload: rest.get(..length)?.to_vec(),
        })
    }

    /// Writes the reply to this request, with another sequence number and payload.
    ///
    /// `None` when the payload is too long for a packet.
    pub fn reply(&self, sequence: u16, payload: &[u8]) -> Option<Vec<u8>> {
        let mut message = vec![ECHO_REPLY, 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        message.extend(payload);
        icmp(self.to, self.from, message)
    }
}

/// Writes the ICMP error about a datagram that `from` sent to `to`, with a code of "destination unreachable".
pub fn unreachable(from: SocketAddrV4, to: SocketAddrV4, code: u8) -> Option<Vec<u8>> {
    let mut message = vec![UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    // The datagram's own headers tell its sender which one it was.
    message.extend(ip_header(*from.ip(), *to.ip(), UDP, UDP_HEADER)?);
    message.extend(from.port().to_be_bytes());
    message.extend(to.port().to_be_bytes());
    message.extend((UDP_HEADER as u16).to_be_bytes());
    message.extend([0, 0]);
    icmp(*to.ip(), *from.ip(), message)
}

/// Between whom a TCP packet is, sender first.
pub(super) fn connection(packet: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let (header, segment) = split(packet)?;
    if header[9] != TCP {
        return None;
    }
    let from = SocketAddrV4::new(address(header, 12)?, word(segment, 0)?);
    Some((from, SocketAddrV4::new(address(header, 16)?, word(segment, 2)?)))
}

fn icmp(from: Ipv4Addr, to: Ipv4Addr, mut message: Vec<u8>) -> Option<Vec<u8>> {
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ip_header(from, to, ICMP, message.len())?;
    packet.extend(message);
    Some(packet)
}

fn ip_header(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, length: usize) -> Option<Vec<u8>> {
    let total = u16::try_from(IP_HEADER + length).ok()?;
    let mut header = vec![VERSION_4 << 4 | (IP_HEADER / 4) as u8, 0];
    header.extend(total.to_be_bytes());
    header.extend([0, 0, 0, 0, TIME_TO_LIVE, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(header)
}

/// The IP header with its options, and what follows it.
fn split(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != VERSION_4 || length < IP_HEADER {
        return None;
    }
    packet.split_at_checked(length)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// The internet's checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(payload: &[u8]) -> Vec<u8> {
        let mut message = vec![ECHO_REQUEST, 0, 0, 0, 0x12, 0x34, 0, 9];
        message.extend(payload);
        icmp(Ipv4Addr::new(172, 17, 0, 2), Ipv4Addr::new(192, 0, 2, 1), message).unwrap()
    }

    #[test]
    fn an_echo_is_read_and_answered() {
        let echo = Echo::read(&request(b"abc")).unwrap();
        assert_eq!((echo.identifier, echo.sequence, echo.payload.as_slice()), (0x1234, 9, &b"abc"[..]));
        let reply = echo.reply(9, b"abc").unwrap();
        assert_eq!(checksum(&reply[..IP_HEADER]), 0, "a header with its sum adds up to nothing");
        assert_eq!(checksum(&reply[IP_HEADER..]), 0);
        assert_eq!(reply[12..20], [192, 0, 2, 1, 172, 17, 0, 2]);
        assert_eq!(Echo::read(&reply), None, "a reply is no request");
        assert_eq!(echo.reply(1, &[0; 70_000]), None);
    }

    #[test]
    fn fragments_and_other_protocols_are_passed_over() {
        let mut fragment = request(b"abc");
        fragment[6] = 0x20;
        let mut other = request(b"abc");
        other[9] = TCP;
        let whole = request(b"abc");
        for packet in [&fragment, &other, &whole[..whole.len() - 1], &[0x60; 60]] {
            assert_eq!(Echo::read(packet), None);
        }
    }

    #[test]
    fn an_error_names_the_datagram_it_is_about() {
        let (from, to) = ("172.17.0.2:5000".parse().unwrap(), "192.0.2.1:53".parse().unwrap());
        let packet = unreachable(from, to, 3).unwrap();
        assert_eq!(packet[12..20], [192, 0, 2, 1, 172, 17, 0, 2]);
        assert_eq!(packet[IP_HEADER..IP_HEADER + 2], [UNREACHABLE, 3]);
        assert_eq!(checksum(&packet[IP_HEADER..]), 0);
        let inner = &packet[IP_HEADER + ICMP_HEADER..];
        assert_eq!(inner[12..20], [172, 17, 0, 2, 192, 0, 2, 1]);
        assert_eq!(inner[20..24], [0x13, 0x88, 0, 53]);
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = (Echo::read(&bytes), connection(&bytes));
        }

        #[test]
        fn a_damaged_request_is_read_or_passed_over(at in 0usize..40, value in any::<u8>()) {
            let mut packet = request(b"0123456789");
            packet[at % 38] = value;
            if let Some(echo) = Echo::read(&packet) {
                prop_assert!(echo.reply(1, &echo.payload).is_some());
            }
        }
    }
}
