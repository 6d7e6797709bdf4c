//! A live session: the lock around the state, the task that reads and the two ways to write.
//!
//! Whoever makes output tries to write it at once, in its own task ([`Session::kick`]): a request then costs no switch
//! to another task. Only when the byte stream is full does the writer task take over and wait for it. The locks are
//! taken in the order writer, state; neither is held across an await.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::frame::{HEADER, Head, Kind, TAG};
use super::handshake::{GREETING, Greeting, HELLO, Nonce};
use super::receive::{Payload, ReadBuffer, SHARE};
use super::state::{Event, Sink, State};
use super::{Config, Role};
use crate::{CloseReason, Violation};

pub(super) type BoxRead = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type BoxWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// Bytes gathered for one write.
const BATCH: usize = 256 * 1024;
/// Buffers gathered for one write; the system takes at most 1024.
const SEGMENTS: usize = 48;
/// Payloads up to this size are copied beside their head instead of being written from where they are.
const INLINE: usize = 4 * 1024;
/// Batches that a stream's own task writes before the writer task takes over.
const KICKS: usize = 4;
/// How long an abandoned session may take to send what is queued.
const LINGER: Duration = Duration::from_secs(5);

/// The byte stream, between sessions.
pub(super) struct Transport {
    pub(super) read: BoxRead,
    pub(super) write: BoxWrite,
    /// What was read and belongs to no frame.
    pub(super) buffer: ReadBuffer,
    /// What must be written before anything else.
    pub(super) out: VecDeque<Bytes>,
}

#[derive(Debug)]
pub(super) struct Session {
    state: Mutex<State>,
    writer: Mutex<Writer>,
    /// A stream waits to be accepted, or the session has ended.
    pub(super) offered: Notify,
    /// The reader task has to look at the state.
    stop: Notify,
    closed: watch::Sender<Option<CloseReason>>,
}

/// Starts the tasks of a session. `give_back` gets the byte stream when the session is over.
pub(super) fn start(
    transport: Transport,
    role: Role,
    nonce: Nonce,
    config: Config,
    give_back: oneshot::Sender<Transport>,
) -> Arc<Session> {
    let Transport { read, write, buffer, out } = transport;
    let (out_tag, in_tag) = match role {
        Role::Host => (nonce.host_tag(), nonce.guest_tag()),
        Role::Guest => (nonce.guest_tag(), nonce.host_tag()),
    };
    let inline = if write.is_write_vectored() { INLINE } else { usize::MAX };
    let batch = Batch { segments: out, glue: BytesMut::new(), bytes: 0, inline, tag: out_tag };
    let session = Arc::new(Session {
        state: Mutex::new(State::new(role, config)),
        writer: Mutex::new(Writer {
            io: Some(write),
            batch,
            sent: Vec::new(),
            blocked: true,
            paused: false,
            task: None,
        }),
        offered: Notify::new(),
        stop: Notify::new(),
        closed: watch::channel(None).0,
    });
    tokio::spawn(write_frames(session.clone()));
    tokio::spawn(Reader { session: session.clone(), role, nonce, in_tag, read, buffer }.run(give_back));
    session
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds a lock; if it ever does, the other streams are better served than stopped.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn wake_all(wakes: &mut Vec<Waker>) {
    for waker in wakes.drain(..) {
        waker.wake();
    }
}

impl Session {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn closed(&self) -> watch::Receiver<Option<CloseReason>> {
        self.closed.subscribe()
    }

    /// Ends the session.
    pub(super) fn fail(&self, reason: CloseReason) {
        let mut wakes = Vec::new();
        self.state().die(reason, &mut wakes);
        wake_all(&mut wakes);
        self.offered.notify_waiters();
        self.stop.notify_one();
    }

    /// The last handle and the last stream are gone.
    pub(super) fn abandon(&self) {
        self.state().abandoned = true;
        self.stop.notify_one();
        self.kick();
    }

    /// Writes what waits to be written, or leaves it to whoever is writing already.
    pub(super) fn kick(&self) {
        loop {
            let Ok(mut writer) = self.writer.try_lock() else {
                // The holder looks again after it has let go.
                return;
            };
            if writer.blocked {
                drop(writer);
                // The byte stream may never take anything again; the streams must hear of a death all the same.
                let dead = self.state().dead().cloned();
                return dead.into_iter().for_each(|reason| self.fail(reason));
            }
            let mut cx = Context::from_waker(Waker::noop());
            let outcome = writer.drive(&self.state, &mut cx, KICKS);
            if outcome.is_pending() {
                // The writer task waits for the byte stream with a waker that works.
                writer.blocked = true;
                if let Some(task) = writer.task.take() {
                    task.wake();
                }
            }
            drop(writer);
            match outcome {
                Poll::Pending => return,
                Poll::Ready(Err(error)) => return self.fail(io_reason(&error)),
                Poll::Ready(Ok(())) => {
                    let state = self.state();
                    let (dead, abandoned) = (state.dead().cloned(), state.abandoned);
                    let more = state.has_output();
                    drop(state);
                    if let Some(reason) = dead {
                        return self.fail(reason);
                    }
                    if !more {
                        if abandoned {
                            self.fail(CloseReason::Local);
                        }
                        return;
                    }
                }
            }
        }
    }
}

pub(super) fn io_reason(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            CloseReason::HungUp
        }
        _ => CloseReason::Io { message: error.to_string() },
    }
}

/// Frames on their way out.
#[derive(Debug)]
struct Batch {
    segments: VecDeque<Bytes>,
    /// Heads, tags and small payloads, run together.
    glue: BytesMut,
    bytes: usize,
    inline: usize,
    tag: [u8; TAG],
}

impl Batch {
    /// Drops what was written; large payloads go to `sent`.
    fn advance(&mut self, mut count: usize, sent: &mut Vec<Bytes>) {
        while let Some(first) = self.segments.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            if let Some(done) = self.segments.pop_front()
                && done.len() > INLINE
            {
                sent.push(done);
            }
        }
    }
}

impl Sink for Batch {
    fn frame(&mut self, kind: Kind, stream: u32, payload: Bytes) {
        let length = payload.len();
        self.glue.extend_from_slice(&Head { kind, stream, length }.encode());
        self.bytes += HEADER + length + TAG;
        if length <= self.inline {
            self.glue.extend_from_slice(&payload);
        } else {
            self.segments.push_back(self.glue.split().freeze());
            self.segments.push_back(payload);
        }
        self.glue.extend_from_slice(&self.tag);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH || self.segments.len() >= SEGMENTS
    }
}

struct Writer {
    /// Taken out when the session is over.
    io: Option<BoxWrite>,
    batch: Batch,
    /// Written payloads, on their way back into the pool.
    sent: Vec<Bytes>,
    /// The byte stream was full: only the writer task goes on.
    blocked: bool,
    /// The last drive stopped because it had had its rounds, not because the byte stream was full.
    paused: bool,
    task: Option<Waker>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("batch", &self.batch.bytes).field("blocked", &self.blocked).finish()
    }
}

impl Writer {
    /// Writes until nothing is left, the byte stream is full, or `rounds` batches are through (then also pending).
    fn drive(&mut self, state: &Mutex<State>, cx: &mut Context<'_>, rounds: usize) -> Poll<io::Result<()>> {
        let Writer { io: Some(io), batch, sent, paused, .. } = self else { return Poll::Ready(Ok(())) };
        let mut io = Pin::new(io);
        *paused = false;
        let mut wakes = Vec::new();
        let mut round = 0;
        loop {
            if batch.segments.is_empty() {
                if round == rounds {
                    *paused = true;
                    return Poll::Pending;
                }
                round += 1;
                batch.bytes = 0;
                let mut state = lock(state);
                for sent in sent.drain(..) {
                    state.recycle(sent);
                }
                state.gather(batch, &mut wakes);
                drop(state);
                wake_all(&mut wakes);
                if !batch.glue.is_empty() {
                    let glue = batch.glue.split().freeze();
                    batch.segments.push_back(glue);
                }
                if batch.segments.is_empty() {
                    return io.poll_flush(cx);
                }
            }
            let written = if batch.segments.len() > 1 && io.is_write_vectored() {
                let mut slices = [IoSlice::new(&[]); SEGMENTS + 4];
                let mut count = 0;
                for (slot, segment) in slices.iter_mut().zip(&batch.segments) {
                    *slot = IoSlice::new(segment);
                    count += 1;
                }
                io.as_mut().poll_write_vectored(cx, &slices[..count])
            } else {
                io.as_mut().poll_write(cx, &batch.segments[0])
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => batch.advance(count, sent),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The writer task: waits for a full byte stream to take more.
async fn write_frames(session: Arc<Session>) {
    poll_fn(|cx| {
        let mut writer = lock(&session.writer);
        if writer.io.is_none() {
            return Poll::Ready(());
        }
        writer.task = Some(cx.waker().clone());
        if !writer.blocked {
            return Poll::Pending;
        }
        match writer.drive(&session.state, cx, KICKS) {
            Poll::Pending => {
                if writer.paused {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                writer.blocked = false;
                drop(writer);
                session.kick();
                Poll::Pending
            }
            Poll::Ready(Err(error)) => {
                drop(writer);
                session.fail(io_reason(&error));
                Poll::Ready(())
            }
        }
    })
    .await;
}

/// The reader task.
struct Reader {
    session: Arc<Session>,
    role: Role,
    nonce: Nonce,
    in_tag: [u8; TAG],
    read: BoxRead,
    buffer: ReadBuffer,
}

impl Reader {
    async fn run(mut self, give_back: oneshot::Sender<Transport>) {
        let reason = self.read_frames().await;
        self.session.fail(reason.clone());
        let reason = self.session.state().dead().cloned().unwrap_or(reason);
        let mut writer = lock(&self.session.writer);
        let io = writer.io.take();
        writer.batch.segments.clear();
        if let Some(task) = writer.task.take() {
            task.wake();
        }
        drop(writer);
        if let Some(write) = io {
            let Reader { read, buffer, .. } = self;
            // Nobody may want it back; then it is closed here.
            let _ = give_back.send(Transport { read, write, buffer, out: VecDeque::new() });
        }
        self.session.closed.send_replace(Some(reason));
    }

    async fn read_frames(&mut self) -> CloseReason {
        let session = self.session.clone();
        let mut watch = Watch::new();
        let timer = tokio::time::sleep_until(watch.heard);
        let stop = session.stop.notified();
        tokio::pin!(timer, stop);
        loop {
            let taken = match self.take_frames() {
                Ok(taken) => taken,
                Err(reason) => return reason,
            };
            if taken.offered {
                let due = watch.check(&session);
                if due < timer.deadline() {
                    timer.as_mut().reset(due);
                }
            }
            if taken.output {
                session.kick();
            }
            self.buffer.make_room();
            tokio::select! {
                biased;
                read = self.read.read_buf(&mut self.buffer.bytes) => match read {
                    Ok(0) => return CloseReason::HungUp,
                    Ok(_) => watch.heard = Instant::now(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return io_reason(&error),
                },
                () = stop.as_mut() => {
                    stop.set(session.stop.notified());
                    timer.as_mut().reset(Instant::now());
                }
                () = &mut timer => {
                    let due = watch.check(&session);
                    timer.as_mut().reset(due);
                    session.kick();
                }
            }
        }
    }

    /// Takes every whole frame out of the buffer.
    fn take_frames(&mut self) -> Result<Taken, CloseReason> {
        let mut wakes = Vec::new();
        let mut state = lock(&self.session.state);
        if let Some(reason) = state.dead() {
            return Err(reason.clone());
        }
        let now = Instant::now();
        let mut offered = 0;
        let outcome = loop {
            match take_frame(
                &mut self.buffer,
                &mut state,
                self.role,
                self.nonce,
                self.in_tag,
                now,
                &mut wakes,
            ) {
                Ok(Some(Event::Offered)) => offered += 1,
                Ok(Some(Event::None)) => {}
                Ok(None) => break Ok(Taken { offered: offered > 0, output: state.has_output() }),
                Err(reason) => break Err(reason),
            }
        };
        drop(state);
        wake_all(&mut wakes);
        for _ in 0..offered {
            self.session.offered.notify_one();
        }
        outcome
    }
}

/// What a round of reading brought about.
struct Taken {
    offered: bool,
    output: bool,
}

/// Takes one whole frame out of the buffer, if there is one. A bad frame stays in the buffer: it may be a greeting.
pub(super) fn take_frame(
    buffer: &mut ReadBuffer,
    state: &mut State,
    role: Role,
    nonce: Nonce,
    tag: [u8; TAG],
    now: Instant,
    wakes: &mut Vec<Waker>,
) -> Result<Option<Event>, CloseReason> {
    let bytes = &buffer.bytes;
    if role == Role::Host && bytes.first() == Some(&HELLO[0]) {
        if bytes.len() < GREETING {
            return Ok(None);
        }
        // The guest repeats its greeting until it has read the answer.
        return match Greeting::decode(bytes, HELLO) {
            Some(hello) if hello.nonce == nonce => {
                buffer.discard(GREETING);
                Ok(Some(Event::None))
            }
            Some(_) => Err(CloseReason::Restarted),
            None => Err(CloseReason::Violation { violation: Violation::Type(HELLO[0]) }),
        };
    }
    let Some(head) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let head = Head::decode(head).map_err(|violation| CloseReason::Violation { violation })?;
    let end = HEADER + head.length;
    if bytes.len() < end + TAG {
        return Ok(None);
    }
    if bytes[end..end + TAG] != tag {
        return Err(CloseReason::Violation { violation: Violation::Tag });
    }
    let outcome = if head.kind == Kind::Data && head.length >= SHARE {
        buffer.discard(HEADER);
        let payload = buffer.bytes.split_to(head.length).freeze();
        buffer.discard(TAG);
        state.on_frame(head, Payload::Shared(payload), now, wakes)
    } else {
        let outcome = state.on_frame(head, Payload::Slice(&bytes[HEADER..end]), now, wakes);
        buffer.discard(end + TAG);
        outcome
    };
    outcome.map(Some).map_err(|violation| CloseReason::Violation { violation })
}

/// Keeps the times: when the peer was last heard, when to ping, when to give up.
struct Watch {
    heard: Instant,
    pinged: Option<Instant>,
    lingering: Option<Instant>,
}

impl Watch {
    fn new() -> Watch {
        Watch { heard: Instant::now(), pinged: None, lingering: None }
    }

    /// Does what is due and returns when to look again.
    fn check(&mut self, session: &Session) -> Instant {
        let now = Instant::now();
        let mut due = now + Duration::from_secs(3600);
        let mut state = session.state();
        if let Some(deadline) = state.expire(now) {
            due = due.min(deadline);
        }
        let mut end = None;
        if state.abandoned {
            let last = *self.lingering.get_or_insert(now + LINGER);
            due = due.min(last);
            if now >= last {
                end = Some(CloseReason::Local);
            }
        }
        let (interval, timeout) = state.ping_timing();
        if let Some(interval) = interval {
            // Silence counts from the ping, so that a clock that jumps (a laptop that slept) ends nothing.
            let next = match self.pinged {
                Some(pinged) if self.heard < pinged => {
                    if now >= pinged + timeout {
                        end = Some(CloseReason::Silent { silent: now - self.heard });
                    }
                    pinged + timeout
                }
                _ if now >= self.heard + interval => {
                    state.push_ping();
                    self.pinged = Some(now);
                    now + timeout
                }
                _ => {
                    self.pinged = None;
                    self.heard + interval
                }
            };
            due = due.min(next);
        }
        drop(state);
        if let Some(reason) = end {
            session.fail(reason);
        }
        due
    }
}
