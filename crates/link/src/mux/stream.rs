//! A stream of a session, as its user holds it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Guard;
use super::frame::MAX_PAYLOAD;
use super::session::wake_all;
use super::state::SMALL;

/// One stream of a multiplexed link.
#[derive(Debug)]
pub(crate) struct MuxStream {
    id: u32,
    guard: Arc<Guard>,
    /// The rest of a chunk that a read was too small for.
    current: Bytes,
}

impl MuxStream {
    pub(super) fn new(id: u32, guard: Arc<Guard>) -> MuxStream {
        MuxStream { id, guard, current: Bytes::new() }
    }

    fn write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let want: usize = slices.iter().map(|slice| slice.len()).sum();
        if want == 0 {
            return Poll::Ready(Ok(0));
        }
        let session = &self.guard.session;
        let mut state = session.state();
        let room = ready!(state.poll_reserve(self.id, want, cx.waker()))?;
        if let [slice] = slices
            && room <= SMALL
        {
            state.append(self.id, &slice[..room]);
            drop(state);
        } else {
            let mut chunk =
                if room > MAX_PAYLOAD / 2 { state.chunk() } else { BytesMut::with_capacity(room) };
            drop(state);
            let mut left = room;
            for slice in slices {
                let part = &slice[..slice.len().min(left)];
                chunk.extend_from_slice(part);
                left -= part.len();
            }
            session.state().commit(self.id, chunk);
        }
        session.kick();
        Poll::Ready(Ok(room))
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.current.is_empty() {
            let session = &self.guard.session;
            let mut state = session.state();
            let read = state.poll_read(self.id, cx.waker());
            let output = state.has_output();
            drop(state);
            if output {
                session.kick();
            }
            self.current = ready!(read)?;
        }
        let count = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current[..count]);
        self.current.advance(count);
        if self.current.is_empty() {
            self.current = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = &self.guard.session;
        session.state().finish(self.id)?;
        session.kick();
        Poll::Ready(Ok(()))
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        let session = &self.guard.session;
        let mut wakes = Vec::new();
        session.state().release(self.id, &mut wakes);
        wake_all(&mut wakes);
        session.kick();
    }
}
