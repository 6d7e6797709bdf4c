//! `mount_setattr(2)`: attributes and propagation of a mount or of a whole tree of mounts.
#![expect(unsafe_code, reason = "rustix has no mount_setattr")]

use crate::sys::call;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to change on a mount, in the kernel's own constants (`MOUNT_ATTR_*`, `MS_PRIVATE`…).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttr {
    /// Attributes to turn on.
    pub set: u64,
    /// Attributes to turn off; setting one of the access-time modes needs `MOUNT_ATTR__ATIME` here.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0 for no change.
    pub propagation: u64,
    userns_fd: u64,
}

impl MountAttr {
    /// Describes a change of attributes and propagation.
    pub fn new(set: u64, clear: u64, propagation: u64) -> Self {
        Self { set, clear, propagation, userns_fd: 0 }
    }

    /// Also shows the ids of the mount through the mapping of a user namespace (`MOUNT_ATTR_IDMAP`).
    #[must_use]
    pub fn mapped_by(self, namespace: BorrowedFd<'_>) -> Self {
        const IDMAP: u64 = 0x0010_0000;
        Self { set: self.set | IDMAP, userns_fd: namespace.as_raw_fd() as u64, ..self }
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation == 0
    }
}

/// Whether a change covers one mount or every mount below it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The one mount.
    Single,
    /// The mount and every mount below it.
    Tree,
}

impl Scope {
    pub(crate) fn flags(self) -> i32 {
        match self {
            Self::Single => 0,
            Self::Tree => libc::AT_RECURSIVE,
        }
    }
}

/// Changes the mount that `mount` refers to; see `mount_setattr(2)`.
pub fn set_attributes(mount: BorrowedFd<'_>, scope: Scope, attr: &MountAttr) -> io::Result<()> {
    let empty: &CStr = c"";
    // SAFETY: the path and the structure live across the call, and the size given is the structure's.
    unsafe {
        call!(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty,
            libc::AT_EMPTY_PATH | scope.flags(),
            attr as *const MountAttr,
            size_of::<MountAttr>(),
        )
    }?;
    Ok(())
}
