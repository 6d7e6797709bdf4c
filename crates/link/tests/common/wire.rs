//! A guest made by hand, for what the real one never does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use skiff_link::mux::{Config, HostListener};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

pub const OPEN: u8 = 1;
pub const REPLY: u8 = 2;
pub const DATA: u8 = 3;
pub const FIN: u8 = 4;
pub const RESET: u8 = 5;
pub const CREDIT: u8 = 6;
pub const PING: u8 = 7;
pub const PONG: u8 = 8;

/// The nonce of every guest made by hand.
pub const NONCE: [u8; 16] = *b"hostGUST00000000";

/// A header frame without arguments.
pub fn header(service: u8) -> Vec<u8> {
    vec![1, service, 0, 0]
}

/// A frame from the guest.
pub fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame_with_tag(kind, stream, payload, b"GUST")
}

/// A frame with a tag of the caller's.
pub fn frame_with_tag(kind: u8, stream: u32, payload: &[u8], tag: &[u8; 4]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(stream.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(payload);
    bytes.extend(tag);
    bytes
}

/// A greeting with its check.
pub fn greeting(magic: &[u8; 16], versions: (u16, u16), nonce: [u8; 16]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend(versions.0.to_le_bytes());
    bytes.extend(versions.1.to_le_bytes());
    bytes.extend(nonce);
    let check =
        bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    bytes.extend(check.to_le_bytes());
    bytes
}

/// Reads bytes up to the guest's greeting and returns its nonce.
pub async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> [u8; 16] {
    let mut last = Vec::new();
    loop {
        let byte = stream.read_u8().await.unwrap();
        // The filler is long; the greeting begins with the first byte that is not zero.
        if !last.is_empty() || byte != 0 {
            last.push(byte);
        }
        if last.len() == 40 {
            assert_eq!(last[..20], hello(NONCE)[..20]);
            return last[20..36].try_into().unwrap();
        }
    }
}

/// A greeting of the guest.
pub fn hello(nonce: [u8; 16]) -> Vec<u8> {
    greeting(b"\xF5SKIFF-LINK-HI\r\n", (1, 1), nonce)
}

/// The host's answer.
pub fn ack(nonce: [u8; 16]) -> Vec<u8> {
    greeting(b"\xF5SKIFF-LINK-OK\r\n", (1, 1), nonce)
}

/// The guest's end of a byte stream.
pub struct RawGuest<S = UnixStream> {
    pub stream: S,
}

impl RawGuest {
    /// A host that listens, and a guest that has sent its greeting and will be in session at once.
    pub async fn with_host(config: Config) -> (RawGuest, HostListener) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, write) = theirs.into_split();
        let mut guest = RawGuest { stream: ours };
        guest.stream.write_all(&hello(NONCE)).await.unwrap();
        (guest, HostListener::from_halves(read, write, config))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawGuest<S> {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads up to the end of the answer to the greeting.
    pub async fn read_ack(&mut self) {
        let expected = ack(NONCE);
        let mut seen = Vec::new();
        while !seen.ends_with(&expected) {
            seen.push(self.stream.read_u8().await.unwrap());
        }
    }

    /// Reads one frame: type, stream, payload.
    pub async fn read_frame(&mut self) -> (u8, u32, Vec<u8>) {
        let mut head = [0; 12];
        self.stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_le_bytes(head[8..].try_into().unwrap()) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.unwrap();
        let mut tag = [0; 4];
        self.stream.read_exact(&mut tag).await.unwrap();
        assert_eq!(&tag, b"host");
        (head[0], u32::from_le_bytes(head[4..8].try_into().unwrap()), payload)
    }

    /// Reads frames up to the first of this type.
    pub async fn read_until(&mut self, kind: u8) -> (u32, Vec<u8>) {
        loop {
            let (found, stream, payload) = self.read_frame().await;
            if found == kind {
                return (stream, payload);
            }
        }
    }
}

/// A byte stream that outlives whoever uses it, as a virtio port does.
#[derive(Clone)]
pub struct Port(pub Arc<UnixStream>);

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
