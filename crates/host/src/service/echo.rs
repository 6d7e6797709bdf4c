//! `echo`: ICMP echo requests that leave as this user's own.
//!
//! Systems let everybody ping by a socket for that alone; Linux only those whose group is in
//! `net.ipv4.ping_group_range`. Who may not, but may have raw sockets, uses one of those.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use skiff_link::{Incoming, ReplyCode, read_datagram, write_datagram};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::UdpSocket,
    time::timeout,
};

use super::{
    NETWORK_DEADLINE,
    egress::{self, Policy},
};

const HEADER: usize = 8;
/// How long a ping is kept when nothing comes; a little longer than the guest keeps it.
const IDLE: Duration = Duration::from_secs(40);
const LARGEST: usize = 65_536;

/// One kind of echo, by its ICMP types.
struct Family {
    domain: Domain,
    protocol: socket2::Protocol,
    request: u8,
    reply: u8,
}

const V4: Family = Family { domain: Domain::IPV4, protocol: socket2::Protocol::ICMPV4, request: 8, reply: 0 };
const V6: Family =
    Family { domain: Domain::IPV6, protocol: socket2::Protocol::ICMPV6, request: 128, reply: 129 };

/// A socket that sends echo requests to one address.
struct Pinger {
    socket: UdpSocket,
    family: &'static Family,
    /// Set where the socket sees the replies to other programs' requests too.
    identifier: Option<u16>,
}

pub(super) async fn serve(incoming: Incoming, host: &str, policy: &Policy) {
    let opened = timeout(NETWORK_DEADLINE, open(host, policy)).await;
    let pinger = match opened {
        Ok(Ok(pinger)) => pinger,
        Ok(Err((code, message))) => return incoming.refuse(code, format!("ping {host}: {message}")).await,
        Err(_) => return incoming.refuse(ReplyCode::TimedOut, format!("ping {host}: i/o timeout")).await,
    };
    let Ok(stream) = incoming.accept(None).await else { return };
    if let Err(error) = carry(stream, &pinger).await {
        tracing::debug!(%error, "ping ends");
    }
}

async fn open(host: &str, policy: &Policy) -> Result<Pinger, (ReplyCode, String)> {
    let addresses =
        policy.addresses(host).await.map_err(|error| (ReplyCode::NotFound, format!("lookup: {error}")))?;
    let ip = *addresses.first().ok_or((ReplyCode::NotFound, "no address".to_owned()))?;
    let address = SocketAddr::new(ip, 0);
    policy.check(address).map_err(|reason| (ReplyCode::PermissionDenied, reason.to_owned()))?;
    Pinger::to(address).map_err(|error| {
        let code = egress::code(ip, &error);
        let hint = if code == ReplyCode::PermissionDenied {
            " (this user may not ping: see net.ipv4.ping_group_range)"
        } else {
            ""
        };
        (code, format!("{error}{hint}"))
    })
}

impl Pinger {
    fn to(address: SocketAddr) -> io::Result<Pinger> {
        static NEXT: AtomicU16 = AtomicU16::new(0x5cff);
        let family = match address.ip() {
            IpAddr::V4(_) => &V4,
            IpAddr::V6(_) => &V6,
        };
        let (socket, identifier) = match Socket::new(family.domain, Type::DGRAM, Some(family.protocol)) {
            Ok(socket) => (socket, None),
            Err(refused) => match Socket::new(family.domain, Type::RAW, Some(family.protocol)) {
                Ok(socket) => (socket, Some(NEXT.fetch_add(1, Ordering::Relaxed))),
                Err(_) => return Err(refused),
            },
        };
        socket.set_nonblocking(true)?;
        socket.connect(&address.into())?;
        Ok(Pinger { socket: UdpSocket::from_std(socket.into())?, family, identifier })
    }

    /// Writes a request; `datagram` is its sequence number and payload.
    fn request(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let (sequence, payload) = datagram.split_first_chunk::<2>()?;
        let mut message = vec![self.family.request, 0, 0, 0];
        message.extend(self.identifier.unwrap_or(0).to_be_bytes());
        message.extend(sequence);
        message.extend(payload);
        // The kernel computes the checksum of what leaves by an echo socket, and of every ICMPv6 message.
        if self.identifier.is_some() && self.family.request == V4.request {
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        Some(message)
    }

    /// Reads a reply: its sequence number and payload.
    fn reply<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        // Raw sockets of IPv4 show the IP header, and so do echo sockets on some systems.
        let message = match packet.first()? {
            first if first >> 4 == 4 && self.family.reply == V4.reply && *first != V4.reply => {
                packet.get(usize::from(first & 0x0f) * 4..)?
            }
            _ => packet,
        };
        if message.len() < HEADER || message[0] != self.family.reply {
            return None;
        }
        let ours = self.identifier.is_none_or(|own| message[4..6] == own.to_be_bytes());
        ours.then_some(&message[6..])
    }
}

async fn carry(stream: skiff_link::BoxStream, pinger: &Pinger) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::with_capacity(2048, read);
    let forth = async {
        let mut datagram = Vec::new();
        while read_datagram(&mut read, &mut datagram).await? {
            if let Some(request) = pinger.request(&datagram) {
                // One that can't be sent is one that is not answered.
                let _ = pinger.socket.send(&request).await;
            }
        }
        Ok(())
    };
    let back = async {
        let mut buffer = vec![0; LARGEST];
        while let Ok(received) = timeout(IDLE, pinger.socket.recv(&mut buffer)).await {
            // Errors are those of earlier requests: they are not answered.
            let Ok(length) = received else { continue };
            if let Some(reply) = pinger.reply(&buffer[..length]) {
                write_datagram(&mut write, reply).await?;
            }
        }
        write.shutdown().await
    };
    tokio::select! {
        ended = forth => ended,
        ended = back => ended,
    }
}

/// The internet's checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pinger(identifier: Option<u16>) -> Pinger {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Pinger { socket, family: &V4, identifier }
    }

    #[tokio::test]
    async fn a_request_is_whole_and_its_reply_is_read_with_and_without_an_ip_header() {
        let pinger = pinger(Some(7)).await;
        let request = pinger.request(&[0, 9, b'a', b'b']).unwrap();
        assert_eq!((request[0], &request[4..]), (8, &[0, 7, 0, 9, b'a', b'b'][..]));
        assert_eq!(checksum(&request), 0);
        let mut reply = request.clone();
        reply[0] = 0;
        assert_eq!(pinger.reply(&reply), Some(&[0, 9, b'a', b'b'][..]));
        let mut packet = vec![0x45; 20];
        packet.extend(&reply);
        assert_eq!(pinger.reply(&packet), Some(&[0, 9, b'a', b'b'][..]));
    }

    #[tokio::test]
    async fn replies_to_others_and_nonsense_are_passed_over() {
        let pinger = pinger(Some(7)).await;
        for packet in [&[][..], &[0; 7], &[0, 0, 0, 0, 0, 8, 0, 9], &[8, 0, 0, 0, 0, 7, 0, 9], &[0x4f; 30]] {
            assert_eq!(pinger.reply(packet), None, "{packet:?}");
        }
        assert_eq!(pinger.request(&[1]), None);
    }
}
