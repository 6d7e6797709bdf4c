//! Copies what a selection means into a result.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use skiff_images::archive::{open_inside, resolve};

use super::act::{Ownership, make_parents};
use super::select::{Rules, Selection, clean, join, text};
use super::view::{Kind, Meta, View, fd_path, meta_of};
use crate::error::{Error, Result};

const DEEPEST: usize = 1024;

/// A change of permissions.
#[derive(Debug, Clone)]
pub(crate) enum ModeChange {
    /// All bits.
    Set(u32),
    /// As chmod(1) takes it: `u+x,go-w`.
    Symbolic(String),
}

/// How a copy is made.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    pub selection: &'a Selection,
    /// Where to: a directory's slash at the end counts.
    pub destination: &'a [u8],
    pub ownership: Ownership,
    pub mode: Option<ModeChange>,
    /// Whether a directory stands for what is in it.
    pub contents: bool,
    /// Whether directories on the way are made.
    pub create: bool,
    /// Whether an archive is unpacked.
    pub unpack: bool,
    /// Whether a pattern may mean nothing.
    pub allow_empty: bool,
    /// Whether what is there is replaced by something of another kind.
    pub replace: bool,
    /// Paths that must be there, among what patterns include.
    pub required: &'a [String],
}

/// Copies from a view below `root`.
pub(crate) fn copy(view: &View, root: &OwnedFd, options: &Options<'_>) -> Result<()> {
    let selection = options.selection;
    let source = clean(&selection.path);
    let paths = selection.paths(view)?;
    if paths.is_empty() && !options.allow_empty {
        return Err(Error::not_found(format!("{} not found", text(&source))));
    }
    let rules = selection.rules()?;
    check_required(view, options.required)?;
    if !options.create {
        let parent = parent_of(&clean(options.destination));
        let there = open_inside(root, &parent, OFlags::PATH | OFlags::DIRECTORY);
        there.map_err(|errno| failed("lstat", &parent, errno))?;
    }
    for (path, name) in paths {
        let meta = view.meta(&path).map_err(|error| failed("lstat", &path, error))?;
        let Some(meta) = meta else {
            return Err(Error::not_found(format!("lstat {}: no such file or directory", text(&name))));
        };
        if options.unpack && meta.kind == Kind::File && is_archive(view, &path) {
            unpack(view, &path, root, options)?;
            continue;
        }
        let mut copier = Copier { view, options, rules: &rules, links: HashMap::new() };
        copier.top(root, &path, &name, &meta)?;
    }
    Ok(())
}

fn check_required(view: &View, required: &[String]) -> Result<()> {
    for path in required {
        let selection = Selection { path: path.clone().into_bytes(), wildcard: true, ..Selection::default() };
        let missing = |found: &(Vec<u8>, Vec<u8>)| matches!(view.meta(&found.0), Ok(None));
        let paths = selection.paths(view)?;
        if paths.is_empty() || paths.iter().any(missing) {
            return Err(Error::not_found(format!("\"/{}\": not found", path.trim_start_matches('/'))));
        }
    }
    Ok(())
}

fn is_archive(view: &View, path: &[u8]) -> bool {
    view.open(path).is_ok_and(|file| skiff_images::archive::is_tar(io::BufReader::new(file)))
}

fn unpack(view: &View, path: &[u8], root: &OwnedFd, options: &Options<'_>) -> Result<()> {
    let destination = clean(options.destination);
    let directory = resolve(root, &destination).map_err(|errno| failed("resolve", &destination, errno))?;
    make_parents(root, &directory, 0o755, &options.ownership)
        .map_err(|error| failed("mkdir", &destination, error))?;
    let file = view.open(path).map_err(|error| failed("open", path, error))?;
    let extract = skiff_images::archive::Extract {
        directory: &directory,
        overwrite: skiff_images::archive::Overwrite::Anything,
        owner: options.ownership.owner,
    };
    skiff_images::archive::extract(io::BufReader::with_capacity(128 << 10, file), root, extract)
        .map_err(|error| Error::failed(format!("unpack {}: {error}", text(path))))
}

struct Copier<'a> {
    view: &'a View,
    options: &'a Options<'a>,
    rules: &'a Rules,
    /// Where a file with several names was copied to first.
    links: HashMap<(u64, u64), OwnedFd>,
}

/// A directory of the source and its copy, which may have to be made yet.
struct Place {
    source: Vec<u8>,
    name: Vec<u8>,
    meta: Meta,
    made: Option<OwnedFd>,
    /// Whether it was not there before.
    new: bool,
}

impl Copier<'_> {
    fn top(&mut self, root: &OwnedFd, path: &[u8], name: &[u8], meta: &Meta) -> Result<()> {
        let raw = self.options.destination;
        let destination = clean(raw);
        let is_directory = meta.kind == Kind::Directory;
        let contents = is_directory && self.options.contents;
        let at_slash = raw.ends_with(b"/") || raw.ends_with(b"/.") || raw.is_empty() || raw == b".";
        let mut target = resolve(root, &destination).map_err(|e| failed("resolve", &destination, e))?;
        let parents = |path: &[u8]| make_parents(root, path, 0o755, &self.options.ownership);
        if at_slash {
            parents(&target).map_err(|error| failed("mkdir", &target, error))?;
        }
        let there = match open_inside(root, &target, OFlags::PATH) {
            Ok(node) => Some(meta_of(&node).map_err(|error| failed("stat", &target, error))?.kind),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed("stat", &target, errno)),
        };
        if there == Some(Kind::Directory) && !contents {
            let base = name.rsplit(|c| *c == b'/').next().unwrap_or_default();
            target = join(target.strip_suffix(b"/").unwrap_or(&target), base);
            target = [b"/".as_slice(), clean(&target).as_slice()].concat();
        }
        let inside = clean(&target);
        let parent_path = parent_of(&inside);
        let parent = parents(&parent_path).map_err(|error| failed("mkdir", &parent_path, error))?;
        let last = inside.rsplit(|c| *c == b'/').next().unwrap_or_default();
        if !is_directory {
            return self.node(&parent, last, path, meta);
        }
        let mut stack = Vec::new();
        if inside.is_empty() {
            let made = Some(parent);
            stack.push(Place { source: path.to_vec(), name: Vec::new(), meta: *meta, made, new: false });
        } else {
            stack.push(Place {
                source: path.to_vec(),
                name: last.to_vec(),
                meta: *meta,
                made: None,
                new: false,
            });
            self.make(&parent, &mut stack)?;
        }
        self.directory(&parent_or(&parent_path, root)?, path, b"", &mut stack)?;
        let place = stack.pop().expect("the directory that was begun");
        // What was there keeps its own attributes: the copy goes into it.
        if place.new
            && let Some(made) = &place.made
        {
            self.attributes(made, &place.source, &place.meta)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        above: &OwnedFd,
        root: &[u8],
        below: &[u8],
        stack: &mut Vec<Place>,
    ) -> Result<()> {
        if stack.len() > DEEPEST {
            return Err(Error::failed("directories are nested too deeply"));
        }
        let source = join(root, below);
        let names = self.view.list(&source).map_err(|error| failed("list", &source, error))?;
        for name in names {
            let path = join(below, &name);
            let full = join(root, &path);
            let meta = self.view.meta(&full).map_err(|error| failed("lstat", &full, error))?;
            let Some(meta) = meta else { continue };
            let wanted = self.rules.has(&path);
            if meta.kind != Kind::Directory {
                if wanted {
                    self.make(above, stack)?;
                    let parent = stack.last().and_then(|place| place.made.as_ref());
                    let parent = parent.expect("it was just made").try_clone();
                    let parent = parent.map_err(|error| failed("open", &full, error))?;
                    self.node(&parent, &name, &full, &meta)?;
                }
                continue;
            }
            stack.push(Place { source: full, name, meta, made: None, new: false });
            if wanted {
                self.make(above, stack)?;
            }
            self.directory(above, root, &path, stack)?;
            let place = stack.pop().expect("the directory that was begun");
            if let Some(made) = &place.made {
                self.attributes(made, &place.source, &place.meta)?;
            }
        }
        Ok(())
    }

    /// Makes the directories of the stack that are not made yet.
    fn make(&mut self, above: &OwnedFd, stack: &mut [Place]) -> Result<()> {
        for at in 0..stack.len() {
            if stack[at].made.is_some() {
                continue;
            }
            let (before, rest) = stack.split_at_mut(at);
            let parent = match before.last() {
                Some(place) => place.made.as_ref().expect("outer ones are made first"),
                None => above,
            };
            let place = &mut rest[0];
            let failed = |error: Errno| failed("mkdir", &place.source, error);
            match rustix::fs::mkdirat(parent, place.name.as_slice(), Mode::RWXU) {
                Ok(()) => place.new = true,
                Err(Errno::EXIST) => {
                    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let node = rustix::fs::openat(parent, place.name.as_slice(), flags, Mode::empty());
                    let status = node.and_then(rustix::fs::fstat).map_err(failed)?;
                    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
                        if !self.options.replace {
                            return Err(Error::failed(format!(
                                "cannot copy to non-directory: {}",
                                text(&place.name)
                            )));
                        }
                        rustix::fs::unlinkat(parent, place.name.as_slice(), AtFlags::empty())
                            .map_err(failed)?;
                        rustix::fs::mkdirat(parent, place.name.as_slice(), Mode::RWXU).map_err(failed)?;
                        place.new = true;
                    }
                }
                Err(errno) => return Err(failed(errno)),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(parent, place.name.as_slice(), flags, Mode::empty());
            place.made = Some(made.map_err(failed)?);
        }
        Ok(())
    }

    /// Copies what is no directory.
    fn node(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], meta: &Meta) -> Result<()> {
        if meta.kind == Kind::Socket {
            return Ok(());
        }
        let failed = |op, errno: Errno| failed(op, path, errno);
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) if self.options.replace => {
                skiff_images::archive::remove_tree(parent, name).map_err(|errno| failed("remove", errno))?;
            }
            Err(Errno::ISDIR) => {
                return Err(Error::failed(format!("cannot replace to directory {} with file", text(name))));
            }
            Err(errno) => return Err(failed("remove", errno)),
        }
        match meta.kind {
            Kind::File => {
                if let Some(first) = meta.inode.and_then(|inode| self.links.get(&inode)) {
                    return rustix::fs::linkat(
                        rustix::fs::CWD,
                        fd_path(first),
                        parent,
                        name,
                        AtFlags::SYMLINK_FOLLOW,
                    )
                    .map_err(|errno| failed("link", errno));
                }
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
                let mut made = File::from(made.map_err(|errno| failed("create", errno))?);
                let mut from =
                    self.view.open(path).map_err(|error| super::copy::failed("open", path, error))?;
                io::copy(&mut from, &mut made).map_err(|error| super::copy::failed("copy", path, error))?;
                let made = OwnedFd::from(made);
                self.attributes(&made, path, meta)?;
                if let Some(inode) = meta.inode {
                    self.links.insert(inode, made);
                }
                return Ok(());
            }
            Kind::Symlink => {
                let target =
                    self.view.link(path).map_err(|error| super::copy::failed("readlink", path, error))?;
                rustix::fs::symlinkat(target, parent, name).map_err(|errno| failed("symlink", errno))?;
            }
            kind => {
                let file_type = match kind {
                    Kind::Fifo => FileType::Fifo,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::CharacterDevice,
                };
                let device = rustix::fs::makedev(meta.device.0, meta.device.1);
                rustix::fs::mknodat(parent, name, file_type, Mode::RUSR | Mode::WUSR, device)
                    .map_err(|errno| failed("mknod", errno))?;
            }
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty());
        self.attributes(&made.map_err(|errno| failed("open", errno))?, path, meta)
    }

    /// Gives a copy its owner, mode, attributes and times: owner first, for it clears other things.
    fn attributes(&self, made: &OwnedFd, path: &[u8], meta: &Meta) -> Result<()> {
        let failed = |op, errno: Errno| failed(op, path, errno);
        let (uid, gid) = self.options.ownership.owner.unwrap_or((meta.uid, meta.gid));
        chown(made.as_fd(), uid, gid).map_err(|errno| failed("chown", errno))?;
        if meta.kind != Kind::Symlink {
            let mode = match &self.options.mode {
                None => meta.mode,
                Some(ModeChange::Set(mode)) => *mode,
                Some(ModeChange::Symbolic(change)) => {
                    super::act::symbolic_mode(change, meta.mode, meta.kind == Kind::Directory)?
                }
            };
            rustix::fs::chmod(fd_path(made), Mode::from_raw_mode(mode & 0o7777))
                .map_err(|errno| failed("chmod", errno))?;
            for (key, value) in self.view.xattrs(path) {
                match rustix::fs::setxattr(fd_path(made), key.as_slice(), &value, XattrFlags::empty()) {
                    // Not every file system keeps every attribute.
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                    Err(errno) => return Err(failed("set attribute of", errno)),
                }
            }
        }
        set_times(made.as_fd(), self.options.ownership.time.unwrap_or(meta.mtime))
            .map_err(|errno| failed("set times of", errno))
    }
}

fn parent_or(path: &[u8], root: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    open_inside(root, path, flags).map_err(|errno| failed("open", path, errno))
}

pub(crate) fn chown(made: BorrowedFd<'_>, uid: u32, gid: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(made, c"", uid, gid, AtFlags::EMPTY_PATH)
}

pub(crate) fn set_times(made: BorrowedFd<'_>, mtime: (i64, u32)) -> rustix::io::Result<()> {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(made, c"", &times, AtFlags::EMPTY_PATH)
}

pub(crate) fn parent_of(path: &[u8]) -> Vec<u8> {
    path.iter().rposition(|c| *c == b'/').map_or(Vec::new(), |at| path[..at].to_vec())
}

pub(crate) fn failed(op: &str, path: &[u8], error: impl Into<io::Error>) -> Error {
    let error: io::Error = error.into();
    Error::failed(format!("{op} {}: {}", text(&clean(path)), words(&error)))
}

/// The system's words without Rust's number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let cut = text.find(" (os error").unwrap_or(text.len());
    let mut words = text[..cut].to_owned();
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    words
}

/// Gives a directory that was filled its mode and owner.
pub(crate) fn finish_root(root: &OwnedFd, mode: u32, (uid, gid): (u32, u32)) -> Result<()> {
    let failed = |errno: Errno| failed("chmod", b"", errno);
    chown(root.as_fd(), uid, gid).map_err(failed)?;
    rustix::fs::chmod(fd_path(root), Mode::from_raw_mode(mode & 0o7777)).map_err(failed)
}
