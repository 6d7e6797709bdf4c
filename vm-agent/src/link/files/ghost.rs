//! The thread that passes the host's notices to the kernel and makes its changes once more for programs to see.
//!
//! The host's file server knows this thread by its number, and answers what it asks without changing anything.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::sync::Arc;

use super::pump::Pump;

/// Code in a message's header from which on it is for this thread, not for the kernel.
const GHOST: i32 = 100;
/// Opcode of the message that says that an operation is done.
const DONE: u32 = 0x5346_0002;

/// The thread, seen from outside.
#[derive(Debug)]
pub struct Thread {
    id: Arc<OnceLock<u32>>,
    messages: Sender<Vec<u8>>,
}

/// What the thread works on.
#[derive(Debug)]
pub struct Notices {
    id: Arc<OnceLock<u32>>,
    messages: Receiver<Vec<u8>>,
    directory: std::path::PathBuf,
}

impl Thread {
    /// Prepares the thread for the mount at `target`; the caller runs it.
    pub fn start(target: &Path) -> anyhow::Result<(Thread, Notices)> {
        let id = Arc::new(OnceLock::new());
        let (sender, receiver) = channel();
        let notices = Notices { id: Arc::clone(&id), messages: receiver, directory: target.to_owned() };
        Ok((Thread { id, messages: sender }, notices))
    }

    /// Its number, once it runs.
    pub fn id(&self) -> Option<u32> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match self.id.get() {
                Some(id) => return Some(*id),
                None if std::time::Instant::now() > deadline => return None,
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
    }

    /// Hands a message over. Never waits: what this thread waits for may be behind the message.
    pub fn hand_over(&self, message: Vec<u8>) {
        // A thread that is gone went with its mount.
        let _ = self.messages.send(message);
    }
}

impl Notices {
    /// Works until the mount is gone.
    pub fn run(self, pump: &Pump, runtime: &tokio::runtime::Handle) {
        let _ = self.id.set(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
        // Opened at the first message: opening it asks the host.
        let mut root = None;
        while let Ok(message) = self.messages.recv() {
            let code = i32::from_le_bytes([message[4], message[5], message[6], message[7]]);
            if code < GHOST {
                pump.write(&message);
                continue;
            }
            let outcome = match open(&self.directory, &mut root) {
                Ok(root) => perform(root, &message[16..]),
                Err(errno) => Err(errno),
            };
            let error = outcome.err().map_or(0, |errno| errno.raw_os_error().cast_unsigned());
            runtime.block_on(pump.report(DONE, error));
        }
    }
}

fn open<'a>(directory: &Path, root: &'a mut Option<OwnedFd>) -> Result<&'a OwnedFd, Errno> {
    if root.is_none() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        *root = Some(rustix::fs::openat(CWD, directory, flags, Mode::empty())?);
    }
    root.as_ref().ok_or(Errno::NOENT)
}

/// Performs one operation: its number, an argument, one or two paths below the mount.
fn perform(root: &OwnedFd, body: &[u8]) -> Result<(), Errno> {
    let (head, paths) = body.split_at_checked(16).ok_or(Errno::INVAL)?;
    let call = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let argument =
        u64::from_le_bytes([head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15]]);
    let mut paths = paths.split(|byte| *byte == 0);
    let path = CString::new(paths.next().unwrap_or_default()).map_err(|_| Errno::INVAL)?;
    let mode = Mode::from_raw_mode((argument & 0o7777) as u32);
    match call {
        1 => {
            use std::os::fd::AsRawFd;
            let inside = format!("/proc/self/fd/{}/", root.as_raw_fd()).into_bytes();
            let whole = CString::new([inside, path.into_bytes()].concat()).map_err(|_| Errno::INVAL)?;
            skiff_linux_sys::truncate::truncate(&whole, argument).map_err(|error| errno_of(&error))
        }
        2 => {
            let kind = match FileType::from_raw_mode((argument & 0o170_000) as u32) {
                kind @ (FileType::Fifo | FileType::Socket) => kind,
                FileType::CharacterDevice | FileType::BlockDevice => return Ok(()),
                _ => FileType::RegularFile,
            };
            rustix::fs::mknodat(root, &path, kind, mode, 0)
        }
        3 => rustix::fs::mkdirat(root, &path, mode),
        4 => rustix::fs::symlinkat(c".", root, &path),
        5 => {
            let to = CString::new(paths.next().unwrap_or_default()).map_err(|_| Errno::INVAL)?;
            rustix::fs::renameat(root, &path, root, &to)
        }
        6 => rustix::fs::unlinkat(root, &path, AtFlags::empty()),
        7 => rustix::fs::unlinkat(root, &path, AtFlags::REMOVEDIR),
        8 => rustix::fs::chmodat(root, &path, mode, AtFlags::empty()),
        9 => {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::openat(root, &path, flags, Mode::empty()).map(drop)
        }
        _ => Err(Errno::OPNOTSUPP),
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()))
}
