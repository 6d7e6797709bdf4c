//! What a session knows: its streams, their credits, and the frames that wait to be sent.
//!
//! No I/O happens here. The reader task feeds frames in with [`State::on_frame`], the writer takes frames out with
//! [`State::gather`], streams and handles call the rest. Wakers are collected and woken after the lock is released.

mod flow;
mod frames;
mod offers;

use std::collections::{HashMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::frame::Kind;
use super::receive::Queue;
use super::{Config, Role};
use crate::{CloseReason, Reply, ReplyCode, StreamHeader};

/// Bytes that one stream may have waiting to be sent.
const SEND_LIMIT: usize = 256 * 1024;
/// Bytes that all streams together may have waiting to be sent.
const SEND_TOTAL: usize = 8 * 1024 * 1024;
/// Writes up to this size are appended to the chunk before them.
pub(super) const SMALL: usize = 4 * 1024;

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

    /// Panics unless everything that a peer can influence is within its bounds.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check_bounds(&self) {
        let Config { max_streams, backlog, receive_budget, window, .. } = self.config;
        let (mut own, mut peer, mut committed, mut unsent) = (0, 0, 0, 0);
        for (id, entry) in &self.streams {
            if self.is_own(*id) {
                own += 1
            } else {
                peer += 1
            }
            assert!(entry.granted <= entry.committed && entry.committed <= window as usize);
            assert!(entry.unsent <= SEND_LIMIT);
            committed += entry.committed;
            unsent += entry.unsent;
        }
        assert_eq!((own, peer), (self.own_count, self.peer_count));
        assert!(own <= max_streams && peer <= max_streams);
        assert_eq!((committed, unsent), (self.committed, self.unsent));
        assert!(committed <= receive_budget + 2 * max_streams * (16 * 1024) + window as usize);
        assert!(unsent <= SEND_TOTAL);
        assert!(self.unanswered.len() <= backlog && self.backlog.len() <= backlog);
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
