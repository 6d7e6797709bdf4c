//! The byte stream below hyper: follows where requests begin and end, and shows those that want a bare hijack as
//! `CONNECT`.
//!
//! ```text
//!            ┌───────────────────────────── no body, no upgrade ─┐
//!            ▼                                                    │
//!          Head ──► Body(n) / Chunk… ──► (upgrade asked?) ──no──► Head
//!            │                                 │ yes
//!            │ not HTTP/1, too long            ▼
//!            │                              Undecided ── refused ──► Head
//!            ▼                                 │ hijacked
//!         Through ◄────────────────────────────┘
//! ```
//!
//! While it is undecided whether a connection is hijacked, nothing is read: bytes after the request are the next
//! request's or the container's, and only the answer tells.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::{BodyLength, Head, Parsed, is_detached};
use super::target::spelled_out;

/// The longest request head that is looked at; hyper judges longer ones, without the bare hijack.
const HEAD_LIMIT: usize = 64 << 10;
const READ_SIZE: usize = 8 << 10;
/// The beginning of HTTP/2, whose frames are none of our business.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// The answer's side of a gate: tells whether the last request hijacked the connection.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    state: AtomicU8,
    waker: AtomicWaker,
}

const WAITING: u8 = 0;
const REFUSED: u8 = 1;
const HIJACKED: u8 = 2;

impl Verdict {
    /// The connection now carries something else than HTTP/1 requests.
    pub fn hijacked(&self) {
        self.settle(HIJACKED);
    }

    /// The next bytes are another request. Harmless if nobody waits.
    pub fn refused(&self) {
        self.settle(REFUSED);
    }

    fn settle(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.waker.wake();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    /// In the line with a chunk's size: the size so far, and whether its digits are over.
    ChunkSize {
        size: u64,
        digits_over: bool,
    },
    ChunkData(u64),
    /// The line end behind a chunk's data.
    ChunkEnd,
    /// Lines after the last chunk; whether the present one is empty so far.
    Trailer {
        line_empty: bool,
    },
    Undecided,
    Through,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Gate<C> {
    inner: C,
    state: State,
    /// Whether the request being read asks for an upgrade.
    upgrade: bool,
    /// Read, not looked at yet.
    incoming: BytesMut,
    /// Looked at, for hyper.
    ready: Bytes,
    verdict: Arc<Verdict>,
}

impl<C> Gate<C> {
    pub fn new(inner: C, verdict: Arc<Verdict>) -> Self {
        Self {
            inner,
            state: State::Head,
            upgrade: false,
            incoming: BytesMut::new(),
            ready: Bytes::new(),
            verdict,
        }
    }

    /// Returns the connection, and what was read of it and not passed on.
    pub fn into_inner(self) -> (C, Bytes) {
        let mut rest = BytesMut::from(self.ready);
        rest.extend_from_slice(&self.incoming);
        (self.inner, rest.freeze())
    }

    /// Moves on by what is in `incoming`; returns whether more must be read for that.
    fn advance(&mut self) -> bool {
        match self.state {
            State::Head => return !self.parse_head(),
            State::Body(0) => self.request_ends(),
            State::Body(left) => {
                if self.incoming.is_empty() {
                    return true;
                }
                self.state = State::Body(left - self.pass(left));
            }
            State::ChunkData(0) => self.state = State::ChunkEnd,
            State::ChunkData(left) => {
                if self.incoming.is_empty() {
                    return true;
                }
                self.state = State::ChunkData(left - self.pass(left));
            }
            State::ChunkSize { .. } | State::ChunkEnd | State::Trailer { .. } => {
                if self.incoming.is_empty() {
                    return true;
                }
                self.chunk_lines();
            }
            State::Undecided | State::Through => {
                if self.incoming.is_empty() {
                    return true;
                }
                self.pass(u64::MAX);
            }
        }
        false
    }

    /// Hands up to `limit` bytes to hyper.
    fn pass(&mut self, limit: u64) -> u64 {
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(self.incoming.len());
        self.ready = self.incoming.split_to(length).freeze();
        length as u64
    }

    fn request_ends(&mut self) {
        self.state = if self.upgrade { State::Undecided } else { State::Head };
    }

    /// Takes a head off `incoming` if it is complete (or none at all).
    fn parse_head(&mut self) -> bool {
        if self.incoming.is_empty() {
            return false;
        }
        let start = HTTP2_PREFACE.len().min(self.incoming.len());
        if self.incoming[..start] == HTTP2_PREFACE[..start] {
            if start < HTTP2_PREFACE.len() {
                return false;
            }
            self.state = State::Through;
            return true;
        }
        match Head::parse(&self.incoming) {
            Parsed::Partial if self.incoming.len() < HEAD_LIMIT => return false,
            Parsed::Partial | Parsed::Invalid => self.state = State::Through,
            Parsed::Complete(mut head) => {
                if let Some(config) = head.start_config() {
                    match self.incoming.get(head.length..head.length + config) {
                        // An exec started detached has an ordinary answer.
                        Some(body) => head.bare_hijack = !is_detached(body),
                        None => return false,
                    }
                }
                self.upgrade = head.upgrade || head.bare_hijack;
                if self.upgrade {
                    self.verdict.state.store(WAITING, Ordering::Release);
                }
                let mut bytes = spelled_out(self.incoming.split_to(head.length));
                if head.bare_hijack {
                    // Lines before the request line may be empty.
                    let method = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
                    let mut rewritten = BytesMut::with_capacity(bytes.len() + 3);
                    rewritten.extend_from_slice(b"CONNECT");
                    rewritten.extend_from_slice(&bytes[method + b"POST".len()..]);
                    bytes = rewritten;
                }
                self.ready = bytes.freeze();
                self.state = match head.body {
                    BodyLength::Known(length) => State::Body(length),
                    BodyLength::Chunked => State::ChunkSize { size: 0, digits_over: false },
                };
            }
        }
        true
    }

    /// Goes through the lines between the data of a chunked body. hyper judges whether they are right.
    fn chunk_lines(&mut self) {
        let mut length = 0;
        let mut state = self.state;
        while length < self.incoming.len() {
            let byte = self.incoming[length];
            length += 1;
            state = match (state, byte) {
                (State::ChunkSize { size: 0, .. }, b'\n') => State::Trailer { line_empty: true },
                (State::ChunkSize { size, .. }, b'\n') => State::ChunkData(size),
                (State::ChunkSize { size, digits_over: false }, _) => match char::from(byte).to_digit(16) {
                    Some(digit) => State::ChunkSize {
                        size: size.saturating_mul(16).saturating_add(u64::from(digit)),
                        digits_over: false,
                    },
                    None => State::ChunkSize { size, digits_over: true },
                },
                (State::ChunkEnd, b'\n') => State::ChunkSize { size: 0, digits_over: false },
                (State::Trailer { line_empty: true }, b'\n') => State::Body(0),
                (State::Trailer { .. }, b'\n') => State::Trailer { line_empty: true },
                (State::Trailer { line_empty }, b'\r') => State::Trailer { line_empty },
                (State::Trailer { .. }, _) => State::Trailer { line_empty: false },
                (same, _) => same,
            };
            if matches!(state, State::ChunkData(_) | State::Body(_)) {
                break;
            }
        }
        self.state = state;
        self.pass(length as u64);
    }
}

fn read_at_most(
    inner: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    limit: usize,
) -> Poll<io::Result<usize>> {
    let before = buf.filled().len();
    if buf.remaining() <= limit {
        ready!(Pin::new(inner).poll_read(cx, buf))?;
        return Poll::Ready(Ok(buf.filled().len() - before));
    }
    let mut part = ReadBuf::new(buf.initialize_unfilled_to(limit));
    ready!(Pin::new(inner).poll_read(cx, &mut part))?;
    let read = part.filled().len();
    buf.advance(read);
    Poll::Ready(Ok(read))
}

impl<C: AsyncRead + Unpin> AsyncRead for Gate<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        loop {
            if !gate.ready.is_empty() {
                let length = gate.ready.len().min(buf.remaining());
                buf.put_slice(&gate.ready[..length]);
                gate.ready.advance(length);
                return Poll::Ready(Ok(()));
            }
            if gate.state == State::Undecided {
                gate.verdict.waker.register(cx.waker());
                gate.state = match gate.verdict.state.load(Ordering::Acquire) {
                    HIJACKED => State::Through,
                    REFUSED => State::Head,
                    _ => return Poll::Pending,
                };
                continue;
            }
            if !gate.advance() {
                continue;
            }
            // Bodies go straight into hyper's buffer, up to where they end.
            let direct = match gate.state {
                State::Body(left) | State::ChunkData(left) => Some(left),
                State::Through => Some(u64::MAX),
                _ => None,
            };
            if let Some(limit) = direct {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let read = ready!(read_at_most(&mut gate.inner, cx, buf, limit))?;
                if let State::Body(left) | State::ChunkData(left) = &mut gate.state {
                    *left -= read as u64;
                }
                return Poll::Ready(Ok(()));
            }
            gate.incoming.reserve(READ_SIZE);
            let read =
                ready!(tokio_util::io::poll_read_buf(Pin::new(&mut gate.inner), cx, &mut gate.incoming))?;
            if read == 0 {
                // hyper judges what came until here.
                gate.state = State::Through;
                if gate.incoming.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Gate<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
