//! The master side of a terminal, without blocking.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::OFlags;
use rustix::termios::Winsize;
use tokio::io::AsyncWrite;
use tokio::io::unix::AsyncFd;

/// An open terminal's master side.
#[derive(Debug)]
pub struct PtyMaster(AsyncFd<OwnedFd>);

impl PtyMaster {
    /// Takes over a master descriptor.
    ///
    /// # Errors
    /// When it can't be made non-blocking or registered.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "an OwnedFd stays open while it is registered, which is all its unsafe twin asks"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    /// Reads what the terminal shows. Zero once no process has it open.
    ///
    /// # Errors
    /// As read(2), except for `EIO`, which is the end.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut *buffer)?)) {
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    return Ok(0);
                }
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Sets the window size; the foreground process gets `SIGWINCH`.
    ///
    /// # Errors
    /// As `TIOCSWINSZ` (ioctl_tty(2)).
    pub fn resize(&self, size: Winsize) -> io::Result<()> {
        Ok(rustix::termios::tcsetwinsize(self.0.get_ref(), size)?)
    }
}

/// What types into a terminal.
#[derive(Debug)]
pub struct PtyInput(pub Arc<PtyMaster>);

impl AsyncWrite for PtyInput {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.0.poll_write_ready(context))?;
            if let Ok(result) = ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
