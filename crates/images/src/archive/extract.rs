//! From a tar stream into a tree that is in use.
//!
//! Unlike the applier of layers, which fills a directory that nobody else knows, this one meets what is there already,
//! and a container that may move it about meanwhile. Nothing is done to a name twice: what has been made is held open,
//! and owner, mode, attributes and times are set on what is held.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::pack::link_to;
use super::resolve::open_inside;
use crate::layer::{Decoder, Entry, Kind, LayerError, TarReader, clean};
use crate::tree;

const BUFFER: usize = 256 << 10;
/// Attributes that are how overlayfs talks to itself.
const RESERVED: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// Directories that are held open until their times are set at the end; the others get theirs at once.
const MOST_TIMES: usize = 512;

/// What becomes of a directory where the archive has a file, and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// The archive wins.
    Anything,
    /// It is an error.
    SameKind,
}

/// Where an archive goes, and how.
#[derive(Debug, Clone, Copy)]
pub struct Extract<'a> {
    /// A directory below the root, without links, from the slash on.
    pub directory: &'a [u8],
    /// Rules for what is there.
    pub overwrite: Overwrite,
    /// The owner of everything, instead of what the archive says.
    pub owner: Option<(u32, u32)>,
}

/// Unpacks an archive, compressed or not, below `root`, as a process whose root it is would.
///
/// # Errors
/// [`LayerError`]; what was unpacked before stays.
pub fn extract(source: impl BufRead, root: &OwnedFd, options: Extract<'_>) -> Result<(), LayerError> {
    let mut tar = TarReader::new(Decoder::new(source)?);
    let mut extraction = Extraction { root, options, times: Vec::new(), buffer: vec![0; BUFFER] };
    while let Some(entry) = tar.next()? {
        extraction.entry(&mut tar, &entry)?;
    }
    for (directory, mtime) in extraction.times.iter().rev() {
        if let Err(error) = set_times(directory, *mtime) {
            tracing::debug!(%error, "directory time not set");
        }
    }
    // What follows the end is read, so that the sender is not cut off.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(crate::layer::read_error)?;
    Ok(())
}

/// Says whether the bytes begin as a tar archive does, compressed or not.
pub fn is_tar(source: impl BufRead) -> bool {
    Decoder::new(source)
        .is_ok_and(|decoder| TarReader::new(decoder).next().is_ok_and(|entry| entry.is_some()))
}

struct Extraction<'a> {
    root: &'a OwnedFd,
    options: Extract<'a>,
    times: Vec<(OwnedFd, (i64, u32))>,
    buffer: Vec<u8>,
}

impl Extraction<'_> {
    fn entry<R: Read>(&mut self, tar: &mut TarReader<R>, entry: &Entry) -> Result<(), LayerError> {
        let parts = clean(&entry.path).map_err(|reason| self.outside(entry, reason))?;
        // The directory itself stays as it is.
        let Some((name, parents)) = parts.split_last() else { return Ok(()) };
        let parent = self.directory(&parents.join(&b'/'), entry)?;
        self.make_room(&parent, name, entry)?;
        let failed = |op, errno: Errno| storage(op, entry, errno);
        match entry.kind {
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, *name, flags, Mode::RUSR | Mode::WUSR);
                let file = File::from(file.map_err(|errno| failed("open", errno))?);
                self.write(tar, &file, entry)?;
                return self.finish(file.into(), entry);
            }
            Kind::HardLink => {
                let target = clean(&entry.link).map_err(|reason| self.outside(entry, reason))?;
                let target = join(self.options.directory, &target);
                let target = open_inside(self.root, &target, OFlags::PATH | OFlags::NOFOLLOW);
                let target = target.map_err(|errno| failed("link", errno))?;
                return rustix::fs::linkat(
                    rustix::fs::CWD,
                    link_to(&target),
                    &parent,
                    *name,
                    AtFlags::SYMLINK_FOLLOW,
                )
                .map_err(|errno| failed("link", errno));
            }
            Kind::Directory => match rustix::fs::mkdirat(&parent, *name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("mkdir", errno)),
            },
            Kind::Symlink => rustix::fs::symlinkat(entry.link.as_slice(), &parent, *name)
                .map_err(|errno| failed("symlink", errno))?,
            Kind::Char => self.node(&parent, name, entry, FileType::CharacterDevice)?,
            Kind::Block => self.node(&parent, name, entry, FileType::BlockDevice)?,
            Kind::Fifo => self.node(&parent, name, entry, FileType::Fifo)?,
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, *name, flags, Mode::empty());
        self.finish(made.map_err(|errno| failed("open", errno))?, entry)
    }

    fn write<R: Read>(
        &mut self,
        tar: &mut TarReader<R>,
        file: &File,
        entry: &Entry,
    ) -> Result<(), LayerError> {
        let failed = |cause| LayerError::Storage { op: "write", entry: entry.name(), cause };
        let whole = [(0, entry.size)];
        for (offset, length) in entry.sparse.as_deref().unwrap_or(&whole) {
            let mut done = 0;
            while done < *length {
                let want = (*length - done).min(BUFFER as u64) as usize;
                let got = tar.read_data(&mut self.buffer[..want])?;
                if got == 0 {
                    return Err(LayerError::Truncated);
                }
                file.write_all_at(&self.buffer[..got], offset + done).map_err(failed)?;
                done += got as u64;
            }
        }
        if entry.sparse.is_some() {
            file.set_len(entry.size).map_err(failed)?;
        }
        Ok(())
    }

    fn node(&self, parent: &OwnedFd, name: &[u8], entry: &Entry, kind: FileType) -> Result<(), LayerError> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
            .map_err(|errno| storage("mknod", entry, errno))
    }

    /// Sets everything that the entry says about what was made. Owner first: it clears other things.
    fn finish(&mut self, made: OwnedFd, entry: &Entry) -> Result<(), LayerError> {
        let failed = |op, errno: Errno| storage(op, entry, errno);
        let status = rustix::fs::fstat(&made).map_err(|errno| failed("stat", errno))?;
        let expected = match entry.kind {
            Kind::File | Kind::HardLink => FileType::RegularFile,
            Kind::Directory => FileType::Directory,
            Kind::Symlink => FileType::Symlink,
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
        };
        if FileType::from_raw_mode(status.st_mode) != expected {
            return Err(LayerError::Entry {
                entry: entry.name(),
                reason: "it was replaced while it was written".to_owned(),
            });
        }
        let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&made, c"", uid, gid, AtFlags::EMPTY_PATH)
            .map_err(|errno| failed("chown", errno))?;
        if entry.kind != Kind::Symlink {
            rustix::fs::chmod(link_to(&made), Mode::from_raw_mode(entry.mode & 0o7777))
                .map_err(|errno| failed("chmod", errno))?;
            for (key, value) in &entry.xattrs {
                if RESERVED.iter().any(|prefix| key.starts_with(prefix)) {
                    continue;
                }
                match rustix::fs::setxattr(link_to(&made), key.as_slice(), value, XattrFlags::empty()) {
                    // Not every file system keeps every attribute.
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                    Err(errno) => return Err(failed("set attribute of", errno)),
                }
            }
        }
        if entry.kind == Kind::Directory {
            // Every new file in it would change its time again.
            if self.times.len() < MOST_TIMES {
                self.times.push((made, entry.mtime));
                return Ok(());
            }
        }
        set_times(&made, entry.mtime).map_err(|errno| failed("set times of", errno))
    }

    /// Removes what stands in the way, within the rules.
    fn make_room(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
        let status = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(storage("stat", entry, errno)),
        };
        let there = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        let comes = entry.kind == Kind::Directory;
        if there && comes {
            return Ok(());
        }
        if there != comes && self.options.overwrite == Overwrite::SameKind {
            let at = text(&join(self.options.directory, &clean(&entry.path).unwrap_or_default()));
            let directory = text(self.options.directory);
            return Err(LayerError::Refused {
                message: if there {
                    format!("cannot overwrite directory \"{at}\" with non-directory \"{directory}\"")
                } else {
                    format!("cannot overwrite non-directory \"{at}\" with directory \"{directory}\"")
                },
            });
        }
        tree::remove(parent, name).map_err(|errno| storage("remove", entry, errno))
    }

    /// Opens the directory that an entry goes to; missing ones are made.
    fn directory(&self, path: &[u8], entry: &Entry) -> Result<OwnedFd, LayerError> {
        let directory = join(self.options.directory, &[path]);
        make_directories(self.root, &directory).map_err(|errno| storage("make parent of", entry, errno))
    }

    fn outside(&self, entry: &Entry, reason: &'static str) -> LayerError {
        if reason != crate::layer::OUTSIDE {
            return LayerError::Entry { entry: entry.name(), reason: reason.to_owned() };
        }
        let directory = text(self.options.directory);
        LayerError::Refused { message: format!("\"{}\" is outside of \"{directory}\"", entry.name()) }
    }
}

/// Opens a directory below `root`; it and its parents are made where they are missing.
///
/// # Errors
/// What the system answers.
pub fn make_directories(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_inside(root, path, flags) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut current = open_inside(root, b"/", flags)?;
    let mut so_far = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        so_far.push(b'/');
        so_far.extend_from_slice(part);
        current = match open_inside(root, &so_far, flags) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&current, part, Mode::from_raw_mode(0o755)) {
                    // A link that leads nowhere answers so, and so does somebody who was quicker.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                open_inside(root, &so_far, flags)?
            }
            other => other?,
        };
    }
    Ok(current)
}

fn set_times(made: impl AsFd, mtime: (i64, u32)) -> rustix::io::Result<()> {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(made, c"", &times, AtFlags::EMPTY_PATH)
}

fn join(directory: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut path = directory.to_vec();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    path
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn storage(op: &'static str, entry: &Entry, errno: Errno) -> LayerError {
    LayerError::Storage { op, entry: entry.name(), cause: errno.into() }
}
