//! The transport where all streams share one byte stream, such as a virtio-serial port.
//!
//! # Session
//!
//! A byte stream carries one session after the other. [`handshake`](self) greetings begin a session; anything wrong
//! ends it, and every stream with it. The host then looks for the next greeting on the same byte stream, which may
//! first bring the remains of the dead session.
//!
//! ```text
//!            HELLO / ACK                      hang-up, violation, silence, close
//! Greeting ──────────────► Live ─────────────────────────────────────────────────► Dead
//!    ▲                                                                              │
//!    └────────────── host: HostListener::next on the same byte stream ──────────────┘
//! ```
//!
//! # Stream
//!
//! The host opens odd numbers, the guest even ones, each upwards and never twice in a session.
//!
//! ```text
//!   opener: OPEN ►                 ► REPLY no, RESET
//!          Opening ──────────────────────────────────────────────► gone
//!             │ REPLY yes                                            ▲
//!             ▼          FIN sent                FIN received        │
//!   ┌────── Open ──────► outgoing ended ──────► both ended ──────────┤
//!   │         ▲ └──────► incoming ended ──────►      FIN sent        │
//!   │         │ accept        FIN received                           │
//!   │      Offered ──────────────────────────────────────────────────┤
//!   │   asked: ► OPEN     refuse, drop, deadline, RESET              │
//!   └────────────────────────────── RESET either way, session dead ──┘
//! ```
//!
//! `OPEN` carries the stream's header, `REPLY` its answer; `DATA` is allowed only in `Open`. Bytes written before a
//! stream is dropped are still sent, then `RESET` unless both directions have ended. Received bytes stay readable
//! after `FIN`, `RESET` and the session's end.
//!
//! # Bounds
//!
//! The peer is not trusted: whatever it sends, this side holds at most [`Config::receive_budget`] and 16 KiB per stream
//! in unread bytes (and, because large payloads are not copied out of their read buffer, eight times that in
//! the worst case a peer can arrange), 8 MiB in unsent ones, [`Config::max_streams`] streams each way and
//! [`Config::backlog`] unanswered ones. Data beyond the credit, numbers out of turn and frames that do not fit a
//! stream's state end the session; unknown services only their stream. A stream that nobody reads
//! runs out of credit and stops alone; the writer takes one chunk of each stream in turn, answers and credits first.

mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake;
mod receive;
mod session;
mod state;
mod stream;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{oneshot, watch};

pub use handshake::{MAX_VERSION, MIN_VERSION};

use crate::link::Inner;
use crate::{CloseReason, Error, Link, Reply, StreamHeader};
use handshake::{ACK, FILLER, Greeting, HELLO, Nonce, choose, scan};
use receive::ReadBuffer;
use session::{Session, Transport, wake_all};
pub(crate) use stream::MuxStream;

static ZEROS: [u8; FILLER] = [0; FILLER];

/// How often the guest greets until it is answered.
const HELLO_INTERVAL: Duration = Duration::from_millis(200);

/// Which end of the byte stream this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Waits for greetings, and outlives sessions.
    Host,
    /// Greets.
    Guest,
}

impl Role {
    fn first_stream(self) -> u32 {
        match self {
            Role::Host => 1,
            Role::Guest => 2,
        }
    }
}

/// Limits and times of a session; each side has its own.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes that one stream may have under way or unread, at most.
    pub window: u32,
    /// Bytes that all streams together may have under way or unread before new credit becomes scarce.
    pub receive_budget: usize,
    /// Streams open at a time, for each side.
    pub max_streams: usize,
    /// Incoming streams that may wait for their answer.
    pub backlog: usize,
    /// How long an incoming stream may wait for its answer before it is refused.
    pub answer_deadline: Duration,
    /// How long an opener waits for the answer.
    pub open_deadline: Duration,
    /// Silence after which the peer is pinged; `None` for never.
    pub ping_interval: Option<Duration>,
    /// Silence after a ping that ends the session. A guest without hardware acceleration may stall for seconds.
    pub ping_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            window: 1024 * 1024,
            receive_budget: 64 * 1024 * 1024,
            max_streams: 16384,
            backlog: 1024,
            answer_deadline: Duration::from_secs(60),
            open_deadline: Duration::from_secs(75),
            ping_interval: Some(Duration::from_secs(10)),
            ping_timeout: Duration::from_secs(30),
        }
    }
}

/// Begins one session over `io` and returns its link; `io` is dropped when the session ends.
///
/// A guest greets until it is answered; a host waits for a greeting. Neither gives up by itself.
///
/// # Errors
/// [`Error::Version`] when the peers have no version in common, [`Error::Closed`] or [`Error::Io`] when the byte stream
/// ends or fails first.
pub async fn connect(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    role: Role,
    config: Config,
) -> Result<Link, Error> {
    let (read, write) = tokio::io::split(io);
    connect_halves(read, write, role, config).await
}

/// Does the same as [`connect`] with a byte stream whose halves need no lock between them.
///
/// # Errors
/// As [`connect`].
pub async fn connect_halves(
    read: impl AsyncRead + Send + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
    role: Role,
    config: Config,
) -> Result<Link, Error> {
    match role {
        Role::Host => HostListener::from_halves(read, write, config).next().await,
        Role::Guest => {
            let mut transport = Transport::new(read, write);
            let nonce = Nonce::random();
            greet(&mut transport, nonce).await?;
            Ok(Link::new(Inner::Mux(Handle::start(transport, Role::Guest, nonce, config).0)))
        }
    }
}

/// The host's end of a byte stream, which yields one session after the other.
pub struct HostListener {
    transport: Option<Transport>,
    running: Option<oneshot::Receiver<Transport>>,
    config: Config,
}

impl std::fmt::Debug for HostListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostListener").field("running", &self.running.is_some()).finish_non_exhaustive()
    }
}

impl HostListener {
    /// Takes a byte stream over.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + 'static, config: Config) -> HostListener {
        let (read, write) = tokio::io::split(io);
        HostListener::from_halves(read, write, config)
    }

    /// Takes a byte stream over whose halves need no lock between them.
    pub fn from_halves(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
        config: Config,
    ) -> HostListener {
        HostListener { transport: Some(Transport::new(read, write)), running: None, config }
    }

    /// Waits for the previous session to end and for the guest's next greeting. Cancelling loses nothing.
    ///
    /// Call it in a loop: a session that answered the stale greeting of a dead guest ends as soon as the living one
    /// speaks, and the next one is its.
    ///
    /// # Errors
    /// [`Error::Closed`] when the byte stream has ended, [`Error::Io`] when it failed.
    pub async fn next(&mut self) -> Result<Link, Error> {
        if let Some(running) = &mut self.running {
            // A session that could not give the byte stream back has lost it.
            self.transport = running.await.ok();
            self.running = None;
            if let Some(transport) = &mut self.transport {
                transport.out.push_back(Bytes::from_static(&ZEROS));
            }
        }
        let hung_up = || Error::Closed { reason: CloseReason::HungUp };
        let transport = self.transport.as_mut().ok_or_else(hung_up)?;
        let nonce = match wait_for_greeting(transport).await {
            Ok(nonce) => nonce,
            Err(error) => {
                self.transport = None;
                return Err(error);
            }
        };
        let transport = self.transport.take().ok_or_else(hung_up)?;
        let (handle, running) = Handle::start(transport, Role::Host, nonce, self.config.clone());
        self.running = Some(running);
        Ok(Link::new(Inner::Mux(handle)))
    }
}

impl Transport {
    fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Transport {
        let out = VecDeque::from([Bytes::from_static(&ZEROS)]);
        Transport { read: Box::new(read), write: Box::new(write), buffer: ReadBuffer::new(), out }
    }

    /// Reads some more, and writes what waits meanwhile.
    async fn exchange(&mut self) -> Result<(), Error> {
        self.buffer.make_room();
        let io = |source| match session::io_reason(&source) {
            CloseReason::HungUp => Error::Closed { reason: CloseReason::HungUp },
            _ => Error::Io { action: "greet over the link".to_owned(), source },
        };
        tokio::select! {
            biased;
            read = self.read.read_buf(&mut self.buffer.bytes) => match read {
                Ok(0) => Err(Error::Closed { reason: CloseReason::HungUp }),
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => Err(io(error)),
            },
            wrote = write_some(&mut self.write, &mut self.out), if !self.out.is_empty() => wrote.map_err(io),
        }
    }
}

async fn write_some(write: &mut session::BoxWrite, out: &mut VecDeque<Bytes>) -> io::Result<()> {
    while let Some(first) = out.front_mut() {
        let count = write.write(first).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        first.advance(count);
        if first.is_empty() {
            out.pop_front();
        }
    }
    write.flush().await
}

/// The host's half of the handshake: what is no greeting is discarded.
async fn wait_for_greeting(transport: &mut Transport) -> Result<Nonce, Error> {
    loop {
        // Of several greetings the last one counts: the others are of sessions that are dead already.
        let mut newest = None;
        loop {
            let scanned = scan(&transport.buffer.bytes, HELLO);
            transport.buffer.discard(scanned.consumed);
            match scanned.found {
                Some(hello) => newest = Some(hello),
                None => break,
            }
        }
        if let Some(hello) = newest {
            let chosen = choose(hello.versions);
            let ack = Greeting { versions: (chosen.unwrap_or(0), MAX_VERSION), nonce: hello.nonce };
            // Refusals do not pile up while nobody reads.
            if chosen.is_some() || transport.out.len() < 2 {
                transport.out.push_back(Bytes::copy_from_slice(&ack.encode(ACK)));
            }
            match chosen {
                Some(_) => return Ok(hello.nonce),
                None => tracing::warn!(
                    guest_min = hello.versions.0,
                    guest_max = hello.versions.1,
                    "guest speaks no link version of ours"
                ),
            }
        }
        transport.exchange().await?;
    }
}

/// The guest's half of the handshake.
async fn greet(transport: &mut Transport, nonce: Nonce) -> Result<(), Error> {
    let hello = Greeting { versions: (MIN_VERSION, MAX_VERSION), nonce }.encode(HELLO);
    let mut ticks = tokio::time::interval(HELLO_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let scanned = scan(&transport.buffer.bytes, ACK);
        transport.buffer.discard(scanned.consumed);
        match scanned.found {
            Some(ack) if ack.nonce == nonce => match ack.versions {
                (0, host_max) => {
                    return Err(Error::Version {
                        host_min: MIN_VERSION.min(host_max),
                        host_max,
                        guest_min: MIN_VERSION,
                        guest_max: MAX_VERSION,
                    });
                }
                (MIN_VERSION..=MAX_VERSION, _) => return Ok(()),
                _ => continue,
            },
            Some(_) => continue,
            None => {}
        }
        tokio::select! {
            biased;
            done = transport.exchange() => done?,
            _ = ticks.tick() => {
                // Greetings do not pile up while nobody reads.
                if transport.out.len() < 2 {
                    transport.out.push_back(Bytes::copy_from_slice(&hello));
                }
            }
        }
    }
}

/// Ends the session when the last handle, stream and offer is gone.
#[derive(Debug)]
pub(crate) struct Guard {
    session: Arc<Session>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.session.abandon();
    }
}

/// A session, as [`Link`] holds it.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    guard: Arc<Guard>,
    open_deadline: Duration,
}

impl Handle {
    fn start(
        transport: Transport,
        role: Role,
        nonce: Nonce,
        config: Config,
    ) -> (Handle, oneshot::Receiver<Transport>) {
        let (give_back, running) = oneshot::channel();
        let open_deadline = config.open_deadline;
        let session = session::start(transport, role, nonce, config, give_back);
        (Handle { guard: Arc::new(Guard { session }), open_deadline }, running)
    }

    pub(crate) async fn open(&self, header: &StreamHeader) -> Result<(MuxStream, Reply), Error> {
        let bytes = header.encode().map_err(|source| Error::Frame { source })?;
        let session = &self.guard.session;
        let opened = {
            let mut state = session.state();
            if let Some(reason) = state.dead() {
                return Err(Error::Closed { reason: reason.clone() });
            }
            state.open(bytes)
        };
        let id = opened.map_err(|limit| Error::TooManyStreams { limit })?;
        // From here on, dropping the stream withdraws the question.
        let stream = MuxStream::new(id, self.guard.clone());
        session.kick();
        let answer = poll_fn(|cx| session.state().poll_reply(id, cx.waker()));
        match tokio::time::timeout(self.open_deadline, answer).await {
            Ok(Ok(reply)) => Ok((stream, reply)),
            Ok(Err(reason)) => Err(Error::Closed { reason }),
            Err(_) => Err(Error::Unanswered { waited: self.open_deadline }),
        }
    }

    pub(crate) async fn accept(&self) -> Result<(StreamHeader, Offer), Error> {
        let session = &self.guard.session;
        loop {
            let notified = session.offered.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let mut state = session.state();
                if let Some(reason) = state.dead() {
                    return Err(Error::Closed { reason: reason.clone() });
                }
                if let Some((id, header)) = state.next_offer() {
                    return Ok((header, Offer { id, guard: Some(self.guard.clone()) }));
                }
            }
            notified.await;
        }
    }

    pub(crate) fn close(&self) {
        self.guard.session.fail(CloseReason::Local);
    }

    pub(crate) fn closed(&self) -> watch::Receiver<Option<CloseReason>> {
        self.guard.session.closed()
    }
}

/// A stream that the peer has opened and nobody has answered.
#[derive(Debug)]
pub(crate) struct Offer {
    id: u32,
    /// Taken by the answer.
    guard: Option<Arc<Guard>>,
}

impl Offer {
    pub(crate) fn accept(mut self, data: Option<Value>) -> Result<MuxStream, Error> {
        let reply = Reply::ok(data);
        let guard = match &self.guard {
            Some(guard) => guard.clone(),
            None => return Err(Error::Withdrawn),
        };
        // Data that fits no frame is refused here, where the offer can still be refused.
        reply.encode().map_err(|source| Error::Frame { source })?;
        let mut state = guard.session.state();
        if let Some(reason) = state.dead() {
            return Err(Error::Closed { reason: reason.clone() });
        }
        let accepted = state.accept(self.id, &reply);
        drop(state);
        if !accepted {
            return Err(Error::Withdrawn);
        }
        self.guard = None;
        guard.session.kick();
        Ok(MuxStream::new(self.id, guard))
    }

    pub(crate) fn refuse(mut self, reply: &Reply) {
        if let Some(guard) = self.guard.take() {
            guard.session.state().refuse(self.id, reply);
            guard.session.kick();
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            let mut wakes = Vec::new();
            guard.session.state().release(self.id, &mut wakes);
            wake_all(&mut wakes);
            guard.session.kick();
        }
    }
}
