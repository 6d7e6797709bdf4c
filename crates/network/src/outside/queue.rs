//! Packets that the kernel holds until it is told what to do with them (nfnetlink_queue).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::packet::{self, Unreachable};
use super::{MARK, QUEUE};
use crate::Error;
use crate::nft::Attributes;

// linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_queue.h
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ERROR: u16 = 2;
const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIG: u16 = SUBSYSTEM | 2;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// Queues are of no family, whatever the setting has room for.
const FAMILY: u8 = 0;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// As much of a packet as says which connection it begins.
const COPIED: u32 = 128;
/// Packets that may be held at once: as many connections may be on their way.
const LENGTH: u32 = 16 * 1024;
/// One packet with all that the kernel says about it is far smaller.
const BUFFER: usize = 16 * 1024;

/// What becomes of a held packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The connection exists.
    Pass,
    /// Nothing is known: the client tries again.
    Drop,
    /// Nobody listens.
    Refuse,
    /// The host can't be reached.
    HostUnreachable,
    /// The network can't be reached.
    NetworkUnreachable,
    /// Somebody forbids it.
    Prohibit,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 6] = [
        Self::Pass,
        Self::Drop,
        Self::Refuse,
        Self::HostUnreachable,
        Self::NetworkUnreachable,
        Self::Prohibit,
    ];

    /// The mark by which the packet filter knows what to answer.
    pub(super) fn mark(self) -> Option<u32> {
        match self {
            Self::Pass | Self::Drop => None,
            Self::Refuse => Some(MARK + 1),
            Self::HostUnreachable => Some(MARK + 2),
            Self::NetworkUnreachable => Some(MARK + 3),
            Self::Prohibit => Some(MARK + 4),
        }
    }

    /// What the client is told by an ICMP message, if it is told anything by one.
    pub(super) fn told(self) -> Option<Unreachable> {
        match self {
            Self::Pass | Self::Drop | Self::Refuse => None,
            Self::NetworkUnreachable => Some(Unreachable::Network),
            Self::HostUnreachable => Some(Unreachable::Host),
            Self::Prohibit => Some(Unreachable::Prohibited),
        }
    }
}

/// A SYN that waits for its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The kernel's number for it.
    pub id: u32,
    /// Who connects.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
}

/// The queue of SYNs that leave. Closed, it lets the kernel drop what it holds.
#[derive(Debug)]
pub struct SynQueue {
    socket: OwnedFd,
}

impl SynQueue {
    /// Takes the queue over. The descriptor does not wait: poll it.
    ///
    /// # Errors
    /// When the kernel has no queues, or another program reads this one.
    pub fn open() -> Result<Self, Error> {
        let failed = |op| move |errno: rustix::io::Errno| Error::Socket { op, source: errno.into() };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = AddressFamily::NETLINK;
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, Some(NETFILTER))
            .map_err(failed("open"))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(failed("bind"))?;
        // A burst of connections must not overflow it: what does not fit is dropped, and comes again a second later.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 4 << 20);
        let queue = Self { socket };
        let copy: Vec<u8> = COPIED.to_be_bytes().into_iter().chain([COPY_PACKET]).collect();
        let settings = [
            Attributes::default().bytes(1, &[BIND, 0, 0, FAMILY]),
            Attributes::default().bytes(2, &copy),
            Attributes::default().number(3, LENGTH),
        ];
        for attributes in settings {
            queue.configure(&attributes)?;
        }
        Ok(queue)
    }

    /// Sends one setting and waits for the answer: the kernel gives it before `send` returns.
    fn configure(&self, attributes: &Attributes) -> Result<(), Error> {
        let refused = |source| Error::Refused { op: "set up", object: "packet queue".into(), source };
        self.send(CONFIG, ACK, attributes).map_err(|source| Error::Socket { op: "send", source })?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let (length, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())
                .map_err(|errno| Error::Socket { op: "receive", source: errno.into() })?;
            let answer = &buffer[..length];
            // Packets may come before the last setting is answered: their senders try again.
            if kind(answer) == Some(ERROR) {
                return match answer.get(HEADER..HEADER + 4) {
                    Some([0, 0, 0, 0]) => Ok(()),
                    Some(&[a, b, c, d]) => {
                        let code = i32::from_ne_bytes([a, b, c, d]);
                        Err(refused(io::Error::from_raw_os_error(code.wrapping_neg())))
                    }
                    _ => Err(Error::Answer { reason: "a short acknowledgement".into() }),
                };
            }
        }
    }

    /// Reads what is there into `held`; packets that are no SYN are dropped.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; `ENOBUFS` when packets were lost, after which one can go on.
    pub fn read(&self, held: &mut Vec<Held>) -> io::Result<()> {
        let mut buffer = [0; BUFFER];
        let (length, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((message, after)) = split(rest) {
            rest = after;
            if kind(message) != Some(PACKET) {
                continue;
            }
            match parse(message) {
                Some((id, Some((from, to)))) => held.push(Held { id, from, to }),
                Some((id, None)) => self.decide(id, Verdict::Drop)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Says what becomes of a packet.
    ///
    /// # Errors
    /// When the kernel takes no message now.
    pub fn decide(&self, id: u32, verdict: Verdict) -> io::Result<()> {
        let action = if verdict == Verdict::Drop { DROP } else { ACCEPT };
        let mut header = action.to_be_bytes().to_vec();
        header.extend(id.to_be_bytes());
        let mut attributes = Attributes::default().bytes(2, &header);
        if let Some(mark) = verdict.mark() {
            attributes = attributes.number(3, mark);
        }
        self.send(VERDICT, 0, &attributes)
    }

    fn send(&self, kind: u16, flags: u16, attributes: &Attributes) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(64);
        let length = HEADER + GENERIC + attributes.as_bytes().len();
        bytes.extend((length as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend([0, 0]);
        bytes.extend(QUEUE.to_be_bytes());
        bytes.extend(attributes.as_bytes());
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }
}

impl AsFd for SynQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::os::fd::AsRawFd for SynQueue {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

fn kind(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?))
}

/// The first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The number of a held packet, and between whom it is if it is a SYN.
fn parse(message: &[u8]) -> Option<(u32, Option<(SocketAddr, SocketAddr)>)> {
    const ID: u16 = 1;
    const PAYLOAD: u16 = 10;
    let mut rest = message.get(HEADER + GENERIC..)?;
    let (mut id, mut between) = (None, None);
    while rest.len() >= 4 {
        let word = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let length = usize::from(word(0));
        let data = rest.get(4..length)?;
        match word(2) & 0x3fff {
            ID => id = Some(u32::from_be_bytes(data.get(..4)?.try_into().ok()?)),
            PAYLOAD => between = packet::connection(data),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((id?, between))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(payload: &[u8]) -> Vec<u8> {
        let attributes = Attributes::default().bytes(1, &[0, 0, 0, 7, 8, 0, 0]).bytes(10, payload);
        let mut bytes = ((HEADER + GENERIC + attributes.as_bytes().len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(PACKET.to_ne_bytes());
        bytes.extend([0; 14]);
        bytes.extend(attributes.as_bytes());
        bytes
    }

    #[test]
    fn a_held_packet_is_read() {
        let mut syn = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 172, 17, 0, 2, 192, 0, 2, 1];
        syn.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
        let bytes = message(&syn);
        let (first, rest) = split(&bytes).unwrap();
        assert!(rest.is_empty());
        let expected = ("172.17.0.2:40000".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        assert_eq!(parse(first), Some((7, Some(expected))));
        assert_eq!(parse(&message(&syn[..10])), Some((7, None)));
        let mut syn = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
        syn.extend("fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        syn.extend("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        syn.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
        let expected = ("[fd00::2]:40000".parse().unwrap(), "[2001:db8::1]:80".parse().unwrap());
        assert_eq!(parse(split(&message(&syn)).unwrap().0), Some((7, Some(expected))));
    }

    #[test]
    fn verdicts_that_answer_have_marks_of_their_own() {
        let mut marks: Vec<u32> = Verdict::ALL.iter().filter_map(|verdict| verdict.mark()).collect();
        marks.push(MARK);
        marks.sort_unstable();
        marks.dedup();
        assert_eq!(marks.len(), 5);
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic_or_stall(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let mut rest = &bytes[..];
            while let Some((message, after)) = split(rest) {
                prop_assert!(after.len() < rest.len());
                let _ = parse(message);
                rest = after;
            }
        }
    }
}
