//! Owner, mode, attributes and times of what the applier has made.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::tarstream::{Entry, Kind};

/// Attributes that a layer must not set: they are how overlayfs talks to itself.
const RESERVED: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Sets everything but the times of a directory, whose contents are still to come.
///
/// The order matters: changing the owner clears set-user-id bits and file capabilities.
pub(super) fn apply(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
) -> Result<(), (&'static str, io::Error)> {
    if (entry.uid, entry.gid) != (0, 0) || !rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| ("chown", e.into()))?;
    }
    if entry.kind != Kind::Symlink {
        // The entry was made a moment ago in a directory that nobody else knows: it is no symlink.
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode & 0o7777), AtFlags::empty())
            .map_err(|e| ("chmod", e.into()))?;
    }
    for (key, value) in &entry.xattrs {
        set_xattr(parent, name, key, value).map_err(|e| ("set attribute of", e))?;
    }
    if entry.kind != Kind::Directory {
        set_mtime(parent, name, entry.mtime).map_err(|e| ("set times of", e))?;
    }
    Ok(())
}

/// Sets the modification time (and the access time with it, as Docker does), not following a symlink.
pub(super) fn set_mtime(parent: BorrowedFd<'_>, name: &[u8], mtime: (i64, u32)) -> io::Result<()> {
    // Times that the file system can't hold are clamped by the kernel.
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Marks a directory as hiding everything below it in lower layers.
pub(super) fn set_opaque(directory: BorrowedFd<'_>) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(rustix::fs::setxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
}

fn set_xattr(parent: BorrowedFd<'_>, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
    if RESERVED.iter().any(|prefix| key.starts_with(prefix)) {
        tracing::debug!(key = %String::from_utf8_lossy(key), "reserved attribute skipped");
        return Ok(());
    }
    // The parent may be an O_PATH descriptor; /proc leads to it, and the last step follows no symlink.
    let mut path = format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    match rustix::fs::lsetxattr(path, key, value, XattrFlags::empty()) {
        // As in Docker: not every file system keeps every attribute.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => {
            tracing::debug!(key = %String::from_utf8_lossy(key), "attribute not supported here");
            Ok(())
        }
        other => Ok(other?),
    }
}
