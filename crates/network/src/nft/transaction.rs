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
const ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const FAMILY_IPV4: u8 = 2;
const HEADER: usize = 16;
/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// Puts a table in the place of the one with its name, if there is one, in one transaction.
///
/// # Errors
/// When the kernel refuses: then nothing has changed.
pub fn replace(table: &Table) -> Result<(), Error> {
    let mut batch = Batch::new();
    let name = Attributes::default().text(1, &table.name);
    // Deleting a table that is not there is an error; making one that is there is not.
    batch.add(NEW_TABLE, CREATE, &name);
    batch.add(DELETE_TABLE, 0, &name);
    batch.add(NEW_TABLE, CREATE, &name);
    for chain in &table.chains {
        let hook = Attributes::default().number(1, chain.hook as u32).bytes(2, &chain.priority.to_be_bytes());
        let kind = match chain.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let attributes =
            Attributes::default().text(1, &table.name).text(3, chain.name).nested(4, &hook).text(7, kind);
        batch.add(NEW_CHAIN, CREATE, &attributes);
        for rule in &chain.rules {
            let attributes =
                Attributes::default().text(1, &table.name).text(2, chain.name).nested(4, rule.expressions());
            batch.add(NEW_RULE, CREATE | APPEND, &attributes);
        }
    }
    batch.send("write firewall table", &table.name)
}

/// Deletes a table; one that is gone already is fine.
///
/// # Errors
/// When the kernel refuses.
pub fn delete(name: &str) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.add(DELETE_TABLE, 0, &Attributes::default().text(1, name));
    match batch.send("delete firewall table", name) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Whether a table of this name is there.
///
/// # Errors
/// When the kernel does not answer.
pub fn exists(name: &str) -> Result<bool, Error> {
    let mut bytes = Vec::new();
    let attributes = Attributes::default().text(1, name);
    append(&mut bytes, SUBSYSTEM << 8 | GET_TABLE, REQUEST | ACK, 1, FAMILY_IPV4, 0, attributes.as_bytes());
    match exchange(&bytes, 1, "find firewall table", name) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Messages that take effect together.
struct Batch {
    messages: Vec<(u16, u16, Attributes)>,
}

impl Batch {
    fn new() -> Self {
        Self { messages: Vec::new() }
    }

    fn add(&mut self, message: u16, flags: u16, attributes: &Attributes) {
        self.messages.push((message, flags, attributes.clone()));
    }

    fn send(self, op: &'static str, object: &str) -> Result<(), Error> {
        let mut bytes = Vec::new();
        let mut sequence = 0;
        append(&mut bytes, BATCH_BEGIN, REQUEST, sequence, 0, SUBSYSTEM, &[]);
        let last = self.messages.len() - 1;
        for (index, (message, flags, attributes)) in self.messages.iter().enumerate() {
            sequence += 1;
            // Errors are always answered, and before the last message is: one acknowledgement is enough.
            let ack = if index == last { ACK } else { 0 };
            let kind = SUBSYSTEM << 8 | message;
            append(&mut bytes, kind, REQUEST | flags | ack, sequence, FAMILY_IPV4, 0, attributes.as_bytes());
        }
        append(&mut bytes, BATCH_END, REQUEST, sequence + 1, 0, SUBSYSTEM, &[]);
        exchange(&bytes, sequence, op, object)
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

/// Sends, and reads until the message `last` is answered.
fn exchange(bytes: &[u8], last: u32, op: &'static str, object: &str) -> Result<(), Error> {
    let failed = |op| move |errno: rustix::io::Errno| Error::Socket { op, source: errno.into() };
    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )
    .map_err(failed("open"))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(failed("bind"))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).map_err(failed("configure"))?;
    // A table of many networks is one datagram.
    let room = bytes.len() * 2;
    if room > 100 * 1024 {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, room);
    }
    rustix::net::send(&socket, bytes, SendFlags::empty()).map_err(failed("send"))?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let (length, _) =
            rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()).map_err(failed("receive"))?;
        let mut rest = &buffer[..length];
        while let Some((kind, sequence, payload, after)) = split(rest) {
            rest = after;
            let code = payload.get(..4).map(|code| i32::from_ne_bytes(code.try_into().expect("four bytes")));
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
