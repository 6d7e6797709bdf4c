//! IP packets, as far as they go through the tunnel: echo of ICMP and ICMPv6, and errors.

use std::net::{IpAddr, SocketAddr};

const IP_HEADER: usize = 20;
const IP6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
/// Headers of IPv6 that only go before the next one, and tell their length in eight bytes: hop-by-hop, routing, destination.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
/// More of them than any sender has a reason for.
const MOST_EXTENSIONS: usize = 4;
/// What a fresh packet may still pass.
const TIME_TO_LIVE: u8 = 64;

/// The numbers of one family's messages (RFC 792, RFC 4443).
struct Messages {
    protocol: u8,
    request: u8,
    reply: u8,
    unreachable: u8,
}

const V4: Messages = Messages { protocol: ICMP, request: 8, reply: 0, unreachable: 3 };
const V6: Messages = Messages { protocol: ICMP6, request: 128, reply: 129, unreachable: 1 };

fn messages(ip: IpAddr) -> &'static Messages {
    if ip.is_ipv6() { &V6 } else { &V4 }
}

/// Why something can't be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// There is no way to its network.
    Network,
    /// It does not answer where it should be.
    Host,
    /// Somebody forbids it.
    Prohibited,
    /// Nobody listens.
    Port,
}

impl Unreachable {
    /// The code of the message about it (RFC 792 and 1812; RFC 4443).
    pub(super) fn code(self, v6: bool) -> u8 {
        match (self, v6) {
            (Self::Network, _) => 0,
            (Self::Host, false) => 1,
            (Self::Port, false) => 3,
            (Self::Prohibited, false) => 13,
            (Self::Prohibited, true) => 1,
            (Self::Host, true) => 3,
            (Self::Port, true) => 4,
        }
    }
}

/// An ICMP echo request or its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// Who sends it.
    pub from: IpAddr,
    /// To whom; of the same family.
    pub to: IpAddr,
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
        let Parts { from, to, protocol, body } = split(packet)?;
        let message = body.get(..ICMP_HEADER)?;
        let numbers = messages(to);
        if protocol != numbers.protocol || message[0] != numbers.request || message[1] != 0 {
            return None;
        }
        Some(Self {
            from,
            to,
            identifier: word(message, 4)?,
            sequence: word(message, 6)?,
            payload: body[ICMP_HEADER..].to_vec(),
        })
    }

    /// Writes the reply to this request, with another sequence number and payload.
    ///
    /// `None` when the payload is too long for a packet.
    pub fn reply(&self, sequence: u16, payload: &[u8]) -> Option<Vec<u8>> {
        let mut message = vec![messages(self.to).reply, 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        message.extend(payload);
        icmp(self.to, self.from, message)
    }
}

/// Writes the error about a datagram that `from` sent to `to`; both are of one family.
pub fn unreachable(from: SocketAddr, to: SocketAddr, why: Unreachable) -> Option<Vec<u8>> {
    let mut message = vec![messages(to.ip()).unreachable, why.code(to.is_ipv6()), 0, 0, 0, 0, 0, 0];
    // The datagram's own headers tell its sender which one it was.
    message.extend(ip_header(from.ip(), to.ip(), UDP, UDP_HEADER)?);
    message.extend(from.port().to_be_bytes());
    message.extend(to.port().to_be_bytes());
    message.extend((UDP_HEADER as u16).to_be_bytes());
    message.extend([0, 0]);
    icmp(to.ip(), from.ip(), message)
}

/// Between whom a TCP packet is, sender first. Only its beginning is needed.
pub(super) fn connection(packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let Parts { from, to, protocol, body } = split_beginning(packet)?;
    if protocol != TCP {
        return None;
    }
    Some((SocketAddr::new(from, word(body, 0)?), SocketAddr::new(to, word(body, 2)?)))
}

fn icmp(from: IpAddr, to: IpAddr, mut message: Vec<u8>) -> Option<Vec<u8>> {
    let numbers = messages(to);
    let mut sum = Sum::default();
    if let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) {
        // That of IPv6 is over the addresses, the length and the protocol as well (RFC 8200, 8.1).
        sum = sum.add(&from.octets()).add(&to.octets());
        sum = sum.add(&u32::try_from(message.len()).ok()?.to_be_bytes()).add(&[0, ICMP6]);
    }
    let sum = sum.add(&message).fold();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ip_header(from, to, numbers.protocol, message.len())?;
    packet.extend(message);
    Some(packet)
}

fn ip_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Option<Vec<u8>> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(IP_HEADER + length).ok()?;
            let mut header = vec![4 << 4 | (IP_HEADER / 4) as u8, 0];
            header.extend(total.to_be_bytes());
            header.extend([0, 0, 0, 0, TIME_TO_LIVE, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = Sum::default().add(&header).fold();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            Some(header)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![6 << 4, 0, 0, 0];
            header.extend(u16::try_from(length).ok()?.to_be_bytes());
            header.extend([protocol, TIME_TO_LIVE]);
            header.extend(from.octets());
            header.extend(to.octets());
            Some(header)
        }
        _ => None,
    }
}

/// A packet without its IP header.
struct Parts<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    body: &'a [u8],
}

/// A whole packet, which has exactly as many bytes as its header says; what may follow is cut off.
fn split(packet: &[u8]) -> Option<Parts<'_>> {
    let length = match packet.first()? >> 4 {
        4 => usize::from(word(packet, 2)?),
        _ => IP6_HEADER + usize::from(word(packet, 4)?),
    };
    split_beginning(packet.get(..length)?)
}

/// The beginning of a packet; a fragment is `None`.
fn split_beginning(packet: &[u8]) -> Option<Parts<'_>> {
    let first = *packet.first()?;
    match first >> 4 {
        4 => {
            let length = usize::from(first & 0x0f) * 4;
            let (header, body) = packet.split_at_checked(length.max(IP_HEADER))?;
            if length < IP_HEADER || word(header, 6)? & 0x3fff != 0 {
                return None;
            }
            let ip = |at: usize| header.get(at..at + 4)?.first_chunk::<4>().map(|ip| IpAddr::from(*ip));
            Some(Parts { from: ip(12)?, to: ip(16)?, protocol: header[9], body })
        }
        6 => {
            let (header, mut body) = packet.split_at_checked(IP6_HEADER)?;
            let mut protocol = header[6];
            for _ in 0..MOST_EXTENSIONS {
                if !EXTENSIONS.contains(&protocol) {
                    break;
                }
                protocol = *body.first()?;
                body = body.get((usize::from(*body.get(1)?) + 1) * 8..)?;
            }
            let ip = |at: usize| header.get(at..at + 16)?.first_chunk::<16>().map(|ip| IpAddr::from(*ip));
            Some(Parts { from: ip(8)?, to: ip(24)?, protocol, body })
        }
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The internet's checksum (RFC 1071) in the making.
#[derive(Default)]
struct Sum(u32);

impl Sum {
    /// Adds bytes; only the last ones may be of an odd number.
    fn add(self, bytes: &[u8]) -> Self {
        let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        Self(self.0 + bytes.chunks(2).map(word).sum::<u32>())
    }

    fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENDS: [(&str, &str); 2] = [("172.17.0.2", "192.0.2.1"), ("fd00::2", "2001:db8::1")];

    fn ends(family: usize) -> (IpAddr, IpAddr) {
        (ENDS[family].0.parse().unwrap(), ENDS[family].1.parse().unwrap())
    }

    fn request(family: usize, payload: &[u8]) -> Vec<u8> {
        let (from, to) = ends(family);
        let mut message = vec![messages(to).request, 0, 0, 0, 0x12, 0x34, 0, 9];
        message.extend(payload);
        icmp(from, to, message).unwrap()
    }

    /// The sum of a message with its checksum in it, which is nothing when it is right.
    fn sum(from: IpAddr, to: IpAddr, message: &[u8]) -> u16 {
        match (from, to) {
            (IpAddr::V6(from), IpAddr::V6(to)) => Sum::default()
                .add(&from.octets())
                .add(&to.octets())
                .add(&[0, 0, (message.len() >> 8) as u8, message.len() as u8, 0, 0, 0, 58])
                .add(message)
                .fold(),
            _ => Sum::default().add(message).fold(),
        }
    }

    #[test]
    fn an_echo_is_read_and_answered() {
        for (family, header) in [(0, IP_HEADER), (1, IP6_HEADER)] {
            let (from, to) = ends(family);
            let echo = Echo::read(&request(family, b"abc")).unwrap();
            assert_eq!((echo.from, echo.to), (from, to));
            assert_eq!((echo.identifier, echo.sequence, echo.payload.as_slice()), (0x1234, 9, &b"abc"[..]));
            let reply = echo.reply(9, b"abc").unwrap();
            assert_eq!(sum(to, from, &reply[header..]), 0);
            let parts = split(&reply).unwrap();
            assert_eq!((parts.from, parts.to), (to, from));
            assert_eq!(Echo::read(&reply), None, "a reply is no request");
            assert_eq!(echo.reply(1, &[0; 70_000]), None);
        }
        let packet = request(0, b"abc");
        assert_eq!(
            Sum::default().add(&packet[..IP_HEADER]).fold(),
            0,
            "a header with its sum adds up to nothing"
        );
    }

    #[test]
    fn fragments_and_other_protocols_are_passed_over() {
        let mut fragment = request(0, b"abc");
        fragment[6] = 0x20;
        let mut other = request(0, b"abc");
        other[9] = TCP;
        let mut fragment6 = request(1, b"abc");
        fragment6[6] = 44;
        let mut other6 = request(1, b"abc");
        other6[6] = ICMP;
        let (whole, whole6) = (request(0, b"abc"), request(1, b"abc"));
        let cut = &whole[..whole.len() - 1];
        let cut6 = &whole6[..whole6.len() - 1];
        for packet in [&fragment, &other, &fragment6, &other6, cut, cut6, &[0x60; 60], &[0x50; 60]] {
            assert_eq!(Echo::read(packet), None);
        }
    }

    #[test]
    fn an_error_names_the_datagram_it_is_about() {
        let cases = [(0, IP_HEADER, [3, 3]), (1, IP6_HEADER, [1, 4])];
        for (family, header, kind) in cases {
            let (from, to) = ends(family);
            let packet =
                unreachable(SocketAddr::new(from, 5000), SocketAddr::new(to, 53), Unreachable::Port).unwrap();
            let parts = split(&packet).unwrap();
            assert_eq!((parts.from, parts.to), (to, from));
            assert_eq!(packet[header..header + 2], kind);
            assert_eq!(sum(to, from, &packet[header..]), 0);
            let inner = split(&packet[header + ICMP_HEADER..]).unwrap();
            assert_eq!((inner.from, inner.to, inner.protocol), (from, to, UDP));
            assert_eq!(inner.body[..4], [0x13, 0x88, 0, 53]);
        }
    }

    #[test]
    fn a_connection_is_found_behind_the_headers_that_may_precede_it() {
        let (from, to) = ends(1);
        let segment = [0x9c, 0x40, 0, 80];
        let mut plain = ip_header(from, to, TCP, 4).unwrap();
        plain.extend(segment);
        let expected = Some((SocketAddr::new(from, 40_000), SocketAddr::new(to, 80)));
        assert_eq!(connection(&plain), expected);
        let mut longer = ip_header(from, to, 0, 28).unwrap();
        longer.extend([60, 0, 1, 4, 0, 0, 0, 0]);
        longer.extend([TCP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        longer.extend(segment);
        assert_eq!(connection(&longer), expected);
        assert_eq!(connection(&longer[..50]), None);
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_reader_panic(
            first in prop::sample::select(vec![0x45u8, 0x4f, 0x60, 0x6f, 0]),
            bytes in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let packet: Vec<u8> = std::iter::once(first).chain(bytes).collect();
            let _ = (Echo::read(&packet), connection(&packet));
        }

        #[test]
        fn a_damaged_request_is_read_or_passed_over(
            family in 0usize..2, at in 0usize..58, value in any::<u8>(),
        ) {
            let mut packet = request(family, b"0123456789");
            let length = packet.len();
            packet[at % length] = value;
            if let Some(echo) = Echo::read(&packet) {
                prop_assert!(echo.reply(1, &echo.payload).is_some());
            }
        }
    }
}
