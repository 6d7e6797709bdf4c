//! Tables, written whole.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::attributes::Attributes;
use super::rule::Rule;
use crate::Error;

// linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
/// A table that goes with the socket that made it, and that nobody else can change.
const FLAG_OWNED: u32 = 2;
const HEADER: usize = 16;
/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    Ipv4 = 2,
    /// IPv6.
    Ipv6 = 10,
}

/// Where a chain sees packets (`enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Before routing.
    Prerouting = 0,
    /// Packets that are passed on.
    Forward = 2,
    /// Packets of this namespace's own processes.
    Output = 3,
    /// After routing.
    Postrouting = 4,
}

/// What a chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Let pass or not.
    Filter,
    /// Change addresses.
    Nat,
    /// Have packets of this namespace's own processes routed again after a change of their mark.
    Route,
}

/// A base chain with its rules.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// What it may do.
    pub kind: ChainKind,
    /// Where it sees packets.
    pub hook: Hook,
    /// Its place among the chains of the hook, lowest first.
    pub priority: i32,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// An IPv4 table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Which packets it sees.
    pub family: Family,
    /// Whether it goes with the socket that made it, so that a killed process leaves nothing behind.
    pub owned: bool,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// A socket of the packet filter. Tables that are [owned](Table::owned) go with it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The number of the last message.
    sequence: u32,
}

impl Socket {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> Result<Self, Error> {
        let failed = |op| move |errno: rustix::io::Errno| Error::Socket { op, source: errno.into() };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )
        .map_err(failed("open"))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(failed("bind"))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE)).map_err(failed("configure"))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Puts a table in the place of the one with its name, if there is one, in one transaction.
    ///
    /// # Errors
    /// When the kernel refuses: then nothing has changed.
    pub fn replace(&mut self, table: &Table) -> Result<(), Error> {
        let mut batch = Batch::new(table.family);
        let name = Attributes::default().text(1, &table.name);
        let new = if table.owned { name.clone().number(2, FLAG_OWNED) } else { name.clone() };
        // Deleting a table that is not there is an error; making one that is there is not.
        batch.add(NEW_TABLE, CREATE, &new);
        batch.add(DELETE_TABLE, 0, &name);
        batch.add(NEW_TABLE, CREATE, &new);
        for chain in &table.chains {
            let hook =
                Attributes::default().number(1, chain.hook as u32).bytes(2, &chain.priority.to_be_bytes());
            let kind = match chain.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
                ChainKind::Route => "route",
            };
            let attributes =
                Attributes::default().text(1, &table.name).text(3, chain.name).nested(4, &hook).text(7, kind);
            batch.add(NEW_CHAIN, CREATE, &attributes);
            for rule in &chain.rules {
                let attributes = Attributes::default()
                    .text(1, &table.name)
                    .text(2, chain.name)
                    .nested(4, rule.expressions());
                batch.add(NEW_RULE, CREATE | APPEND, &attributes);
            }
        }
        self.send(batch, "write firewall table", &table.name)
    }

    /// Deletes a table; one that is gone already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&mut self, family: Family, name: &str) -> Result<(), Error> {
        let mut batch = Batch::new(family);
        batch.add(DELETE_TABLE, 0, &Attributes::default().text(1, name));
        match self.send(batch, "delete firewall table", name) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a table of this name is there.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn has(&mut self, family: Family, name: &str) -> Result<bool, Error> {
        self.is_there(GET_TABLE, family, &Attributes::default().text(1, name))
    }

    /// Whether a table has a chain of this name.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn has_chain(&mut self, family: Family, table: &str, chain: &str) -> Result<bool, Error> {
        self.is_there(GET_CHAIN, family, &Attributes::default().text(1, table).text(3, chain))
    }

    fn is_there(&mut self, message: u16, family: Family, wanted: &Attributes) -> Result<bool, Error> {
        match self.ask(SUBSYSTEM, message, family, wanted) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends one message of another part of netfilter and waits for its acknowledgement.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn ask(
        &mut self,
        subsystem: u16,
        message: u16,
        family: Family,
        attributes: &Attributes,
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let (kind, sequence) = (subsystem << 8 | message, self.sequence);
        let mut bytes = Vec::new();
        append(&mut bytes, kind, REQUEST | ACK, sequence, family as u8, 0, attributes.as_bytes());
        self.exchange(&bytes, sequence, sequence, "change", "netfilter")
    }

    /// Asks for everything that another part of netfilter has, and shows the attributes of each object.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn dump(
        &mut self,
        subsystem: u16,
        message: u16,
        family: Family,
        mut show: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let failed = |op| move |errno: rustix::io::Errno| Error::Socket { op, source: errno.into() };
        self.sequence = self.sequence.wrapping_add(1);
        let wanted = self.sequence;
        let mut bytes = Vec::new();
        append(&mut bytes, subsystem << 8 | message, REQUEST | DUMP, wanted, family as u8, 0, &[]);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty()).map_err(failed("send"))?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let (length, _) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())
                .map_err(failed("receive"))?;
            let mut rest = &buffer[..length];
            while let Some((kind, sequence, payload, after)) = split(rest) {
                rest = after;
                match kind {
                    _ if sequence != wanted => {}
                    DONE => return Ok(()),
                    ERROR => {
                        let code = payload.get(..4).and_then(|code| code.try_into().ok());
                        let source = io::Error::from_raw_os_error(-code.map_or(0, i32::from_ne_bytes));
                        return Err(Error::Refused { op: "list", object: "netfilter".to_owned(), source });
                    }
                    _ => show(payload.get(4..).unwrap_or_default()),
                }
            }
        }
    }

    fn send(&mut self, batch: Batch, op: &'static str, object: &str) -> Result<(), Error> {
        let mut bytes = Vec::new();
        let first = self.sequence.wrapping_add(1);
        let mut sequence = first;
        append(&mut bytes, BATCH_BEGIN, REQUEST, sequence, 0, SUBSYSTEM, &[]);
        let end = batch.messages.len() - 1;
        for (index, (message, flags, attributes)) in batch.messages.iter().enumerate() {
            sequence = sequence.wrapping_add(1);
            // Errors are always answered, and before the last message is: one acknowledgement is enough.
            let ack = if index == end { ACK } else { 0 };
            let (kind, family) = (SUBSYSTEM << 8 | message, batch.family as u8);
            append(&mut bytes, kind, REQUEST | flags | ack, sequence, family, 0, attributes.as_bytes());
        }
        append(&mut bytes, BATCH_END, REQUEST, sequence.wrapping_add(1), 0, SUBSYSTEM, &[]);
        self.sequence = sequence.wrapping_add(1);
        self.exchange(&bytes, first, sequence, op, object)
    }

    /// Sends, and reads until the message `last` is answered. What answers messages before `first` is passed over: a
    /// refused batch may leave more than one error behind.
    fn exchange(
        &self,
        bytes: &[u8],
        first: u32,
        last: u32,
        op: &'static str,
        object: &str,
    ) -> Result<(), Error> {
        let failed = |op| move |errno: rustix::io::Errno| Error::Socket { op, source: errno.into() };
        // A table of many networks is one datagram.
        let room = bytes.len() * 2;
        if room > 100 * 1024 {
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, room);
        }
        rustix::net::send(&self.fd, bytes, SendFlags::empty()).map_err(failed("send"))?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let (length, _) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())
                .map_err(failed("receive"))?;
            let mut rest = &buffer[..length];
            while let Some((kind, sequence, payload, after)) = split(rest) {
                rest = after;
                if sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                let code =
                    payload.get(..4).map(|code| i32::from_ne_bytes(code.try_into().expect("four bytes")));
                match (kind, code) {
                    (ERROR, Some(code)) if code != 0 => {
                        let source = io::Error::from_raw_os_error(-code);
                        return Err(Error::Refused { op, object: object.to_owned(), source });
                    }
                    (ERROR, _) if sequence == last => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}

/// Messages that take effect together.
struct Batch {
    family: Family,
    messages: Vec<(u16, u16, Attributes)>,
}

impl Batch {
    fn new(family: Family) -> Self {
        Self { family, messages: Vec::new() }
    }

    fn add(&mut self, message: u16, flags: u16, attributes: &Attributes) {
        self.messages.push((message, flags, attributes.clone()));
    }
}

/// Appends one message: header, `nfgenmsg`, attributes.
fn append(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    attributes: &[u8],
) {
    let length = u32::try_from(HEADER + 4 + attributes.len()).expect("messages are small");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
}

/// The kind, sequence number and payload of the first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let number = |from: usize| Some(u32::from_ne_bytes(bytes.get(from..from + 4)?.try_into().ok()?));
    let length = number(0)? as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(HEADER..length)?;
    Some((kind, number(8)?, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_of_the_kernel_makes_the_reader_panic_or_stall(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            let mut steps = 0;
            while let Some((_, _, _, after)) = split(rest) {
                prop_assert!(after.len() < rest.len());
                rest = after;
                steps += 1;
            }
            prop_assert!(steps <= 200 / HEADER);
        }
    }
}
