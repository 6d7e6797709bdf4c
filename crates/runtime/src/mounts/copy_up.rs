//! A tmpfs that begins with what it covers (`tmpcopyup`).
//!
//! Everything is found by descriptor below the container's root, no link is followed, and the copy is bounded.

use super::Options;
use crate::error::Error;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How deep directories may lie in each other.
const DEEPEST: u32 = 64;
/// How many files are copied at most.
const MOST_FILES: u32 = 100_000;

/// Makes a tmpfs with a copy of the directory `destination` of `root`; one that does not exist has nothing to copy.
pub(super) fn tmpfs(root: BorrowedFd<'_>, destination: &Path, options: &Options) -> Result<OwnedFd, Error> {
    let failed = |source: io::Error| Error::Setup {
        what: format!("copying {} into its tmpfs", destination.display()),
        source,
    };
    let mount = new(options).map_err(|error| failed(error.into()))?;
    let inside = destination.strip_prefix("/").unwrap_or(destination);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let source = match rustix::fs::openat2(root, inside, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(mount),
        other => other.map_err(|error| failed(error.into()))?,
    };
    let mut left = MOST_FILES;
    if !options.data.iter().any(|(name, _)| name == "mode") {
        attributes(source.as_fd(), mount.as_fd()).map_err(|error| failed(error.into()))?;
    }
    copy(source.as_fd(), mount.as_fd(), DEEPEST, &mut left).map_err(failed)?;
    Ok(mount)
}

fn new(options: &Options) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in &options.data {
        match value {
            None => rustix::mount::fsconfig_set_flag(&context, name.as_str())?,
            Some(value) => rustix::mount::fsconfig_set_string(&context, name.as_str(), value.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    // A path descriptor, which fsmount gives, takes no chmod: the directory is opened anew.
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32, left: &mut u32) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("directories lie too deep"));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *left = left.checked_sub(1).ok_or_else(|| io::Error::other("too many files"))?;
        one(from, to, name, depth, left)?;
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32, left: &mut u32) -> io::Result<()> {
    let status = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(status.st_mode);
    let kind = FileType::from_raw_mode(status.st_mode);
    let open = |flags: OFlags| {
        rustix::fs::openat(from, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    };
    match kind {
        FileType::Directory => {
            let source = open(OFlags::RDONLY | OFlags::DIRECTORY)?;
            rustix::fs::mkdirat(to, name, mode)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
            copy(source.as_fd(), target.as_fd(), depth - 1, left)?;
            attributes(source.as_fd(), target.as_fd())?;
        }
        FileType::RegularFile => {
            // Without waiting: what was a file a moment ago could be a pipe now.
            let source = open(OFlags::RDONLY | OFlags::NONBLOCK)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, mode)?;
            let (mut reader, mut writer) =
                (std::fs::File::from(source), std::fs::File::from(target.try_clone()?));
            io::copy(&mut reader, &mut writer)?;
            attributes(reader.as_fd(), target.as_fd())?;
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&link, to, name)?;
            let (uid, gid) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
            rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        // Pipes, sockets and devices are for their makers to make again.
        _ => {}
    }
    Ok(())
}

fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let status = rustix::fs::fstat(from)?;
    rustix::fs::chownat(
        to,
        c"",
        Some(Uid::from_raw(status.st_uid)),
        Some(Gid::from_raw(status.st_gid)),
        AtFlags::EMPTY_PATH,
    )?;
    let open =
        rustix::fs::openat(to, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let times = Timestamps {
        last_access: Timespec { tv_sec: status.st_atime as i64, tv_nsec: status.st_atime_nsec as i64 },
        last_modification: Timespec { tv_sec: status.st_mtime as i64, tv_nsec: status.st_mtime_nsec as i64 },
    };
    match open {
        Ok(directory) => {
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(status.st_mode))?;
            rustix::fs::futimens(&directory, &times)
        }
        Err(_) => {
            rustix::fs::fchmod(to, Mode::from_raw_mode(status.st_mode))?;
            rustix::fs::futimens(to, &times)
        }
    }
}
