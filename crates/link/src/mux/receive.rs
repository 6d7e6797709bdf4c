//! Bytes on their way in: the buffer that frames are parsed from, and the queue of one stream.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Size of one read.
pub(crate) const READ: usize = 256 * 1024;

/// Payloads from this size on are handed over without copying. Each keeps a whole read buffer alive, so the bound on
/// memory is [`READ`] / [`SHARE`] times what credits allow.
pub(crate) const SHARE: usize = 32 * 1024;

/// How many emptied buffers wait for their last payload to be dropped, to be used again.
const RETIRED: usize = 4;

/// Room kept for reading; a read is never smaller than this unless the peer has no more.
const ROOM: usize = 96 * 1024;

/// The buffer that the byte stream is read into.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    pub(crate) bytes: BytesMut,
    retired: VecDeque<BytesMut>,
}

impl ReadBuffer {
    pub(crate) fn new() -> ReadBuffer {
        ReadBuffer { bytes: BytesMut::new(), retired: VecDeque::new() }
    }

    /// Makes room to read into.
    pub(crate) fn make_room(&mut self) {
        if self.bytes.capacity() - self.bytes.len() >= ROOM || self.bytes.try_reclaim(ROOM) {
            return;
        }
        let reusable = self.retired.iter_mut().position(|buffer| buffer.try_reclaim(READ));
        let mut fresh = match reusable {
            Some(index) => self.retired.swap_remove_back(index).unwrap_or_default(),
            None => BytesMut::with_capacity(READ),
        };
        fresh.extend_from_slice(&self.bytes);
        let mut old = std::mem::replace(&mut self.bytes, fresh);
        old.clear();
        if self.retired.len() == RETIRED {
            self.retired.pop_front();
        }
        self.retired.push_back(old);
    }

    pub(crate) fn discard(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// A frame's payload, still in the read buffer.
pub(crate) enum Payload<'a> {
    /// To be copied.
    Slice(&'a [u8]),
    /// To be kept as it is.
    Shared(Bytes),
}

impl Payload<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Payload::Slice(slice) => slice,
            Payload::Shared(bytes) => bytes,
        }
    }
}

/// What a stream has received and nobody has read.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    whole: VecDeque<Bytes>,
    /// Small payloads, run together; comes after `whole`.
    tail: BytesMut,
}

impl Queue {
    pub(crate) fn push(&mut self, payload: Payload<'_>) {
        match payload {
            Payload::Slice(slice) => self.tail.extend_from_slice(slice),
            Payload::Shared(bytes) => {
                if !self.tail.is_empty() {
                    self.whole.push_back(self.tail.split().freeze());
                }
                self.whole.push_back(bytes);
            }
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        self.whole.pop_front().or_else(|| (!self.tail.is_empty()).then(|| self.tail.split().freeze()))
    }

    pub(crate) fn clear(&mut self) {
        *self = Queue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_keeps_the_order_of_small_and_large_payloads() {
        let mut queue = Queue::default();
        queue.push(Payload::Slice(b"ab"));
        queue.push(Payload::Slice(b"c"));
        queue.push(Payload::Shared(Bytes::from_static(b"def")));
        queue.push(Payload::Slice(b"gh"));
        let mut all = Vec::new();
        while let Some(bytes) = queue.pop() {
            all.push(bytes);
        }
        assert_eq!(all, [&b"abc"[..], b"def", b"gh"]);
    }

    #[test]
    fn a_read_buffer_reuses_what_is_no_longer_held() {
        let mut buffer = ReadBuffer::new();
        let mut held = Vec::new();
        for round in 0..50 {
            buffer.make_room();
            assert!(buffer.bytes.capacity() - buffer.bytes.len() >= ROOM);
            buffer.bytes.extend_from_slice(&[7; ROOM]);
            held.push(buffer.bytes.split_to(ROOM).freeze());
            if round % 7 == 0 {
                held.clear();
            }
        }
        assert!(buffer.retired.len() <= RETIRED);
    }
}
