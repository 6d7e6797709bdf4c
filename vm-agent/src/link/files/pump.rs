//! Moves messages between `/dev/fuse` and a share's stream.
//!
//! A task reads the kernel's requests and writes them to the stream; another reads answers from the stream and writes them
//! to the kernel. Neither needs a thread of its own, and a message none but the one that has it: under emulation, each
//! switch costs. The only thing that is remembered is which requests wait for an answer, so that they get an error
//! when the stream ends: a program that waits in the kernel for a host that is gone could not even be killed.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rustix::io::Errno;
use skiff_link::BoxStream;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};

use super::{ghost, mount};

/// Longest message: the data of a write or read, and what stands before it.
const LONGEST: usize = (1 << 20) + 4096;
/// Length of `fuse_in_header`, which begins a request.
const IN_HEADER: usize = 40;
/// Length of `fuse_out_header`, which begins an answer.
const OUT_HEADER: usize = 16;
/// `FUSE_FORGET`, `FUSE_INTERRUPT` and `FUSE_BATCH_FORGET` are not answered.
const UNANSWERED: [u32; 3] = [2, 36, 42];
/// `FUSE_INIT`, which begins a mount.
const INIT: u32 = 26;
/// Opcode of the message that begins a stream.
const ATTACH: u32 = 0x5346_0001;

type Writer = WriteHalf<BoxStream>;

/// One mounted share.
pub struct Pump {
    device: AsyncFd<OwnedFd>,
    target: PathBuf,
    /// The same, or where it is shown read-only.
    shown: PathBuf,
    /// Where requests go; nowhere while there is no host.
    out: tokio::sync::Mutex<Option<Writer>>,
    /// The numbers of requests that wait for their answer.
    waiting: Mutex<HashSet<u64>>,
    ghost: ghost::Thread,
    /// Whether a host has served it before.
    served: AtomicBool,
}

impl std::fmt::Debug for Pump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Takes a number out of a message.
fn number<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&message[at..at + N]);
    bytes
}

/// A message of ours to the host: a request's header with two numbers in it.
fn message(opcode: u32, uid: u32, pid: u32) -> [u8; IN_HEADER] {
    let mut bytes = [0; IN_HEADER];
    bytes[0..4].copy_from_slice(&(IN_HEADER as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&opcode.to_le_bytes());
    bytes[24..28].copy_from_slice(&uid.to_le_bytes());
    bytes[32..36].copy_from_slice(&pid.to_le_bytes());
    bytes
}

impl Pump {
    /// Mounts a share; its requests wait for [`attach`](Self::attach).
    pub fn start(share: &str, target: &Path, read_only: bool) -> anyhow::Result<Arc<Pump>> {
        let device = mount::make(share, target)?;
        let shown = if read_only { mount::read_only(target)? } else { target.to_owned() };
        #[expect(
            deprecated,
            reason = "an OwnedFd stays open while it is registered, which is all its unsafe twin asks"
        )]
        let device = AsyncFd::new(device).context("wait for /dev/fuse")?;
        let (ghost, notices) = ghost::Thread::start(target)?;
        let pump = Arc::new(Pump {
            device,
            target: target.to_owned(),
            shown,
            out: tokio::sync::Mutex::new(None),
            waiting: Mutex::default(),
            ghost,
            served: AtomicBool::new(false),
        });
        let (ours, runtime) = (Arc::clone(&pump), tokio::runtime::Handle::current());
        std::thread::Builder::new()
            .name("files-ghost".to_owned())
            .spawn(move || notices.run(&ours, &runtime))
            .context("start a thread")?;
        let ours = Arc::clone(&pump);
        tokio::spawn(async move { ours.read_requests().await });
        tracing::info!(path = share, target = %target.display(), "shared directory is mounted");
        Ok(pump)
    }

    /// Where containers are to find it.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// Whether there is a host behind it.
    pub async fn is_attached(&self) -> bool {
        self.out.lock().await.is_some()
    }

    /// Serves the mount over a new stream.
    pub async fn attach(self: &Arc<Self>, stream: BoxStream) -> anyhow::Result<()> {
        let (reader, mut writer) = tokio::io::split(stream);
        let thread = self.ghost.id().context("the ghost thread has ended")?;
        let mut out = self.out.lock().await;
        let again = u32::from(self.served.swap(true, Ordering::Relaxed));
        writer.write_all(&message(ATTACH, again, thread)).await.context("begin the stream")?;
        *out = Some(writer);
        let pump = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = pump.read_answers(reader).await {
                tracing::debug!(%error, path = %pump.target.display(), "stream of a shared directory ended");
            }
            *pump.out.lock().await = None;
            pump.fail_waiting();
        });
        Ok(())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_requests(&self) {
        let mut buffer = vec![0; LONGEST];
        loop {
            let Ok(mut ready) = self.device.readable().await else { return };
            let length = match rustix::io::read(ready.get_inner().as_fd(), &mut buffer[..]) {
                Ok(length) if length >= IN_HEADER => length,
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                // A request that was interrupted before it was read is there no more.
                Ok(_) | Err(Errno::INTR | Errno::NOENT) => continue,
                Err(errno) => {
                    tracing::warn!(error = %errno, path = %self.target.display(), "shared directory is unmounted");
                    return;
                }
            };
            let request = &buffer[..length];
            let opcode = u32::from_le_bytes(number(request, 4));
            let unique = u64::from_le_bytes(number(request, 8));
            let answered = !UNANSWERED.contains(&opcode);
            if answered {
                self.waiting().insert(unique);
            }
            let sent = self.send(request, opcode == INIT).await;
            if !sent && answered {
                self.fail(unique);
            }
        }
    }

    async fn send(&self, request: &[u8], patient: bool) -> bool {
        loop {
            if let Some(writer) = &mut *self.out.lock().await {
                // A stream that fails ends for its reader too, who then takes it away.
                return writer.write_all(request).await.is_ok();
            }
            if !patient {
                return false;
            }
            // The first request comes with the mount, before the stream is there.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Sends the host a message that the kernel knows nothing of.
    pub(super) async fn report(&self, opcode: u32, value: u32) {
        self.send(&message(opcode, value, 0), false).await;
    }

    async fn read_answers(&self, reader: ReadHalf<BoxStream>) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        let mut buffer = vec![0; LONGEST];
        loop {
            reader.read_exact(&mut buffer[..OUT_HEADER]).await?;
            let length = u32::from_le_bytes(number(&buffer, 0)) as usize;
            let unique = u64::from_le_bytes(number(&buffer, 8));
            if !(OUT_HEADER..=LONGEST).contains(&length) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a message of {length} bytes"),
                ));
            }
            reader.read_exact(&mut buffer[OUT_HEADER..length]).await?;
            if unique == 0 {
                // It may have to wait for pages that an answer behind it will bring: not here.
                self.ghost.hand_over(buffer[..length].to_vec());
                continue;
            }
            if self.waiting().remove(&unique) {
                self.write(&buffer[..length]);
            }
        }
    }

    /// Gives the kernel a message.
    pub(super) fn write(&self, message: &[u8]) {
        match rustix::io::write(self.device.get_ref(), message) {
            // Whoever asked has been killed meanwhile; what a notice is about, nobody knows any more.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => tracing::debug!(error = %errno, "kernel takes no message"),
        }
    }

    fn fail(&self, unique: u64) {
        if !self.waiting().remove(&unique) {
            return;
        }
        let mut answer = [0; OUT_HEADER];
        answer[0..4].copy_from_slice(&(OUT_HEADER as u32).to_le_bytes());
        answer[4..8].copy_from_slice(&Errno::NOTCONN.raw_os_error().wrapping_neg().to_le_bytes());
        answer[8..16].copy_from_slice(&unique.to_le_bytes());
        self.write(&answer);
    }

    fn fail_waiting(&self) {
        let waiting: Vec<u64> = self.waiting().iter().copied().collect();
        for unique in waiting {
            self.fail(unique);
        }
    }
}
