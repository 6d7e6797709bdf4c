//! Joins two streams until both directions have ended.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const SMALL: usize = 8 * 1024;
const LARGE: usize = 64 * 1024;

/// Copies in both directions and returns how many bytes went from `a` to `b` and from `b` to `a`.
///
/// An end of one side's bytes is passed on as a half-close of the other. Both streams are dropped before this returns
/// an error, so that a reset travels on. Where one side no longer takes bytes, what it still has to say is delivered
/// before the error is returned. A connection that moves nothing holds no buffers, a busy one 128 KiB.
///
/// # Errors
/// The first error of either stream.
pub async fn copy_both<A, B>(mut a: A, mut b: B) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut forth = Direction::new();
    let mut back = Direction::new();
    poll_fn(|cx| {
        let forth_done = forth.poll(cx, &mut a, &mut b)?;
        let back_done = back.poll(cx, &mut b, &mut a)?;
        if forth_done.is_pending() || back_done.is_pending() {
            return Poll::Pending;
        }
        match forth.broken.take().or_else(|| back.broken.take()) {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(Ok((forth.copied, back.copied))),
        }
    })
    .await
}

/// Joins a stream and a TCP connection until both directions have ended; a reset of either side resets the other.
///
/// # Errors
/// As [`copy_both`].
pub async fn copy_tcp(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut connection: tokio::net::TcpStream,
) -> io::Result<(u64, u64)> {
    let result = copy_both(stream, &mut connection).await;
    if let Err(error) = &result
        && error.kind() == io::ErrorKind::ConnectionReset
    {
        // Closing would look like a proper end. A connection that is gone already takes no options.
        let _ = connection.set_zero_linger();
    }
    result
}

enum Step {
    Copying,
    Ending,
    Done,
}

struct Direction {
    /// Nothing while nothing comes: most of very many connections are idle.
    buffer: Vec<u8>,
    /// How long the next buffer will be.
    size: usize,
    start: usize,
    end: usize,
    copied: u64,
    step: Step,
    /// The error that ended writing, while the other direction goes on.
    broken: Option<io::Error>,
}

impl Direction {
    fn new() -> Direction {
        let (buffer, step) = (Vec::new(), Step::Copying);
        Direction { buffer, size: SMALL, start: 0, end: 0, copied: 0, step, broken: None }
    }

    fn stop(&mut self, error: io::Error) -> Poll<io::Result<()>> {
        self.broken = Some(error);
        self.step = Step::Done;
        self.buffer = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Ready once this direction has ended; an error is one of reading, which ends both directions.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            match self.step {
                Step::Done => return Poll::Ready(Ok(())),
                Step::Ending => {
                    if let Err(error) = ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                        return self.stop(error);
                    }
                    self.step = Step::Done;
                    self.buffer = Vec::new();
                }
                Step::Copying if self.start < self.end => {
                    let unwritten = &self.buffer[self.start..self.end];
                    match ready!(Pin::new(&mut *to).poll_write(cx, unwritten)) {
                        Ok(0) => return self.stop(io::ErrorKind::WriteZero.into()),
                        Ok(n) => {
                            self.start += n;
                            self.copied += n as u64;
                        }
                        Err(error) => return self.stop(error),
                    }
                }
                Step::Copying => {
                    // A read that filled the buffer says that more comes.
                    if self.end == self.size && self.size < LARGE {
                        self.size *= 2;
                    }
                    if self.buffer.len() != self.size {
                        self.buffer = vec![0; self.size];
                    }
                    let mut buffer = ReadBuf::new(&mut self.buffer);
                    match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            if self.end <= self.size / 2 {
                                (self.buffer, self.size) = (Vec::new(), (self.size / 2).max(SMALL));
                                (self.start, self.end) = (0, 0);
                            }
                            // Writers that buffer must not sit on bytes while nothing more comes.
                            if let Err(error) = ready!(Pin::new(&mut *to).poll_flush(cx)) {
                                return self.stop(error);
                            }
                            return Poll::Pending;
                        }
                    }
                    (self.start, self.end) = (0, buffer.filled().len());
                    if self.end == 0 {
                        self.step = Step::Ending;
                    }
                }
            }
        }
    }
}
