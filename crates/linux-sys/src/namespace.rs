//! Joining and leaving namespaces of the calling thread (`setns(2)`, `unshare(2)`).
#![expect(unsafe_code, reason = "rustix takes either a link or a pidfd, with its own flag types")]

use crate::sys::call;
use std::io;
use std::ops::BitOr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A set of namespace kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(pub(crate) u64);

impl Namespaces {
    /// None.
    pub const NONE: Self = Self(0);
    /// Mount points.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// Process ids.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// Network devices, addresses, ports.
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET as u64);
    /// System V IPC and POSIX message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// Host and domain name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// User and group ids, and what is owned by them.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// The monotonic and boot-time clocks; entered by the next `execve` (Linux 6.2).
    pub const TIME: Self = Self(0x80);
    /// The root of the cgroup tree as `/proc` shows it.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);

    /// Whether all kinds of `other` are in the set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set without the kinds of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Namespaces {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Moves the calling thread into `kinds` of the namespaces that `fd` refers to: a namespace file or a pidfd.
///
/// For [`Namespaces::PID`] only later children of the thread are moved. A thread that has joined namespaces for a
/// purpose should end afterwards, or the process runs in two worlds.
pub fn join(fd: BorrowedFd<'_>, kinds: Namespaces) -> io::Result<()> {
    // SAFETY: no memory is passed.
    unsafe { call!(libc::SYS_setns, fd.as_raw_fd(), kinds.0) }?;
    Ok(())
}

/// Gives the calling thread new namespaces of the given kinds.
pub fn leave(kinds: Namespaces) -> io::Result<()> {
    // SAFETY: no memory is passed.
    unsafe { call!(libc::SYS_unshare, kinds.0) }?;
    Ok(())
}
