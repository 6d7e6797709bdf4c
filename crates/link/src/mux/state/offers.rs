//! Opening streams and answering the peer's.

use std::task::{Poll, Waker};

use tokio::time::Instant;

use super::{Entry, Phase, State, set_waker};
use crate::mux::frame::Kind;
use crate::{CloseReason, Reply, ReplyCode, StreamHeader};

impl State {
    /// Sends `OPEN` with the first credit; the limit when no number or no room is left.
    pub(in crate::mux) fn open(&mut self, header: Vec<u8>) -> Result<u32, usize> {
        let limit = self.config.max_streams;
        if self.own_count >= limit {
            return Err(limit);
        }
        let id = self.next_own;
        self.next_own = id.checked_add(2).ok_or(limit)?;
        self.own_count += 1;
        self.streams.insert(id, Entry::new(Phase::Opening));
        self.control_or_die(Kind::Open, id, header.into());
        self.grant(id, true);
        Ok(id)
    }

    /// The reply of a stream that this side opens.
    pub(in crate::mux) fn poll_reply(&mut self, id: u32, waker: &Waker) -> Poll<Result<Reply, CloseReason>> {
        let Some(entry) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(self.dead.clone().unwrap_or(CloseReason::Local)));
        };
        if let Some(reply) = entry.reply.take() {
            return Poll::Ready(Ok(reply));
        }
        if let Some(reason) = &self.dead {
            return Poll::Ready(Err(reason.clone()));
        }
        if entry.gone {
            return Poll::Ready(Ok(Reply::refused(
                ReplyCode::Internal,
                "the stream was reset instead of answered",
            )));
        }
        set_waker(&mut entry.read_waker, waker);
        Poll::Pending
    }

    pub(in crate::mux) fn next_offer(&mut self) -> Option<(u32, StreamHeader)> {
        self.backlog.pop_front()
    }

    pub(super) fn withdrawn(&self, id: u32) -> bool {
        self.streams.get(&id).is_none_or(|entry| entry.gone || entry.phase != Phase::Offered)
    }

    /// Says yes; false when the offer is gone.
    pub(in crate::mux) fn accept(&mut self, id: u32, reply: &Reply) -> bool {
        if self.dead.is_some() || self.withdrawn(id) {
            return false;
        }
        self.answered(id);
        if let Err(violation) = self.push_reply(id, reply) {
            self.dead.get_or_insert(CloseReason::Violation { violation });
        }
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.phase = Phase::Open;
        }
        self.grant(id, true);
        true
    }

    /// Says no, if the offer still stands.
    pub(in crate::mux) fn refuse(&mut self, id: u32, reply: &Reply) {
        if !self.withdrawn(id) {
            self.answered(id);
            if let Err(violation) = self.push_reply(id, reply) {
                self.dead.get_or_insert(CloseReason::Violation { violation });
            }
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.gone = true;
            }
        }
        self.release(id, &mut Vec::new());
    }

    /// Frees the place of an offer that was never looked at.
    pub(super) fn withdraw(&mut self, id: u32) {
        self.answered(id);
        if let Some(index) = self.backlog.iter().position(|(other, _)| *other == id) {
            self.backlog.remove(index);
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.held = false;
            }
        }
    }

    pub(super) fn answered(&mut self, id: u32) {
        self.unanswered.retain(|(_, other)| *other != id);
    }

    /// Refuses what has waited too long, and returns when to look again.
    pub(in crate::mux) fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some(&(deadline, id)) = self.unanswered.front() {
            if self.withdrawn(id) {
                self.unanswered.pop_front();
                continue;
            }
            if deadline > now {
                return Some(deadline);
            }
            self.unanswered.pop_front();
            let reply = Reply::refused(ReplyCode::TimedOut, "nobody answered in time");
            if let Err(violation) = self.push_reply(id, &reply) {
                self.dead.get_or_insert(CloseReason::Violation { violation });
            }
            // Its place is free once whoever holds the offer lets go, or at once if nobody has taken it yet.
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.gone = true;
            }
            self.withdraw(id);
            self.retire(id);
        }
        None
    }
}
