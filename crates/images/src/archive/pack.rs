//! From a tree to a tar stream.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::EntryType;

use super::changes::{Change, ChangeKind};
use super::writer::{Header, Writer};

const BUFFER: usize = 256 << 10;
/// Longer paths exist in no archive; it bounds the open directories too.
const LONGEST_PATH: usize = 4096;
const DEEPEST: usize = 1024;
/// Hard links beyond so many files are written as files of their own.
const MOST_LINKED: usize = 1 << 20;
const LARGEST_XATTRS: usize = 64 << 10;

/// Whether what is mounted below a tree is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// It is.
    Included,
    /// Only the mount point is.
    LeftOut,
}

/// What a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Files,
    /// The upper directory of an overlay.
    Overlay,
}

fn is_whiteout(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice && status.st_rdev == 0
}

/// Writes trees as tar entries.
pub struct Packer<W> {
    out: Writer<W>,
    /// The first path of each file with several names.
    linked: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    size: u64,
    /// What every time becomes.
    time: Option<i64>,
}

struct Level {
    directory: OwnedFd,
    path: Vec<u8>,
    /// Names still to come, the next one last.
    names: Vec<CString>,
}

impl<W: Write> Packer<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out: Writer::new(out), linked: HashMap::new(), buffer: vec![0; BUFFER], size: 0, time: None }
    }

    /// Says that every file was changed at one time, in seconds since 1970.
    pub fn with_every_time(self, time: i64) -> Self {
        Self { time: Some(time), ..self }
    }

    /// Bytes of all files so far, without headers.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes the end of the archive and returns what was written to.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn finish(self) -> io::Result<W> {
        self.out.finish()
    }

    /// Adds what `node`, an `O_PATH` descriptor, is under the name `path`, and a directory with all that is in it.
    /// An empty `path` leaves a directory's own entry out.
    ///
    /// What vanishes meanwhile is left out; a file that shrinks is filled with zeros.
    ///
    /// # Errors
    /// When reading fails, or writing.
    pub fn add(&mut self, node: OwnedFd, path: &[u8], mounts: Mounts) -> io::Result<()> {
        self.walk(node, path, mounts, Form::Files)
    }

    /// Adds all that is in the upper directory of an overlay, as a layer has it: its marks as whiteouts.
    ///
    /// # Errors
    /// As [`Packer::add`].
    pub fn add_upper(&mut self, upper: OwnedFd) -> io::Result<()> {
        self.walk(upper, b"", Mounts::LeftOut, Form::Overlay)
    }

    fn walk(&mut self, node: OwnedFd, path: &[u8], mounts: Mounts, form: Form) -> io::Result<()> {
        let status = rustix::fs::fstat(&node)?;
        let device = status.st_dev;
        if !path.is_empty() {
            self.entry(&node, &status, path)?;
        }
        let mut levels = Vec::new();
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            levels.push(Level::open(node.as_fd(), path.to_vec())?);
        }
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { break };
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = match rustix::fs::openat(&level.directory, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let status = rustix::fs::fstat(&node)?;
            let path = join(&level.path, name.to_bytes());
            if path.len() > LONGEST_PATH || depth > DEEPEST {
                return Err(io::Error::other("a path is too long for an archive"));
            }
            if form == Form::Overlay && is_whiteout(&status) {
                let name = [b".wh.", name.to_bytes()].concat();
                self.mark(join(&level.path, &name))?;
                continue;
            }
            self.entry(&node, &status, &path)?;
            if form == Form::Overlay && super::changes::opaque(&node) {
                self.mark(join(&path, b".wh..wh..opq"))?;
            }
            let enter = mounts == Mounts::Included || status.st_dev == device;
            if enter && FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                levels.push(Level::open(node.as_fd(), path)?);
            }
        }
        Ok(())
    }

    /// Adds what has changed in the upper directory of an overlay, as a layer has it: removed files as whiteouts.
    ///
    /// # Errors
    /// As [`Packer::add`].
    pub fn add_changes(&mut self, upper: BorrowedFd<'_>, changes: &[Change]) -> io::Result<()> {
        for change in changes {
            let path = change.path.strip_prefix(b"/").unwrap_or(&change.path);
            if change.kind == ChangeKind::Deleted {
                let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
                let name = [&path[..at], b".wh.", &path[at..]].concat();
                self.out.header(&Header { path: name, mode: 0, ..Header::file("", 0, 0) })?;
                continue;
            }
            let node = match super::open_inside(upper, path, OFlags::PATH | OFlags::NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let status = rustix::fs::fstat(&node)?;
            self.entry(&node, &status, path)?;
        }
        Ok(())
    }

    fn mark(&mut self, path: Vec<u8>) -> io::Result<()> {
        self.out.header(&Header { path, mode: 0, ..Header::file("", 0, 0) })
    }

    fn entry(&mut self, node: &OwnedFd, status: &Stat, path: &[u8]) -> io::Result<()> {
        let Some(mut header) = header(node, status, path)? else { return Ok(()) };
        header.mtime = self.time.unwrap_or(header.mtime);
        if header.kind != EntryType::Directory && status.st_nlink > 1 {
            let key = (status.st_dev, status.st_ino);
            if let Some(first) = self.linked.get(&key) {
                (header.kind, header.size) = (EntryType::Link, 0);
                header.link.clone_from(first);
                header.xattrs.clear();
                return self.out.header(&header);
            }
            if self.linked.len() < MOST_LINKED {
                self.linked.insert(key, path.to_vec());
            }
        }
        if header.kind != EntryType::Regular {
            return self.out.header(&header);
        }
        // The very file that was looked at: the descriptor cannot be led elsewhere.
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(link_to(node), flags, Mode::empty())?);
        self.out.header(&header)?;
        self.size += header.size;
        let mut left = header.size;
        while left > 0 {
            let want = left.min(BUFFER as u64) as usize;
            let mut got = file.read(&mut self.buffer[..want])?;
            if got == 0 {
                self.buffer[..want].fill(0);
                got = want;
            }
            self.out.data(&self.buffer[..got])?;
            left -= got as u64;
        }
        self.out.pad(header.size)
    }
}

impl Level {
    fn open(node: BorrowedFd<'_>, path: Vec<u8>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(node, c".", flags, Mode::empty())?;
        let names = names_in(&directory)?;
        Ok(Self { directory, path, names })
    }
}

/// The names in a directory, backwards.
pub(super) fn names_in(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        _ if directory.ends_with(b"/") => [directory, name].concat(),
        _ => [directory, b"/", name].concat(),
    }
}

/// A path that leads to the file of a descriptor, whatever its name is by now.
pub(super) fn link_to(node: impl AsFd) -> String {
    format!("/proc/self/fd/{}", node.as_fd().as_raw_fd())
}

/// What an entry says; nothing for a socket, which no archive has.
fn header(node: &OwnedFd, status: &Stat, path: &[u8]) -> io::Result<Option<Header>> {
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => EntryType::Regular,
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::CharacterDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
        FileType::Fifo => EntryType::Fifo,
        _ => return Ok(None),
    };
    let link = match kind {
        EntryType::Symlink => rustix::fs::readlinkat(node, c"", Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    let mut path = path.to_vec();
    if kind == EntryType::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    Ok(Some(Header {
        path,
        kind,
        link,
        mode: status.st_mode & 0o7777,
        uid: status.st_uid,
        gid: status.st_gid,
        mtime: status.st_mtime,
        size: if kind == EntryType::Regular { u64::try_from(status.st_size).unwrap_or(0) } else { 0 },
        device: (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev)),
        xattrs: if matches!(kind, EntryType::Regular | EntryType::Directory) {
            xattrs(node)
        } else {
            Vec::new()
        },
    }))
}

/// The attributes that are the file's own: capabilities and what users set. The others are the system's.
pub(super) fn xattrs(node: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = link_to(node);
    let mut names = vec![0; LARGEST_XATTRS];
    let Ok(length) = rustix::fs::listxattr(&path, &mut names[..]) else { return Vec::new() };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let kept = name == b"security.capability" || name.starts_with(b"user.");
        if !kept || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0; LARGEST_XATTRS];
        if let Ok(length) = rustix::fs::getxattr(&path, name, &mut value[..]) {
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    found.sort();
    found
}
