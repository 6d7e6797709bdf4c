//! What a session knows: its streams, their credits, and the frames that wait to be sent.
//!
//! No I/O happens here. The reader task feeds frames in with [`State::on_frame`], the writer takes frames out with
//! [`State::gather`], streams and handles call the rest. Wakers are collected and woken after the lock is released.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::frame::{Head, Kind, MAX_PAYLOAD};
use super::receive::{Payload, Queue};
use super::{Config, Role};
use crate::{CloseReason, Reply, ReplyCode, StreamHeader, Violation};

/// Credit that a sender can pile up, whatever the peer grants.
const MAX_CREDIT: usize = 1 << 30;
/// Credit that a new stream starts with at most.
const FIRST_WINDOW: usize = 256 * 1024;
/// Credit that every stream gets, however short memory is.
const MIN_WINDOW: usize = 16 * 1024;
/// Bytes that one stream may have waiting to be sent.
const SEND_LIMIT: usize = 256 * 1024;
/// Bytes that all streams together may have waiting to be sent.
const SEND_TOTAL: usize = 8 * 1024 * 1024;
/// Answers that may wait to be sent beyond one per stream, before the peer counts as flooding.
const CONTROL_SLACK: usize = 1024;
/// Writes up to this size are appended to the chunk before them.
pub(super) const SMALL: usize = 4 * 1024;
/// Chunks kept for reuse.
const POOL: usize = 16;

/// The phase of a stream, from this side; see the diagram in the parent module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// This side sent `OPEN`.
    Opening,
    /// The peer sent `OPEN`.
    Offered,
    /// A `REPLY` with yes has gone by.
    Open,
}

/// One direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Bytes may come.
    Open,
    /// `FIN` waits behind the bytes that are still to be sent.
    Ending,
    /// `FIN` has gone by.
    Ended,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    /// A [`super::MuxStream`], an opener or an offer holds this stream.
    held: bool,
    /// The peer has forgotten the stream.
    gone: bool,
    /// `RESET` waits behind the bytes that are still to be sent.
    leaving: bool,
    reply: Option<Reply>,

    incoming: Flow,
    received: Queue,
    /// What the peer may still send.
    granted: usize,
    /// What was granted and has not been read; counts against the session's budget.
    committed: usize,
    read_waker: Option<Waker>,

    outgoing: Flow,
    sending: VecDeque<BytesMut>,
    /// Bytes in `sending`, and those being copied there.
    unsent: usize,
    credit: usize,
    write_waker: Option<Waker>,
    in_ready: bool,
    in_waiters: bool,
}

impl Entry {
    fn new(phase: Phase) -> Entry {
        Entry {
            phase,
            held: true,
            gone: false,
            leaving: false,
            reply: None,
            incoming: Flow::Open,
            received: Queue::default(),
            granted: 0,
            committed: 0,
            read_waker: None,
            outgoing: Flow::Open,
            sending: VecDeque::new(),
            unsent: 0,
            credit: 0,
            write_waker: None,
            in_ready: false,
            in_waiters: false,
        }
    }
}

/// A frame that goes before data.
#[derive(Debug)]
struct Control {
    kind: Kind,
    stream: u32,
    payload: Bytes,
}

/// Where [`State::gather`] puts frames.
pub(super) trait Sink {
    /// Adds one frame.
    fn frame(&mut self, kind: Kind, stream: u32, payload: Bytes);
    /// Tells whether the batch is full.
    fn is_full(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct State {
    role: Role,
    config: Config,
    streams: HashMap<u32, Entry>,
    own_count: usize,
    peer_count: usize,
    next_own: u32,
    last_peer: u32,
    control: VecDeque<Control>,
    pong: Option<[u8; 8]>,
    ready: VecDeque<u32>,
    unsent: usize,
    waiters: VecDeque<u32>,
    committed: usize,
    backlog: VecDeque<(u32, StreamHeader)>,
    unanswered: VecDeque<(Instant, u32)>,
    pool: Vec<BytesMut>,
    dead: Option<CloseReason>,
    /// [`State::die`] has run.
    buried: bool,
    /// Every handle and stream is gone: the session ends once everything is sent.
    pub(super) abandoned: bool,
}

/// What a frame brought about beside the wakers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    None,
    /// A stream waits to be accepted.
    Offered,
}

impl State {
    pub(super) fn new(role: Role, config: Config) -> State {
        State {
            role,
            config,
            streams: HashMap::new(),
            own_count: 0,
            peer_count: 0,
            next_own: role.first_stream(),
            last_peer: 0,
            control: VecDeque::new(),
            pong: None,
            ready: VecDeque::new(),
            unsent: 0,
            waiters: VecDeque::new(),
            committed: 0,
            backlog: VecDeque::new(),
            unanswered: VecDeque::new(),
            pool: Vec::new(),
            dead: None,
            buried: false,
            abandoned: false,
        }
    }

    pub(super) fn dead(&self) -> Option<&CloseReason> {
        self.dead.as_ref()
    }

    fn is_own(&self, id: u32) -> bool {
        id % 2 == self.role.first_stream() % 2
    }

    // ---- frames in ----

    /// Takes one frame in.
    pub(super) fn on_frame(
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

    fn check_opened(&self, id: u32, next: u32) -> Result<(), Violation> {
        if id < next { Ok(()) } else { Err(Violation::StreamId(id)) }
    }

    fn check_seen(&self, id: u32) -> Result<(), Violation> {
        if id <= self.last_peer { Ok(()) } else { Err(Violation::StreamId(id)) }
    }

    fn on_open(&mut self, id: u32, header: &[u8], now: Instant) -> Result<Event, Violation> {
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

    // ---- frames out ----

    fn push_control(&mut self, kind: Kind, stream: u32, payload: Bytes) -> Result<(), Violation> {
        self.control.push_back(Control { kind, stream, payload });
        // A peer that makes us answer and doesn't read the answers.
        if self.control.len() > 2 * self.config.max_streams + CONTROL_SLACK {
            return Err(Violation::Flood);
        }
        Ok(())
    }

    fn push_reply(&mut self, stream: u32, reply: &Reply) -> Result<(), Violation> {
        let bytes = reply.encode().unwrap_or_else(|error| {
            let refused = Reply::refused(ReplyCode::Internal, error.to_string());
            refused.encode().expect("a refusal without data fits a frame")
        });
        self.push_control(Kind::Reply, stream, bytes.into())
    }

    /// Control frames outside of `on_frame`: a flood ends the session like any other violation.
    fn control_or_die(&mut self, kind: Kind, stream: u32, payload: Bytes) {
        if let Err(violation) = self.push_control(kind, stream, payload) {
            self.dead.get_or_insert(CloseReason::Violation { violation });
        }
    }

    pub(super) fn push_ping(&mut self) {
        self.control_or_die(Kind::Ping, 0, Bytes::from_static(&[0; 8]));
    }

    pub(super) fn has_output(&self) -> bool {
        self.dead.is_none() && (!self.control.is_empty() || self.pong.is_some() || !self.ready.is_empty())
    }

    /// Moves frames into `sink` until it is full or nothing is left: control first, then one chunk of each stream in turn.
    pub(super) fn gather(&mut self, sink: &mut impl Sink, wakes: &mut Vec<Waker>) {
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
    fn wake_waiters(&mut self, wakes: &mut Vec<Waker>) {
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

    fn make_ready(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id)
            && !entry.in_ready
        {
            entry.in_ready = true;
            self.ready.push_back(id);
        }
    }

    fn drop_unsent(&mut self, id: u32, wakes: &mut Vec<Waker>) {
        if let Some(entry) = self.streams.get_mut(&id) {
            let queued: usize = entry.sending.drain(..).map(|chunk| chunk.len()).sum();
            entry.unsent -= queued;
            self.unsent -= queued;
            self.wake_waiters(wakes);
        }
    }

    // ---- opening and answering ----

    /// Sends `OPEN` with the first credit; the limit when no number or no room is left.
    pub(super) fn open(&mut self, header: Vec<u8>) -> Result<u32, usize> {
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
    pub(super) fn poll_reply(&mut self, id: u32, waker: &Waker) -> Poll<Result<Reply, CloseReason>> {
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

    pub(super) fn next_offer(&mut self) -> Option<(u32, StreamHeader)> {
        self.backlog.pop_front()
    }

    fn withdrawn(&self, id: u32) -> bool {
        self.streams.get(&id).is_none_or(|entry| entry.gone || entry.phase != Phase::Offered)
    }

    /// Says yes; false when the offer is gone.
    pub(super) fn accept(&mut self, id: u32, reply: &Reply) -> bool {
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
    pub(super) fn refuse(&mut self, id: u32, reply: &Reply) {
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
    fn withdraw(&mut self, id: u32) {
        self.answered(id);
        if let Some(index) = self.backlog.iter().position(|(other, _)| *other == id) {
            self.backlog.remove(index);
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.held = false;
            }
        }
    }

    fn answered(&mut self, id: u32) {
        self.unanswered.retain(|(_, other)| *other != id);
    }

    /// Refuses what has waited too long, and returns when to look again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
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

    // ---- reading ----

    pub(super) fn poll_read(&mut self, id: u32, waker: &Waker) -> Poll<io::Result<Bytes>> {
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
    fn window(&self, first: bool) -> usize {
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
    fn grant(&mut self, id: u32, first: bool) {
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

    // ---- writing ----

    fn check_write(&mut self, id: u32) -> io::Result<&mut Entry> {
        if let Some(reason) = &self.dead {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone()));
        }
        match self.streams.get_mut(&id) {
            Some(entry) if entry.outgoing == Flow::Open && !entry.gone => Ok(entry),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Takes room for up to `want` bytes, which [`State::commit`] or [`State::append`] must fill.
    pub(super) fn poll_reserve(&mut self, id: u32, want: usize, waker: &Waker) -> Poll<io::Result<usize>> {
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
    pub(super) fn append(&mut self, id: u32, bytes: &[u8]) {
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
    pub(super) fn commit(&mut self, id: u32, chunk: BytesMut) {
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
    pub(super) fn chunk(&mut self) -> BytesMut {
        self.pool.pop().unwrap_or_else(|| BytesMut::with_capacity(MAX_PAYLOAD))
    }

    /// Takes a chunk that was sent back for reuse.
    pub(super) fn recycle(&mut self, sent: Bytes) {
        if self.pool.len() < POOL
            && let Ok(mut chunk) = sent.try_into_mut()
            && chunk.capacity() >= MAX_PAYLOAD
        {
            chunk.clear();
            self.pool.push(chunk);
        }
    }

    /// Ends this side's bytes; a second time is no error.
    pub(super) fn finish(&mut self, id: u32) -> io::Result<()> {
        if self.streams.get(&id).is_some_and(|entry| entry.outgoing != Flow::Open) {
            return Ok(());
        }
        self.check_write(id)?.outgoing = Flow::Ending;
        self.make_ready(id);
        Ok(())
    }

    // ---- letting go ----

    /// The holder of a stream is gone: sends what is queued, then `RESET` unless both directions have ended.
    pub(super) fn release(&mut self, id: u32, wakes: &mut Vec<Waker>) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        entry.held = false;
        entry.received.clear();
        (entry.read_waker, entry.write_waker) = (None, None);
        if entry.phase == Phase::Offered && !entry.gone {
            let reply = Reply::refused(ReplyCode::Internal, "the request was dropped");
            self.refuse(id, &reply);
            return;
        }
        if !entry.gone && self.dead.is_none() {
            entry.leaving = true;
            // Behind queued bytes; alone, it goes with the next data frames.
            self.make_ready(id);
        } else {
            self.drop_unsent(id, wakes);
        }
        self.retire(id);
    }

    /// Forgets a stream that nobody holds and both sides are done with.
    fn retire(&mut self, id: u32) {
        let Some(entry) = self.streams.get(&id) else { return };
        let ended = entry.incoming == Flow::Ended && entry.outgoing == Flow::Ended;
        if entry.held || !(entry.gone || ended || self.dead.is_some()) {
            return;
        }
        if let Some(entry) = self.streams.remove(&id) {
            self.committed -= entry.committed;
            self.unsent -= entry.unsent;
            if self.is_own(id) { self.own_count -= 1 } else { self.peer_count -= 1 }
        }
    }

    /// Ends the session; queued received bytes stay readable. Only the first reason counts.
    pub(super) fn die(&mut self, reason: CloseReason, wakes: &mut Vec<Waker>) {
        if std::mem::replace(&mut self.buried, true) {
            return;
        }
        let reason = self.dead.get_or_insert(reason).clone();
        self.control = VecDeque::new();
        self.ready = VecDeque::new();
        self.backlog = VecDeque::new();
        self.unanswered = VecDeque::new();
        self.waiters = VecDeque::new();
        self.pool = Vec::new();
        self.unsent = 0;
        for entry in self.streams.values_mut() {
            entry.sending = VecDeque::new();
            entry.unsent = 0;
            wakes.extend(entry.read_waker.take());
            wakes.extend(entry.write_waker.take());
        }
        let ids: Vec<u32> = self.streams.iter().filter(|(_, entry)| !entry.held).map(|(id, _)| *id).collect();
        for id in ids {
            self.retire(id);
        }
        tracing::debug!(%reason, "link session ended");
    }

    /// Counts for tests: streams, bytes committed, bytes unsent.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.streams.len(), self.committed, self.unsent)
    }

    pub(super) fn ping_timing(&self) -> (Option<Duration>, Duration) {
        (self.config.ping_interval, self.config.ping_timeout)
    }
}

fn set_waker(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(old) if old.will_wake(waker) => {}
        _ => *slot = Some(waker.clone()),
    }
}
