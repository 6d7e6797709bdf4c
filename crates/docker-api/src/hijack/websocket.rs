//! A WebSocket (RFC 6455) as a stream of bytes: what arrives in data frames is read, what is written goes out in frames.
//!
//! ```text
//!  client ── masked frames ──► payload ──► reader        ping is answered, close is the end of the input
//!  client ◄── frames ───────── payload ◄── writer        a shutdown sends close
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::{Connection, Presence};
use crate::error::{ApiError, Result};

/// What the key of a handshake is hashed with (RFC 6455, 1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The longest payload of one frame that we send.
const LONGEST: usize = 32 << 10;
const READ_SIZE: usize = 8 << 10;
/// The longest payload of a control frame (RFC 6455, 5.5).
const LONGEST_CONTROL: u64 = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What kind of frames output goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frames {
    /// As every client that names a version before 1.28 expects.
    Text,
    /// Output is bytes.
    Binary,
}

/// A client's offer to speak WebSocket, accepted.
#[derive(Debug, Clone)]
pub(crate) struct Handshake {
    /// The proof that we speak it.
    pub accept: HeaderValue,
    /// The subprotocol, where the client offers just one.
    pub protocol: Option<HeaderValue>,
    /// What output goes into.
    pub frames: Frames,
}

impl Handshake {
    /// Judges a request's headers.
    ///
    /// # Errors
    /// 400 when they don't ask for a WebSocket.
    pub fn new(headers: &HeaderMap, frames: Frames) -> Result<Self> {
        let is = |name, wanted: &str| {
            headers
                .get(name)
                .is_some_and(|value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
        };
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is(UPGRADE, "websocket"));
        let Some(key) = key.filter(|_| is(SEC_WEBSOCKET_VERSION, "13")) else {
            return Err(ApiError::bad_request("not websocket protocol"));
        };
        let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(MAGIC).finalize();
        let accept = HeaderValue::try_from(STANDARD.encode(digest))
            .map_err(|error| ApiError::internal(error.to_string()))?;
        let protocol = headers.get(SEC_WEBSOCKET_PROTOCOL).filter(|offer| !offer.as_bytes().contains(&b','));
        Ok(Self { accept, protocol: protocol.cloned(), frames })
    }
}

/// The header of a client's frame.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    opcode: u8,
    length: u64,
    mask: [u8; 4],
    /// Bytes of the header itself.
    size: usize,
}

/// Reads a header; `None` when more bytes are needed.
fn header(bytes: &[u8]) -> io::Result<Option<Header>> {
    let invalid = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return invalid("a frame uses an extension that was not agreed on");
    }
    if second & 0x80 == 0 {
        return invalid("a client's frame is not masked");
    }
    let opcode = first & 0x0f;
    let (length, wide) = match second & 0x7f {
        126 => match rest {
            [high, low, ..] => (u64::from(u16::from_be_bytes([*high, *low])), 2),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (u64::from_be_bytes(*length), 8),
            None => return Ok(None),
        },
        length => (u64::from(length), 0),
    };
    if opcode >= CLOSE && (length > LONGEST_CONTROL || first & 0x80 == 0) {
        return invalid("a control frame is too long, or one of several");
    }
    match rest[wide..].first_chunk::<4>() {
        Some(mask) => Ok(Some(Header { opcode, length, mask: *mask, size: 2 + wide + 4 })),
        None => Ok(None),
    }
}

fn put_frame(out: &mut BytesMut, opcode: u8, payload: &[u8]) {
    out.put_u8(0x80 | opcode);
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => out.put_u8(length as u8),
        Ok(length) => {
            out.put_u8(126);
            out.put_u16(length);
        }
        Err(_) => {
            out.put_u8(127);
            out.put_u64(payload.len() as u64);
        }
    }
    out.put_slice(payload);
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct WebSocket<C> {
    inner: C,
    frames: Frames,
    /// Read, not looked at yet.
    incoming: BytesMut,
    /// What is left of the payload of the present data frame, and its mask, turned to the next byte.
    left: u64,
    mask: [u8; 4],
    /// Whether the client has closed its side.
    ended: bool,
    /// Frames on their way out.
    outgoing: BytesMut,
    closed: bool,
}

impl<C: Connection> WebSocket<C> {
    /// Speaks WebSocket on a connection after the handshake; `early` is what was read of it already.
    pub fn new(inner: C, early: Bytes, frames: Frames) -> Self {
        Self {
            inner,
            frames,
            incoming: BytesMut::from(early),
            left: 0,
            mask: [0; 4],
            ended: false,
            outgoing: BytesMut::new(),
            closed: false,
        }
    }

    fn unmask(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= self.mask[0];
            self.mask.rotate_left(1);
        }
    }

    /// Takes the next frame off `incoming`; false when it is not complete enough for that.
    fn next_frame(&mut self) -> io::Result<bool> {
        let Some(header) = header(&self.incoming)? else { return Ok(false) };
        let is_data = matches!(header.opcode, CONTINUATION | TEXT | BINARY);
        if !is_data && ((self.incoming.len() - header.size) as u64) < header.length {
            return Ok(false);
        }
        self.incoming.advance(header.size);
        self.mask = header.mask;
        if is_data {
            self.left = header.length;
            return Ok(true);
        }
        let mut payload = self.incoming.split_to(header.length as usize);
        self.unmask(&mut payload);
        match header.opcode {
            CLOSE => self.ended = true,
            PING => put_frame(&mut self.outgoing, PONG, &payload),
            // Answers to pings that we never send, and what does not exist.
            _ => {}
        }
        Ok(true)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: Connection> AsyncRead for WebSocket<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = &mut *self;
        loop {
            if socket.ended {
                return Poll::Ready(Ok(()));
            }
            if socket.left > 0 && !socket.incoming.is_empty() {
                let left = usize::try_from(socket.left).unwrap_or(usize::MAX);
                let length = left.min(socket.incoming.len()).min(buf.remaining());
                let mut payload = socket.incoming.split_to(length);
                socket.left -= length as u64;
                socket.unmask(&mut payload);
                buf.put_slice(&payload);
                return Poll::Ready(Ok(()));
            }
            if socket.left == 0 && socket.next_frame()? {
                if let Poll::Ready(Err(error)) = socket.poll_send(cx) {
                    return Poll::Ready(Err(error));
                }
                continue;
            }
            socket.incoming.reserve(READ_SIZE);
            let inner = Pin::new(&mut socket.inner);
            if ready!(tokio_util::io::poll_read_buf(inner, cx, &mut socket.incoming))? == 0 {
                socket.ended = true;
            }
        }
    }
}

impl<C: Connection> AsyncWrite for WebSocket<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // One frame at a time: a client that does not read is not buffered for.
        ready!(self.poll_send(cx))?;
        let payload = &buf[..buf.len().min(LONGEST)];
        let opcode = match self.frames {
            Frames::Text => TEXT,
            Frames::Binary => BINARY,
        };
        put_frame(&mut self.outgoing, opcode, payload);
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(payload.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closed, true) {
            // 1000: it has done what it was for.
            put_frame(&mut self.outgoing, CLOSE, &1000u16.to_be_bytes());
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<C: Connection> Connection for WebSocket<C> {
    fn presence(&self) -> Presence {
        self.inner.presence()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A frame as a client sends it.
    fn masked(opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::new();
        put_frame(&mut frame, opcode, payload);
        let size = frame.len() - payload.len();
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut bytes = frame[..size].to_vec();
        bytes[0] = bytes[0] & 0x7f | u8::from(last) << 7;
        bytes[1] |= 0x80;
        bytes.extend(mask);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        bytes
    }

    fn pair() -> (DuplexStream, WebSocket<DuplexStream>) {
        let (client, server) = duplex(1 << 20);
        (client, WebSocket::new(server, Bytes::new(), Frames::Binary))
    }

    #[test]
    fn the_handshake_of_the_rfc_is_answered_as_in_the_rfc() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_static;
        headers.insert(UPGRADE, value("WebSocket"));
        headers.insert(SEC_WEBSOCKET_KEY, value("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(Handshake::new(&headers, Frames::Text).unwrap_err().status, 400);
        headers.insert(SEC_WEBSOCKET_VERSION, value("13"));
        let handshake = Handshake::new(&headers, Frames::Text).unwrap();
        assert_eq!(handshake.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn pings_are_answered_and_a_close_ends_the_input() {
        let (mut client, mut socket) = pair();
        client.write_all(&masked(TEXT, false, b"he")).await.unwrap();
        client.write_all(&masked(PING, true, b"are you there")).await.unwrap();
        client.write_all(&masked(CONTINUATION, true, b"llo")).await.unwrap();
        client.write_all(&masked(CLOSE, true, &[3, 232])).await.unwrap();
        let mut input = Vec::new();
        socket.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"hello");
        socket.write_all(b"out").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.unwrap();
        assert_eq!(output, b"\x8a\x0dare you there\x82\x03out\x88\x02\x03\xe8");
    }

    #[tokio::test]
    async fn frames_that_no_client_may_send_end_the_connection() {
        for bytes in [&b"\x82\x01x"[..], b"\xc2\x81abcdx", b"\x89\xfe\x00\x80abcd", b"\x09\x81abcdx"] {
            let (mut client, mut socket) = pair();
            client.write_all(bytes).await.unwrap();
            let error = socket.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some(header)) = header(&bytes) {
                prop_assert!(header.size <= bytes.len());
            }
        }

        #[test]
        fn payloads_arrive_whole_however_they_are_cut(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
            cut in 1usize..50,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut client, mut socket) = pair();
                let wire: Vec<u8> = parts.iter().flat_map(|part| masked(BINARY, true, part)).collect();
                let write = async {
                    for piece in wire.chunks(cut) {
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    client.shutdown().await.unwrap();
                };
                let mut input = Vec::new();
                let (_, read) = tokio::join!(write, socket.read_to_end(&mut input));
                read.unwrap();
                prop_assert_eq!(input, parts.concat());
                Ok(())
            })?;
        }
    }
}
