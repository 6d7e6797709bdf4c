//! Applies tar entries to a directory without ever leaving it.
//!
//! Every path is resolved by the kernel with `openat2(RESOLVE_IN_ROOT)` (openat2(2)): `..`, absolute names and
//! symlinks made by earlier entries all stay inside, as they would in a chroot. Names that say `..` past the
//! root are refused outright. The result does not depend on lower layers, so a layer is applied once, whatever
//! images it is part of; whiteouts take the form that overlayfs reads (kernel documentation, overlayfs).

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::tarstream::{Entry, Kind, TarReader};
use super::{LayerError, Limits, metadata};
use crate::tree;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const COPY_BUFFER: usize = 256 << 10;
const PATH_MAX: usize = 4096;
/// What is wrong with a path that says `..` once too often.
pub(crate) const OUTSIDE: &str = "path leads out of the layer";

/// What applying arrived at.
pub(super) struct Applied {
    pub size: u64,
    pub entries: u64,
}

/// Applies all entries; the directory must be empty and known to nobody else.
pub(super) fn apply<R: std::io::Read>(
    tar: &mut TarReader<R>,
    into: &Path,
    limits: Limits,
) -> Result<Applied, LayerError> {
    let root = rustix::fs::open(into, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| storage("open", &into.display().to_string(), e))?;
    let mut applier = Applier {
        root: Rc::new(root),
        parent: None,
        directory_times: HashMap::new(),
        directory_names: 0,
        limits,
        buffer: vec![0; COPY_BUFFER],
        size: 0,
    };
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        if entries > limits.entries {
            return Err(LayerError::Limit { what: "entries", limit: limits.entries });
        }
        applier.entry(tar, &entry)?;
    }
    applier.finish();
    Ok(Applied { size: applier.size, entries })
}

struct Applier {
    root: Rc<OwnedFd>,
    /// The last parent directory: entries mostly come directory by directory.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Times of directories, set at the end because every new file changes them.
    directory_times: HashMap<Vec<u8>, (i64, u32)>,
    /// What their names take.
    directory_names: u64,
    limits: Limits,
    buffer: Vec<u8>,
    size: u64,
}

impl Applier {
    fn entry<R: std::io::Read>(&mut self, tar: &mut TarReader<R>, entry: &Entry) -> Result<(), LayerError> {
        let parts = clean(&entry.path).map_err(|reason| wrong(entry, reason))?;
        let Some((name, parents)) = parts.split_last() else {
            // The root itself keeps its own attributes, as in Docker.
            return Ok(());
        };
        let parents = parents.join(&b'/');
        if parents.split(|b| *b == b'/').any(|part| part.starts_with(WHITEOUT_META)) {
            return Ok(());
        }
        let parent = self.directory(&parents, entry)?;
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&parent, name, entry);
        }
        let hides_lower = self.make_room(&parent, name, entry)?;
        match entry.kind {
            Kind::File => self.file(tar, &parent, name, entry)?,
            Kind::HardLink => return self.hard_link(&parent, name, entry),
            Kind::Directory => {
                match rustix::fs::mkdirat(&parent, *name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(storage("mkdir", &entry.name(), e)),
                }
                let path = parts.join(&b'/');
                let taken = path.len() as u64;
                if self.directory_times.insert(path, entry.mtime).is_none() {
                    self.directory_names += taken;
                }
                if self.directory_names > self.limits.names {
                    let (what, limit) = ("bytes of directory names", self.limits.names);
                    return Err(LayerError::Limit { what, limit });
                }
            }
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(wrong(entry, "invalid symlink target"));
                }
                rustix::fs::symlinkat(entry.link.as_slice(), &parent, *name)
                    .map_err(|e| storage("symlink", &entry.name(), e))?;
                // As Docker counts: what `lstat` says of everything but directories.
                self.size = self.size.saturating_add(entry.link.len() as u64);
            }
            Kind::Char => self.node(&parent, name, entry, FileType::CharacterDevice)?,
            Kind::Block => self.node(&parent, name, entry, FileType::BlockDevice)?,
            Kind::Fifo => self.node(&parent, name, entry, FileType::Fifo)?,
        }
        metadata::apply(parent.as_fd(), name, entry).map_err(|(op, cause)| LayerError::Storage {
            op,
            entry: entry.name(),
            cause,
        })?;
        if hides_lower && entry.kind == Kind::Directory {
            self.make_opaque(&parent, name, entry)?;
        }
        Ok(())
    }

    fn file<R: std::io::Read>(
        &mut self,
        tar: &mut TarReader<R>,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| storage("open", &entry.name(), e))?;
        let file = File::from(fd);
        let write = |cause| LayerError::Storage { op: "write", entry: entry.name(), cause };
        match &entry.sparse {
            None => {
                let mut at = 0;
                loop {
                    let n = tar.read_data(&mut self.buffer)?;
                    if n == 0 {
                        break;
                    }
                    file.write_all_at(&self.buffer[..n], at).map_err(write)?;
                    at += n as u64;
                }
            }
            Some(pieces) => {
                for (offset, length) in pieces {
                    let mut done = 0;
                    while done < *length {
                        let want = (*length - done).min(COPY_BUFFER as u64) as usize;
                        let n = tar.read_data(&mut self.buffer[..want])?;
                        if n == 0 {
                            return Err(LayerError::Truncated);
                        }
                        file.write_all_at(&self.buffer[..n], offset + done).map_err(write)?;
                        done += n as u64;
                    }
                }
                file.set_len(entry.size).map_err(write)?;
            }
        }
        self.size = self.size.saturating_add(entry.size);
        Ok(())
    }

    /// Links to an entry of this layer; its own metadata stands.
    fn hard_link(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
        let parts = clean(&entry.link).map_err(|reason| wrong(entry, reason))?;
        let (target, directories) =
            parts.split_last().ok_or_else(|| wrong(entry, "hard link to the root directory"))?;
        let directory = self.open_in_root(&directories.join(&b'/')).map_err(|e| no_target(entry, e))?;
        rustix::fs::linkat(&directory, *target, parent, name, AtFlags::empty())
            .map_err(|e| no_target(entry, e))
    }

    fn node(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        file_type: FileType,
    ) -> Result<(), LayerError> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        rustix::fs::mknodat(parent, name, file_type, Mode::RUSR | Mode::WUSR, device)
            .map_err(|e| storage("mknod", &entry.name(), e))
    }

    /// Turns `.wh.name` into a whiteout of overlayfs, and `.wh..wh..opq` into its opaque mark.
    fn whiteout(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
        if name == OPAQUE {
            return metadata::set_opaque(parent.as_fd()).map_err(|cause| LayerError::Storage {
                op: "make opaque",
                entry: entry.name(),
                cause,
            });
        }
        if name.starts_with(WHITEOUT_META) {
            // Bookkeeping of AUFS that says nothing about the image.
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(wrong(entry, "invalid whiteout"));
        }
        match rustix::fs::statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            // A whiteout concerns lower layers only; what this layer brings itself stays.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.make_opaque(parent, hidden, entry)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(|e| storage("mknod", &entry.name(), e))
            }
            Err(e) => Err(storage("stat", &entry.name(), e)),
        }
    }

    fn make_opaque(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty())
            .map_err(|e| storage("open", &entry.name(), e))?;
        metadata::set_opaque(directory.as_fd()).map_err(|cause| LayerError::Storage {
            op: "make opaque",
            entry: entry.name(),
            cause,
        })
    }

    /// Removes what stands in the way of an entry; says whether it was a whiteout.
    fn make_room(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<bool, LayerError> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(storage("stat", &entry.name(), e)),
        };
        let existing = FileType::from_raw_mode(stat.st_mode);
        if existing == FileType::Directory {
            if entry.kind == Kind::Directory {
                return Ok(false);
            }
            self.parent = None;
            tree::remove(parent, name).map_err(|e| storage("replace", &entry.name(), e))?;
            return Ok(false);
        }
        if existing == FileType::Symlink {
            // Cached parents may have been reached through it.
            self.parent = None;
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty())
            .map_err(|e| storage("replace", &entry.name(), e))?;
        if stat.st_nlink == 1 && matches!(existing, FileType::RegularFile | FileType::Symlink) {
            self.size = self.size.saturating_sub(u64::try_from(stat.st_size).unwrap_or(0));
        }
        Ok(existing == FileType::CharacterDevice && stat.st_rdev == 0)
    }

    /// Opens a directory of the layer, making it and its parents where they are missing.
    fn directory(&mut self, path: &[u8], entry: &Entry) -> Result<Rc<OwnedFd>, LayerError> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some((cached, fd)) = &self.parent
            && cached == path
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.open_in_root(path) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => self.make_directories(path, entry)?,
            Err(e) => return Err(storage("open parent of", &entry.name(), e)),
        };
        let fd = Rc::new(fd);
        self.parent = Some((path.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    fn make_directories(&self, path: &[u8], entry: &Entry) -> Result<OwnedFd, LayerError> {
        let fail = |e| storage("make parent of", &entry.name(), e);
        let mut current = self.root.try_clone().map_err(|cause| LayerError::Storage {
            op: "open parent of",
            entry: entry.name(),
            cause,
        })?;
        let mut end = 0;
        for part in path.split(|b| *b == b'/') {
            end += part.len() + usize::from(end > 0);
            let prefix = &path[..end];
            current = match self.open_in_root(prefix) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    // A symlink that leads nowhere answers ENOENT to open and EEXIST here.
                    rustix::fs::mkdirat(&current, part, Mode::RWXU).map_err(fail)?;
                    rustix::fs::chmodat(&current, part, Mode::from_raw_mode(0o755), AtFlags::empty())
                        .map_err(fail)?;
                    self.open_in_root(prefix).map_err(fail)?
                }
                Err(e) => return Err(fail(e)),
            };
        }
        Ok(current)
    }

    /// Opens a directory as a chroot into the layer would see it.
    fn open_in_root(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match rustix::fs::openat2(&*self.root, path, flags, Mode::empty(), resolve) {
                // A rename elsewhere on the system got in the way of resolving `..`.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
    }

    /// Gives directories their times, deepest first does not matter: setting times changes no parent.
    fn finish(&mut self) {
        for (path, mtime) in std::mem::take(&mut self.directory_times) {
            let slash = path.iter().rposition(|b| *b == b'/');
            let (parent, name) = slash.map_or((&b""[..], &path[..]), |at| (&path[..at], &path[at + 1..]));
            let Ok(parent) = self.open_in_root(parent) else { continue };
            // A later entry may have replaced the directory; then its own time stands.
            let is_directory = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
            if is_directory && let Err(error) = metadata::set_mtime(parent.as_fd(), name, mtime) {
                tracing::debug!(%error, "directory time not set");
            }
        }
    }
}

/// Splits a path into its parts, resolving `.` and `..` by the text alone.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.contains(&0) {
        return Err("invalid path");
    }
    if path.len() >= PATH_MAX {
        return Err("path is too long");
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or(OUTSIDE)?;
            }
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

fn wrong(entry: &Entry, reason: &str) -> LayerError {
    LayerError::Entry { entry: entry.name(), reason: reason.to_owned() }
}

fn no_target(entry: &Entry, error: Errno) -> LayerError {
    let target = String::from_utf8_lossy(&entry.link).into_owned();
    match error {
        Errno::NOENT | Errno::NOTDIR => {
            wrong(entry, &format!("hard link target \"{target}\" is not in the layer"))
        }
        Errno::PERM => wrong(entry, &format!("hard link target \"{target}\" is a directory")),
        _ => storage("link", &entry.name(), error),
    }
}

fn storage(op: &'static str, entry: &str, error: Errno) -> LayerError {
    LayerError::Storage { op, entry: entry.to_owned(), cause: error.into() }
}
