//! A blocking rtnetlink socket: requests out, answers and acknowledgements in.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Error;

/// The kernel fills at most this much into one datagram of a dump.
const BUFFER: usize = 64 * 1024;

/// One request of a batch.
pub struct Request {
    /// The message.
    pub message: RouteNetlinkMessage,
    /// `NLM_F_*` beside REQUEST and ACK, which every request gets.
    pub flags: u16,
    /// For the error message: `create bridge`.
    pub op: &'static str,
    /// For the error message: `skiff0`.
    pub object: String,
}

/// A rtnetlink socket. It acts in the network namespace of the thread that opened it, wherever it is used afterwards.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        let failed = |op| move |errno: rustix::io::Errno| Error::Socket { op, source: errno.into() };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // Protocol 0 is NETLINK_ROUTE.
            None,
        )
        .map_err(failed("open"))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(failed("bind"))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends all requests in one datagram and waits for all acknowledgements.
    ///
    /// The kernel works through the whole batch even when one request fails, so a batch must only hold requests of which
    /// a later one is harmless after a failed earlier one. The first failure is returned.
    pub fn batch(&mut self, requests: Vec<Request>) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let first = self.sequence.wrapping_add(1);
        let mut names = Vec::with_capacity(requests.len());
        let mut bytes = Vec::with_capacity(1024);
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            append(&mut bytes, request.message, request.flags | NLM_F_REQUEST | NLM_F_ACK, self.sequence);
            names.push((request.op, request.object));
        }
        self.send(&bytes)?;

        let mut answers = Vec::new();
        let mut failure = None;
        let mut open = names.len();
        while open > 0 {
            let (answered, refused) = self.receive(first, names.len(), &mut answers)?;
            open = open.saturating_sub(answered);
            if failure.is_none() {
                failure = refused;
            }
        }
        match failure {
            None => Ok(answers),
            Some((index, source)) => {
                let (op, object) = names.swap_remove(index);
                Err(Error::Refused { op, object, source })
            }
        }
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&mut self, request: Request) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.batch(vec![request])
    }

    /// Asks for a whole table.
    pub fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        op: &'static str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let first = self.sequence;
        let mut bytes = Vec::with_capacity(128);
        append(&mut bytes, message, NLM_F_REQUEST | NLM_F_DUMP, first);
        self.send(&bytes)?;
        let mut answers = Vec::new();
        loop {
            let (done, refused) = self.receive(first, 1, &mut answers)?;
            if let Some((_, source)) = refused {
                return Err(Error::Refused { op, object: "table".into(), source });
            }
            if done > 0 {
                return Ok(answers);
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        rustix::net::send(&self.fd, bytes, SendFlags::empty())
            .map_err(|errno| Error::Socket { op: "send", source: errno.into() })?;
        Ok(())
    }

    /// Reads one datagram. Returns how many requests it finished, and the first refusal with its place in the batch.
    fn receive(
        &mut self,
        first: u32,
        count: usize,
        answers: &mut Vec<RouteNetlinkMessage>,
    ) -> Result<(usize, Option<(usize, io::Error)>), Error> {
        let (length, whole) = rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC)
            .map_err(|errno| Error::Socket { op: "receive", source: errno.into() })?;
        if whole > length {
            return Err(Error::Answer { reason: format!("datagram of {whole} bytes") });
        }
        let mut rest = &self.buffer[..length];
        let mut finished = 0;
        let mut refused = None;
        while !rest.is_empty() {
            let frame = NetlinkBuffer::new_checked(rest)
                .map_err(|error| Error::Answer { reason: error.to_string() })?;
            let length = frame.length() as usize;
            // The answer to a request that an earlier caller gave up on (only after an error) is not ours.
            let place = frame.sequence_number().wrapping_sub(first) as usize;
            if place < count {
                // A message with an attribute the decoder doesn't know well is passed over: newer kernels add some.
                if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
                    match message.payload {
                        NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                        NetlinkPayload::Done(_) => finished += 1,
                        NetlinkPayload::Error(error) => {
                            finished += 1;
                            if let (Some(code), None) = (error.code, &refused) {
                                let errno = code.get().wrapping_neg();
                                refused = Some((place, io::Error::from_raw_os_error(errno)));
                            }
                        }
                        _ => {}
                    }
                }
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Ok((finished, refused))
    }
}

fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    let length = message.buffer_len();
    bytes.resize(start + length.next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..start + length]);
}
