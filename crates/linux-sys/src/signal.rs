//! Sending signals by number (`pidfd_send_signal(2)`).
#![expect(unsafe_code, reason = "rustix names no real-time signals, and its checked numbers leave them out")]

use crate::sys::call;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends the signal `number`, real-time ones (34 to 64) included, to the process behind `pidfd`.
///
/// # Errors
/// `ESRCH` when the process has ended and was reaped, `EINVAL` when there is no such signal, `EPERM` when it may not be
/// sent.
pub fn send(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let (no_info, no_flags) = (std::ptr::null::<libc::siginfo_t>(), 0u32);
    // SAFETY: a null pointer asks the kernel to fill in what kill(2) would; no memory of ours is read or written.
    unsafe { call!(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, no_info, no_flags) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    fn sleeper() -> (Child, std::os::fd::OwnedFd) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        (child, pidfd)
    }

    #[test]
    fn every_signal_that_ends_a_process_arrives_with_its_number() {
        for number in [9, 15, 34, 37, 64] {
            let (mut child, pidfd) = sleeper();
            send(pidfd.as_fd(), number).unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(number));
        }
    }

    #[test]
    fn numbers_beyond_the_last_signal_and_ended_processes_are_errors() {
        let (mut child, pidfd) = sleeper();
        for number in [-1, 65] {
            assert_eq!(send(pidfd.as_fd(), number).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        send(pidfd.as_fd(), 9).unwrap();
        child.wait().unwrap();
        assert_eq!(send(pidfd.as_fd(), 9).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
