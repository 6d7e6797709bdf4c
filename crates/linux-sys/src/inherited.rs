//! Descriptors that the parent process left open for this one.

#![expect(unsafe_code, reason = "owning a descriptor that was not opened here")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// Takes ownership of descriptor `number`, which the parent process handed over by not closing it, and closes it on
/// the next exec (fcntl(2), `FD_CLOEXEC`).
///
/// Call it once per number and before the process opens anything of its own under that number: numbers are passed in
/// the environment by a parent that we control.
///
/// # Errors
/// `EBADF` when no such descriptor is open, `EINVAL` for the standard three.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from(rustix::io::Errno::INVAL));
    }
    // SAFETY: the number only borrows for the probe; a closed number makes fcntl fail with EBADF before anything is
    // owned. Ownership is sound because the parent opened it for this process alone and no other code here knows it.
    // JUSTIFICATION: there is no safe way to name a descriptor that this process did not open.
    let fd = unsafe {
        fcntl_setfd(std::os::fd::BorrowedFd::borrow_raw(number), FdFlags::CLOEXEC)?;
        OwnedFd::from_raw_fd(number)
    };
    Ok(fd)
}
