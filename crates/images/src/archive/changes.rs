//! What the upper directory of an overlay changes of the tree below it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::pack::{join, link_to, names_in, xattrs};

const DEEPEST: usize = 1024;

/// How a path has changed; the numbers are Docker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ChangeKind {
    /// It was there and is different now; a directory also when something in it is.
    Modified = 0,
    /// It was not there.
    Added = 1,
    /// It is gone.
    Deleted = 2,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path, from the slash on.
    pub path: Vec<u8>,
    /// How it has changed.
    pub kind: ChangeKind,
}

/// Compares `upper` with the merged tree `lower`, both directories, and lists the differences by path.
///
/// `is_scaffold` knows the paths that the engine makes in every container: a directory of that name that is new counts
/// only if something else in it does, a file only when it has content.
///
/// # Errors
/// When a directory can't be read.
pub fn changes(
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    is_scaffold: &dyn Fn(&[u8]) -> bool,
) -> io::Result<Vec<Change>> {
    let mut comparison = Comparison { found: Vec::new(), is_scaffold };
    comparison.directory(&open_directory(upper)?, Some(&open_directory(lower)?), b"/", false, 0)?;
    comparison.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(comparison.found)
}

struct Comparison<'a> {
    found: Vec<Change>,
    is_scaffold: &'a dyn Fn(&[u8]) -> bool,
}

impl Comparison<'_> {
    fn directory(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        path: &[u8],
        opaque: bool,
        depth: usize,
    ) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other("directories are nested too deeply"));
        }
        let names = names_in(upper)?;
        if opaque && let Some(lower) = lower {
            for name in names_in(lower)? {
                if names.binary_search_by(|have| name.cmp(have)).is_err() {
                    self.note(join(path, name.to_bytes()), ChangeKind::Deleted);
                }
            }
        }
        for name in names.iter().rev() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = |directory: &OwnedFd| match rustix::fs::openat(directory, name, flags, Mode::empty()) {
                Ok(fd) => {
                    let status = rustix::fs::fstat(&fd)?;
                    Ok(Some((fd, status)))
                }
                Err(Errno::NOENT) => Ok(None),
                Err(errno) => Err(io::Error::from(errno)),
            };
            let Some(new) = open(upper)? else { continue };
            let old = lower.map(open).transpose()?.flatten();
            self.entry(new, old, join(path, name.to_bytes()), depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        (new, status): (OwnedFd, Stat),
        old: Option<(OwnedFd, Stat)>,
        path: Vec<u8>,
        depth: usize,
    ) -> io::Result<()> {
        let kind = FileType::from_raw_mode(status.st_mode);
        if kind == FileType::CharacterDevice && status.st_rdev == 0 {
            if old.is_some() {
                self.note(path, ChangeKind::Deleted);
            }
            return Ok(());
        }
        let scaffold = old.is_none() && (self.is_scaffold)(&path);
        if kind != FileType::Directory {
            let change = match &old {
                None if scaffold && (kind == FileType::Symlink || status.st_size == 0) => return Ok(()),
                None => ChangeKind::Added,
                Some(old) if differs((&new, &status), (&old.0, &old.1)) => ChangeKind::Modified,
                Some(_) => return Ok(()),
            };
            self.note(path, change);
            return Ok(());
        }
        let below = self.found.len();
        let is_opaque = opaque(&new);
        let lower = match &old {
            Some((fd, status)) if FileType::from_raw_mode(status.st_mode) == FileType::Directory => {
                Some(open_directory(fd.as_fd())?)
            }
            _ => None,
        };
        self.directory(&open_directory(new.as_fd())?, lower.as_ref(), &path, is_opaque, depth + 1)?;
        let change = match &old {
            None if scaffold && self.found.len() == below => return Ok(()),
            None => ChangeKind::Added,
            // The directory's own attributes are part of what the things in it need.
            Some(_) if self.found.len() > below => ChangeKind::Modified,
            Some(old) if differs((&new, &status), (&old.0, &old.1)) => ChangeKind::Modified,
            Some(_) => return Ok(()),
        };
        self.note(path, change);
        Ok(())
    }

    fn note(&mut self, path: Vec<u8>, kind: ChangeKind) {
        self.found.push(Change { path, kind });
    }
}

/// Docker's rule: kind, permissions, owner, device and capabilities, and for what is no directory also size and time.
fn differs((new, a): (&OwnedFd, &Stat), (old, b): (&OwnedFd, &Stat)) -> bool {
    let directory = FileType::from_raw_mode(a.st_mode) == FileType::Directory;
    (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) != (b.st_mode, b.st_uid, b.st_gid, b.st_rdev)
        || !directory && (a.st_size, a.st_mtime) != (b.st_size, b.st_mtime)
        || !directory && a.st_mtime_nsec != b.st_mtime_nsec && a.st_mtime_nsec != 0 && b.st_mtime_nsec != 0
        || FileType::from_raw_mode(a.st_mode) != FileType::Symlink && xattrs(new) != xattrs(old)
}

pub(super) fn opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 1];
    let found = rustix::fs::getxattr(link_to(directory), c"trusted.overlay.opaque", &mut value[..]);
    found.is_ok_and(|length| length == 1 && value[0] == b'y')
}

fn open_directory(node: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(node, c".", flags, Mode::empty())?)
}
