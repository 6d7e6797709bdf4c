//! What one view has that another has not, as an overlay's upper directory.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode};

use super::act::{Ownership, make_parents};
use super::copy::{self, Options, failed, parent_of};
use super::select::{Selection, join};
use super::view::{Kind, Meta, View};
use crate::error::{Error, Result};

const DEEPEST: usize = 1024;

/// Writes below `root` what of `upper` is not in `lower`, and marks for what is only in `lower`.
pub(crate) fn subtract(lower: &View, upper: &View, root: &OwnedFd) -> Result<()> {
    directory(lower, upper, root, b"", 0)
}

fn directory(lower: &View, upper: &View, root: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::failed("directories are nested too deeply"));
    }
    let unreadable = |error: io::Error| failed("list", path, error);
    let had = match lower.meta(path).map_err(unreadable)? {
        Some(Meta { kind: Kind::Directory, .. }) => lower.list(path).map_err(unreadable)?,
        _ => Vec::new(),
    };
    let has = upper.list(path).map_err(unreadable)?;
    for name in had.iter().filter(|name| has.binary_search(name).is_err()) {
        let parent = parents(upper, root, path)?;
        let device = rustix::fs::makedev(0, 0);
        rustix::fs::mknodat(&parent, name.as_slice(), FileType::CharacterDevice, Mode::empty(), device)
            .map_err(|errno| failed("mark", &join(path, name), errno))?;
    }
    for name in has {
        let path = join(path, &name);
        let unreadable = |error: io::Error| failed("lstat", &path, error);
        let Some(new) = upper.meta(&path).map_err(unreadable)? else { continue };
        let old = lower.meta(&path).map_err(unreadable)?;
        let same = old.is_some_and(|old| same(lower, upper, &path, (&old, &new)));
        if new.kind == Kind::Directory {
            if !same {
                parents(upper, root, &path)?;
            }
            directory(lower, upper, root, &path, depth + 1)?;
        } else if !same {
            parents(upper, root, &parent_of(&path))?;
            let selection = Selection { path: path.clone(), ..Selection::default() };
            copy::copy(
                upper,
                root,
                &Options {
                    selection: &selection,
                    destination: &path,
                    ownership: Ownership::default(),
                    mode: None,
                    contents: false,
                    create: true,
                    unpack: false,
                    allow_empty: false,
                    replace: true,
                    required: &[],
                },
            )?;
        }
    }
    Ok(())
}

/// Makes a directory with those that it is in, each as `upper` has it.
fn parents(upper: &View, root: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    let mut so_far = Vec::new();
    let mut made =
        make_parents(root, b"", 0o755, &Ownership::default()).map_err(|error| failed("open", path, error))?;
    for part in path.split(|c| *c == b'/').filter(|part| !part.is_empty()) {
        so_far = join(&so_far, part);
        let meta = upper.meta(&so_far).map_err(|error| failed("lstat", &so_far, error))?;
        let meta = meta.ok_or_else(|| Error::failed("a directory has gone"))?;
        let ownership = Ownership { owner: Some((meta.uid, meta.gid)), time: Some(meta.mtime) };
        made = make_parents(root, &so_far, meta.mode, &ownership)
            .map_err(|error| failed("mkdir", &so_far, error))?;
    }
    Ok(made)
}

fn same(lower: &View, upper: &View, path: &[u8], (old, new): (&Meta, &Meta)) -> bool {
    let plain = |m: &Meta| (m.kind, m.mode, m.uid, m.gid, m.device);
    if plain(old) != plain(new) {
        return false;
    }
    match new.kind {
        Kind::Directory => lower.xattrs(path) == upper.xattrs(path),
        Kind::Symlink => matches!((lower.link(path), upper.link(path)), (Ok(a), Ok(b)) if a == b),
        Kind::File => {
            old.size == new.size
                && old.mtime == new.mtime
                && lower.xattrs(path) == upper.xattrs(path)
                && matches!((lower.content(path), upper.content(path)), (Ok(a), Ok(b)) if a == b)
        }
        _ => true,
    }
}
