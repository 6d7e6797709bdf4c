//! Signals as readable events (`signalfd(2)`).
#![expect(unsafe_code, reason = "signal masks and signalfd have no rustix wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A descriptor from which blocked signals are read.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

/// One signal that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The signal's number.
    pub signal: i32,
    /// The process that sent it, or whose end it reports; 0 when the kernel did.
    pub pid: i32,
}

impl SignalFd {
    /// Blocks `signals` (numbers) for the calling thread and opens a descriptor that yields them instead.
    ///
    /// Threads inherit the mask: call this before the first one is started.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set, sigaddset then works on an initialised one; both are given its address.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for &signal in signals {
                if libc::sigaddset(&raw mut set, signal) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            set
        };
        // SAFETY: the set is initialised; a null pointer says that the old mask is not wanted.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: the set is initialised, -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else knows it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Takes one pending signal, or `None` when there is none; wait with poll on the descriptor.
    pub fn read(&self) -> io::Result<Option<Received>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut bytes = [0u8; SIZE];
        match rustix::io::read(&self.fd, &mut bytes) {
            Ok(SIZE) => {
                let field =
                    |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                // signalfd_siginfo: ssi_signo at 0, ssi_pid at 12 (signalfd(2)).
                Ok(Some(Received { signal: field(0) as i32, pid: field(12) as i32 }))
            }
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Unblocks every signal for the calling thread, and so for a program that it executes.
pub fn unblock_all() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set whose address it is given; the old mask is not wanted.
    let error = unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a signal to the calling thread: one to the process could be taken by the test harness's own thread.
    fn raise(signal: i32) {
        // SAFETY: raise touches no memory of ours, and the signals that the tests use are blocked or ignored.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    fn own(signal: i32) -> Option<Received> {
        Some(Received { signal, pid: std::process::id() as i32 })
    }

    #[test]
    fn signals_are_read_with_their_sender_and_do_nothing_else() {
        // TERM would end the process if it were not blocked.
        let signals = SignalFd::new(&[libc::SIGTERM, libc::SIGCHLD]).unwrap();
        assert_eq!(signals.read().unwrap(), None);
        raise(libc::SIGTERM);
        assert_eq!(signals.read().unwrap(), own(libc::SIGTERM));
        raise(libc::SIGCHLD);
        assert_eq!(signals.read().unwrap(), own(libc::SIGCHLD));
        assert_eq!(signals.read().unwrap(), None);
    }

    #[test]
    fn only_the_signals_that_were_asked_for_are_read() {
        let urgent = SignalFd::new(&[libc::SIGURG]).unwrap();
        let resized = SignalFd::new(&[libc::SIGWINCH]).unwrap();
        raise(libc::SIGWINCH);
        assert_eq!(urgent.read().unwrap(), None);
        assert_eq!(resized.read().unwrap(), own(libc::SIGWINCH));
    }

    #[test]
    fn what_was_blocked_can_be_unblocked() {
        let signals = SignalFd::new(&[libc::SIGURG]).unwrap();
        unblock_all().unwrap();
        raise(libc::SIGURG);
        assert_eq!(signals.read().unwrap(), None);
    }

    #[test]
    fn a_number_that_is_no_signal_is_an_error() {
        assert_eq!(SignalFd::new(&[1000]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
