//! A virtio-serial port in the guest, as an asynchronous byte stream.
//!
//! The port is a character device with habits of its own (`drivers/char/virtio_console.c`): while nothing is connected
//! on the host it polls as hung up, reads give 0 and writes `EAGAIN`; writes take at most 32 KiB, reads give at most a
//! page; and it can be opened once at a time. Here a device that was opened before the host connects waits, trying
//! again at growing intervals; one that has been talked to and then loses the host ends, so that a session over it
//! ends too. Open it again for the next.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::Sleep;

const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(100);
const SCRATCH: usize = 64 * 1024;

/// An open port; its halves can be used from two tasks without a lock.
#[derive(Debug)]
pub struct Device {
    read: ReadHalf,
    write: WriteHalf,
}

/// Opens the port at `path`, usually below `/dev/virtio-ports`.
///
/// # Errors
/// The system's; `ResourceBusy` when the port is open already. Must be called in a tokio runtime.
pub fn open(path: &Path) -> io::Result<Device> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Device::from_fd(rustix::fs::open(path, flags, Mode::empty())?)
}

impl Device {
    /// Takes over an open, non-blocking descriptor.
    ///
    /// # Errors
    /// The system's, for descriptors that cannot be polled.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Device> {
        let twin = fd.try_clone()?;
        Ok(Device {
            read: ReadHalf {
                port: Port::new(fd, Interest::READABLE)?,
                heard: false,
                scratch: vec![0; SCRATCH],
            },
            write: WriteHalf { port: Port::new(twin, Interest::WRITABLE)? },
        })
    }

    /// Returns the two halves.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }
}

/// A descriptor and its registration with the runtime.
#[derive(Debug)]
struct Port {
    /// Absent only while it is registered anew.
    fd: Option<AsyncFd<OwnedFd>>,
    interest: Interest,
    waiting: Option<(Pin<Box<Sleep>>, Duration)>,
}

#[expect(
    deprecated,
    reason = "its unsafe successor asks that the descriptor stays the same, and an `OwnedFd` does"
)]
fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

impl Port {
    fn new(fd: OwnedFd, interest: Interest) -> io::Result<Port> {
        Ok(Port { fd: Some(register(fd, interest)?), interest, waiting: None })
    }

    fn registered(&self) -> io::Result<&AsyncFd<OwnedFd>> {
        self.fd.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    fn wait(&mut self) {
        self.waiting = Some((Box::pin(tokio::time::sleep(FIRST_WAIT)), FIRST_WAIT));
    }

    /// Waits out a hang-up.
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((sleep, pause)) = &mut self.waiting {
            ready!(sleep.as_mut().poll(cx));
            let pause = (*pause * 2).min(LONGEST_WAIT);
            let fd = self.registered()?;
            let mut polled = [PollFd::new(fd.get_ref(), PollFlags::IN | PollFlags::OUT)];
            rustix::event::poll(&mut polled, Some(&rustix::event::Timespec::default()))?;
            let seen = polled[0].revents();
            if seen.contains(PollFlags::HUP) && !seen.contains(PollFlags::IN) {
                self.waiting = Some((Box::pin(tokio::time::sleep(pause)), pause));
                continue;
            }
            // The runtime takes a hang-up for final and would report the descriptor ready for ever.
            if let Some(fd) = self.fd.take() {
                self.fd = Some(register(fd.into_inner(), self.interest)?);
            }
            self.waiting = None;
        }
        Poll::Ready(Ok(()))
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct ReadHalf {
    port: Port,
    /// The host has sent something since the device was opened.
    heard: bool,
    scratch: Vec<u8>,
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let want = buffer.remaining().min(this.scratch.len());
        if want == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(this.port.poll_connected(cx))?;
            let fd = this.port.registered()?;
            let mut guard = ready!(fd.poll_read_ready(cx))?;
            let mut filled = 0;
            let outcome = loop {
                match rustix::io::read(fd.get_ref(), &mut this.scratch[filled..want]) {
                    Ok(0) => break Ok(false),
                    Ok(count) => filled += count,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(rustix::io::Errno::AGAIN) => break Ok(true),
                    Err(error) => break Err(error),
                }
                if filled == want {
                    break Ok(false);
                }
            };
            let closed = guard.ready().is_read_closed();
            if outcome == Ok(true) && !closed {
                guard.clear_ready();
            }
            if filled > 0 {
                this.heard = true;
                buffer.put_slice(&this.scratch[..filled]);
                return Poll::Ready(Ok(()));
            }
            match outcome {
                // Nobody is connected on the host.
                Ok(false) if this.heard => return Poll::Ready(Ok(())),
                Ok(false) => this.port.wait(),
                Ok(true) if closed => this.port.wait(),
                Ok(true) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

/// The half that writes.
#[derive(Debug)]
pub struct WriteHalf {
    port: Port,
}

impl AsyncWrite for WriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            ready!(self.port.poll_connected(cx))?;
            let fd = self.port.registered()?;
            let mut guard = ready!(fd.poll_write_ready(cx))?;
            match rustix::io::write(fd.get_ref(), bytes) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => {
                    if guard.ready().is_write_closed() {
                        drop(guard);
                        self.port.wait();
                    } else {
                        guard.clear_ready();
                    }
                }
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A port has no half-close.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Device {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Device {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::pipe::PipeFlags;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A FIFO without a writer behaves like a port without a host: hung up, and reads give 0.
    fn fifo() -> (tempfile::TempDir, std::path::PathBuf, ReadHalf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        let port = Port::new(fd, Interest::READABLE).unwrap();
        (directory, path, ReadHalf { port, heard: false, scratch: vec![0; SCRATCH] })
    }

    fn write_to(path: &Path, bytes: &[u8]) -> OwnedFd {
        let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        rustix::io::write(&fd, bytes).unwrap();
        fd
    }

    #[tokio::test]
    async fn a_port_without_a_host_waits_for_one_and_ends_when_it_leaves() {
        let (_directory, path, mut port) = fifo();
        // The registration has seen a hang-up once a writer has come and gone unheard.
        drop(rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap());
        let mut byte = [0; 8];
        assert!(tokio::time::timeout(Duration::from_millis(80), port.read(&mut byte)).await.is_err());
        let writer = write_to(&path, b"hello");
        assert_eq!(port.read(&mut byte).await.unwrap(), 5);
        rustix::io::write(&writer, b"again").unwrap();
        assert_eq!(port.read(&mut byte).await.unwrap(), 5);
        assert!(tokio::time::timeout(Duration::from_millis(50), port.read(&mut byte)).await.is_err());
        drop(writer);
        assert_eq!(port.read(&mut byte).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn waiting_for_a_host_does_not_spin() {
        let (_directory, path, mut port) = fifo();
        drop(rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap());
        let mut byte = [0; 1];
        let mut read = Box::pin(port.read(&mut byte));
        let mut polls = 0;
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(300) {
            let waited = tokio::time::timeout(
                Duration::from_millis(300),
                std::future::poll_fn(|cx| {
                    polls += 1;
                    read.as_mut().poll(cx)
                }),
            );
            assert!(waited.await.is_err());
        }
        assert!(polls < 20, "{polls}");
    }

    #[tokio::test]
    async fn a_full_port_takes_the_rest_later() {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
        let mut writer = WriteHalf { port: Port::new(write, Interest::WRITABLE).unwrap() };
        let port = Port::new(read, Interest::READABLE).unwrap();
        let mut reader = ReadHalf { port, heard: false, scratch: vec![0; SCRATCH] };
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert!(received == expected);
    }
}
