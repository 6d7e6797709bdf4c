//! The bytes of one stream: credits, reading, writing.

use std::io;
use std::task::{Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::{Entry, Flow, SEND_LIMIT, SEND_TOTAL, SMALL, State, set_waker};
use crate::mux::frame::{Kind, MAX_PAYLOAD};

/// Credit that a new stream starts with at most.
const FIRST_WINDOW: usize = 256 * 1024;
/// Credit that every stream gets, however short memory is.
const MIN_WINDOW: usize = 16 * 1024;
/// Chunks kept for reuse.
const POOL: usize = 16;

impl State {
    pub(in crate::mux) fn poll_read(&mut self, id: u32, waker: &Waker) -> Poll<io::Result<Bytes>> {
        let Some(entry) = self.streams.get_mut(&id) else { return Poll::Ready(Ok(Bytes::new())) };
        if let Some(bytes) = entry.received.pop() {
            entry.committed -= bytes.len();
            self.committed -= bytes.len();
            self.grant(id, false);
            return Poll::Ready(Ok(bytes));
        }
        if entry.incoming == Flow::Ended {
            return Poll::Ready(Ok(Bytes::new()));
        }
        if let Some(reason) = &self.dead {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone())));
        }
        if entry.gone {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        set_waker(&mut entry.read_waker, waker);
        Poll::Pending
    }

    /// The window for one stream: generous while the session's budget lasts.
    pub(super) fn window(&self, first: bool) -> usize {
        let full = self.config.window as usize;
        let window = if self.committed < self.config.receive_budget / 2 {
            if first { full.min(FIRST_WINDOW) } else { full }
        } else if self.committed < self.config.receive_budget {
            full / 4
        } else {
            0
        };
        window.max(MIN_WINDOW.min(full))
    }

    /// Grants credit once half of the window is used up.
    pub(super) fn grant(&mut self, id: u32, first: bool) {
        let window = self.window(first);
        let Some(entry) = self.streams.get_mut(&id) else { return };
        let missing = window.saturating_sub(entry.committed);
        if missing < window.div_ceil(2) || entry.gone || entry.incoming != Flow::Open || self.dead.is_some() {
            return;
        }
        entry.granted += missing;
        entry.committed += missing;
        self.committed += missing;
        self.control_or_die(Kind::Credit, id, Bytes::copy_from_slice(&(missing as u32).to_le_bytes()));
    }

    pub(super) fn check_write(&mut self, id: u32) -> io::Result<&mut Entry> {
        if let Some(reason) = &self.dead {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone()));
        }
        match self.streams.get_mut(&id) {
            Some(entry) if entry.outgoing == Flow::Open && !entry.gone => Ok(entry),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Takes room for up to `want` bytes, which [`State::commit`] or [`State::append`] must fill.
    pub(in crate::mux) fn poll_reserve(
        &mut self,
        id: u32,
        want: usize,
        waker: &Waker,
    ) -> Poll<io::Result<usize>> {
        let free = SEND_TOTAL.saturating_sub(self.unsent);
        let entry = match self.check_write(id) {
            Ok(entry) => entry,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let room =
            want.min(MAX_PAYLOAD).min(entry.credit).min(SEND_LIMIT.saturating_sub(entry.unsent)).min(free);
        if room == 0 {
            set_waker(&mut entry.write_waker, waker);
            if free == 0 && !entry.in_waiters {
                entry.in_waiters = true;
                self.waiters.push_back(id);
            }
            return Poll::Pending;
        }
        entry.credit -= room;
        entry.unsent += room;
        self.unsent += room;
        Poll::Ready(Ok(room))
    }

    /// Queues a few reserved bytes, in the chunk before them if that has room.
    pub(in crate::mux) fn append(&mut self, id: u32, bytes: &[u8]) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        match entry.sending.back_mut() {
            Some(last) if last.len() + bytes.len() <= MAX_PAYLOAD.min(last.capacity().max(SMALL)) => {
                last.extend_from_slice(bytes);
                self.make_ready(id);
            }
            _ => self.commit(id, BytesMut::from(bytes)),
        }
    }

    /// Queues a reserved chunk.
    pub(in crate::mux) fn commit(&mut self, id: u32, chunk: BytesMut) {
        let Some(entry) = self.streams.get_mut(&id).filter(|_| self.dead.is_none()) else { return };
        if entry.gone {
            entry.unsent -= chunk.len();
            self.unsent -= chunk.len();
            return;
        }
        entry.sending.push_back(chunk);
        self.make_ready(id);
    }

    /// Returns an empty chunk of full size.
    pub(in crate::mux) fn chunk(&mut self) -> BytesMut {
        self.pool.pop().unwrap_or_else(|| BytesMut::with_capacity(MAX_PAYLOAD))
    }

    /// Takes a chunk that was sent back for reuse.
    pub(in crate::mux) fn recycle(&mut self, sent: Bytes) {
        if self.pool.len() < POOL
            && let Ok(mut chunk) = sent.try_into_mut()
            && chunk.capacity() >= MAX_PAYLOAD
        {
            chunk.clear();
            self.pool.push(chunk);
        }
    }

    /// Ends this side's bytes; a second time is no error.
    pub(in crate::mux) fn finish(&mut self, id: u32) -> io::Result<()> {
        if self.streams.get(&id).is_some_and(|entry| entry.outgoing != Flow::Open) {
            return Ok(());
        }
        self.check_write(id)?.outgoing = Flow::Ending;
        self.make_ready(id);
        Ok(())
    }
}
