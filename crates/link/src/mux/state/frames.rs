//! Frames in and frames out.

use std::task::Waker;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Control, Entry, Event, Flow, Phase, SEND_LIMIT, SEND_TOTAL, Sink, State};
use crate::mux::frame::{Head, Kind};
use crate::mux::receive::Payload;
use crate::{CloseReason, Reply, ReplyCode, StreamHeader, Violation};

/// Credit that a sender can pile up, whatever the peer grants.
const MAX_CREDIT: usize = 1 << 30;
/// Answers that may wait to be sent beyond one per stream, before the peer counts as flooding.
const CONTROL_SLACK: usize = 1024;

impl State {
    /// Takes one frame in.
    pub(in crate::mux) fn on_frame(
        &mut self,
        head: Head,
        payload: Payload<'_>,
        now: Instant,
        wakes: &mut Vec<Waker>,
    ) -> Result<Event, Violation> {
        let id = head.stream;
        match head.kind {
            Kind::Ping => {
                // Only the newest is answered, so that a flood of them costs nothing.
                self.pong = payload.as_slice().try_into().ok();
                return Ok(Event::None);
            }
            Kind::Pong => return Ok(Event::None),
            Kind::Open => return self.on_open(id, payload.as_slice(), now),
            _ => {}
        }
        if self.is_own(id) {
            self.check_opened(id, self.next_own)?
        } else {
            self.check_seen(id)?
        }
        let own = self.is_own(id);
        let Some(entry) = self.streams.get_mut(&id) else {
            // Sent before the peer heard of our RESET.
            return Ok(Event::None);
        };
        let unfit = Violation::State { kind: head.kind as u8, stream: id };
        if entry.gone {
            // A refusal of ours and this frame have crossed.
            return Ok(Event::None);
        }
        match head.kind {
            Kind::Reply => {
                if !own || entry.phase != Phase::Opening || entry.reply.is_some() {
                    return Err(unfit);
                }
                let reply = Reply::decode(payload.as_slice()).map_err(|_| Violation::Reply(id))?;
                if reply.code == ReplyCode::Ok {
                    entry.phase = Phase::Open;
                } else {
                    entry.gone = true;
                }
                entry.reply = Some(reply);
                wakes.extend(entry.read_waker.take());
            }
            Kind::Data => {
                if entry.phase != Phase::Open || entry.incoming != Flow::Open {
                    return Err(unfit);
                }
                entry.granted = entry.granted.checked_sub(head.length).ok_or(Violation::Credit(id))?;
                if entry.held {
                    entry.received.push(payload);
                    wakes.extend(entry.read_waker.take());
                }
            }
            Kind::Fin => {
                if entry.phase != Phase::Open || entry.incoming != Flow::Open {
                    return Err(unfit);
                }
                entry.incoming = Flow::Ended;
                wakes.extend(entry.read_waker.take());
            }
            Kind::Reset => {
                entry.gone = true;
                wakes.extend(entry.read_waker.take());
                wakes.extend(entry.write_waker.take());
                if entry.phase == Phase::Offered {
                    self.withdraw(id);
                }
                self.drop_unsent(id, wakes);
            }
            Kind::Credit => {
                let amount = payload.as_slice().try_into().map_or(0, u32::from_le_bytes) as usize;
                entry.credit = entry.credit.saturating_add(amount);
                if entry.credit > MAX_CREDIT {
                    return Err(Violation::Credit(id));
                }
                wakes.extend(entry.write_waker.take());
            }
            Kind::Open | Kind::Ping | Kind::Pong => {}
        }
        self.retire(id);
        Ok(Event::None)
    }

    pub(super) fn check_opened(&self, id: u32, next: u32) -> Result<(), Violation> {
        if id < next { Ok(()) } else { Err(Violation::StreamId(id)) }
    }

    pub(super) fn check_seen(&self, id: u32) -> Result<(), Violation> {
        if id <= self.last_peer { Ok(()) } else { Err(Violation::StreamId(id)) }
    }

    pub(super) fn on_open(&mut self, id: u32, header: &[u8], now: Instant) -> Result<Event, Violation> {
        if self.is_own(id) || id <= self.last_peer {
            return Err(Violation::StreamId(id));
        }
        self.last_peer = id;
        let header = match StreamHeader::decode(header) {
            Ok(header) => header,
            Err(error) => {
                self.push_reply(id, &Reply::refused(error.reply_code(), error.to_string()))?;
                return Ok(Event::None);
            }
        };
        if self.peer_count >= self.config.max_streams || self.unanswered.len() >= self.config.backlog {
            self.push_reply(id, &Reply::refused(ReplyCode::Limit, "too many streams are open"))?;
            return Ok(Event::None);
        }
        self.peer_count += 1;
        self.streams.insert(id, Entry::new(Phase::Offered));
        self.backlog.push_back((id, header));
        self.unanswered.push_back((now + self.config.answer_deadline, id));
        Ok(Event::Offered)
    }

    pub(super) fn push_control(&mut self, kind: Kind, stream: u32, payload: Bytes) -> Result<(), Violation> {
        self.control.push_back(Control { kind, stream, payload });
        // A peer that makes us answer and doesn't read the answers.
        if self.control.len() > 2 * self.config.max_streams + CONTROL_SLACK {
            return Err(Violation::Flood);
        }
        Ok(())
    }

    pub(super) fn push_reply(&mut self, stream: u32, reply: &Reply) -> Result<(), Violation> {
        let bytes = reply.encode().unwrap_or_else(|error| {
            let refused = Reply::refused(ReplyCode::Internal, error.to_string());
            refused.encode().expect("a refusal without data fits a frame")
        });
        self.push_control(Kind::Reply, stream, bytes.into())
    }

    /// Control frames outside of `on_frame`: a flood ends the session like any other violation.
    pub(super) fn control_or_die(&mut self, kind: Kind, stream: u32, payload: Bytes) {
        if let Err(violation) = self.push_control(kind, stream, payload) {
            self.dead.get_or_insert(CloseReason::Violation { violation });
        }
    }

    pub(in crate::mux) fn push_ping(&mut self) {
        self.control_or_die(Kind::Ping, 0, Bytes::from_static(&[0; 8]));
    }

    pub(in crate::mux) fn has_output(&self) -> bool {
        self.dead.is_none() && (!self.control.is_empty() || self.pong.is_some() || !self.ready.is_empty())
    }

    /// Moves frames into `sink` until it is full or nothing is left: control first, then one chunk of each stream in turn.
    pub(in crate::mux) fn gather(&mut self, sink: &mut impl Sink, wakes: &mut Vec<Waker>) {
        if self.dead.is_some() {
            return;
        }
        if let Some(pong) = self.pong.take() {
            sink.frame(Kind::Pong, 0, Bytes::copy_from_slice(&pong));
        }
        while !sink.is_full()
            && let Some(control) = self.control.pop_front()
        {
            sink.frame(control.kind, control.stream, control.payload);
        }
        while !sink.is_full()
            && let Some(id) = self.ready.pop_front()
        {
            let Some(entry) = self.streams.get_mut(&id) else { continue };
            entry.in_ready = false;
            if let Some(chunk) = entry.sending.pop_front() {
                entry.unsent -= chunk.len();
                self.unsent -= chunk.len();
                if entry.unsent <= SEND_LIMIT / 2 && entry.credit > 0 {
                    wakes.extend(entry.write_waker.take());
                }
                sink.frame(Kind::Data, id, chunk.freeze());
                if !entry.sending.is_empty() {
                    entry.in_ready = true;
                    self.ready.push_back(id);
                    continue;
                }
            }
            if entry.outgoing == Flow::Ending {
                entry.outgoing = Flow::Ended;
                sink.frame(Kind::Fin, id, Bytes::new());
            }
            if entry.leaving {
                entry.gone = true;
                if !(entry.incoming == Flow::Ended && entry.outgoing == Flow::Ended) {
                    sink.frame(Kind::Reset, id, Bytes::new());
                }
            }
            self.retire(id);
        }
        self.wake_waiters(wakes);
    }

    /// Half of the room must be free again, so that waking everybody happens seldom.
    pub(super) fn wake_waiters(&mut self, wakes: &mut Vec<Waker>) {
        if self.unsent > SEND_TOTAL / 2 {
            return;
        }
        for id in self.waiters.drain(..) {
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.in_waiters = false;
                wakes.extend(entry.write_waker.take());
            }
        }
    }

    pub(super) fn make_ready(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id)
            && !entry.in_ready
        {
            entry.in_ready = true;
            self.ready.push_back(id);
        }
    }

    pub(super) fn drop_unsent(&mut self, id: u32, wakes: &mut Vec<Waker>) {
        if let Some(entry) = self.streams.get_mut(&id) {
            let queued: usize = entry.sending.drain(..).map(|chunk| chunk.len()).sum();
            entry.unsent -= queued;
            self.unsent -= queued;
            self.wake_waiters(wakes);
        }
    }
}
