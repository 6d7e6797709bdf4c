//! Which files of a view an operation means, and the checksum of what they are.

use std::io;

use bollard_buildkit_proto::fsutil::types::Stat;
use sha2::{Digest as _, Sha256};

use super::glob;
use super::view::{Kind, Meta, View};
use crate::dockerfile::IgnoreMatcher as Matcher;
use crate::error::{Error, Result};

const DEEPEST: usize = 1024;

/// What a copy takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// The path, as the operation has it.
    pub path: Vec<u8>,
    /// Whether a link at its end is followed.
    pub follow: bool,
    /// Whether the path may be a pattern.
    pub wildcard: bool,
    /// What of a directory; empty: everything.
    pub include: Vec<String>,
    /// What not.
    pub exclude: Vec<String>,
}

impl Selection {
    /// The paths that it means, without links in their directories, each with the name that it was asked for by.
    pub fn paths(&self, view: &View) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let path = clean(&self.path);
        let failed = |error: io::Error| Error::failed(format!("{}: {error}", text(&path)));
        let mut found = Vec::new();
        let names: Vec<Vec<u8>> = if self.wildcard && glob::is_pattern(&path) {
            let (base, pattern) = split(&path);
            let base = view.resolve(base, true).map_err(failed)?;
            let mut names = Vec::new();
            expand(view, &base, b"", pattern, &mut names).map_err(failed)?;
            names.iter().map(|name| join(&base, name)).collect()
        } else {
            vec![path.clone()]
        };
        for name in names {
            let resolved = view.resolve(&name, self.follow).map_err(failed)?;
            found.push((resolved, name));
        }
        Ok(found)
    }

    /// The rules for what is below a directory.
    pub fn rules(&self) -> Result<Rules> {
        let rules = |patterns: &[String]| -> Result<Option<Matcher>> {
            if patterns.is_empty() {
                return Ok(None);
            }
            Matcher::new(patterns).map(Some).map_err(|error| Error::invalid(error.to_string()))
        };
        Ok(Rules { include: rules(&self.include)?, exclude: rules(&self.exclude)? })
    }
}

/// Which paths below a directory are meant.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

impl Rules {
    /// Says whether a path below the directory is meant.
    pub fn has(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        self.include.as_ref().is_none_or(|include| include.matches(&path))
            && self.exclude.as_ref().is_none_or(|exclude| !exclude.matches(&path))
    }
}

/// Cuts a pattern after the last name without a special letter that has only such names before it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    for part in path.split(|c| *c == b'/') {
        if glob::is_pattern(part) {
            break;
        }
        at += part.len() + 1;
    }
    let at = at.min(path.len());
    (path[..at].strip_suffix(b"/").unwrap_or(&path[..at]), &path[at..])
}

fn expand(
    view: &View,
    base: &[u8],
    below: &[u8],
    pattern: &[u8],
    found: &mut Vec<Vec<u8>>,
) -> io::Result<()> {
    let directory = join(base, below);
    let depth = below.split(|c| *c == b'/').filter(|part| !part.is_empty()).count();
    if depth > pattern.iter().filter(|c| **c == b'/').count()
        || view.meta(&directory)?.is_none_or(|meta| meta.kind != Kind::Directory)
    {
        return Ok(());
    }
    for name in view.list(&directory)? {
        let path = join(below, &name);
        if glob::matches(pattern, &path) == Some(true) {
            found.push(path);
        } else {
            expand(view, base, &path, pattern, found)?;
        }
    }
    Ok(())
}

/// The digest of what a selection means: names, kinds, modes, owners and contents, whatever the times.
pub(crate) fn checksum(view: &View, selection: &Selection) -> Result<String> {
    let mut hasher = Sha256::new();
    let rules = selection.rules()?;
    for (path, name) in selection.paths(view)? {
        let failed = |error: io::Error| Error::failed(format!("{}: {error}", text(&path)));
        let base = name.rsplit(|c| *c == b'/').next().unwrap_or_default();
        part(&mut hasher, base);
        let Some(meta) = view.meta(&path).map_err(failed)? else {
            part(&mut hasher, b"missing");
            continue;
        };
        hash(&mut hasher, view, &path, &meta).map_err(failed)?;
        if meta.kind == Kind::Directory {
            below(&mut hasher, view, &path, b"", &rules, 0).map_err(failed)?;
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

fn below(
    hasher: &mut Sha256,
    view: &View,
    root: &[u8],
    path: &[u8],
    rules: &Rules,
    depth: usize,
) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    for name in view.list(&join(root, path))? {
        let path = join(path, &name);
        let full = join(root, &path);
        let Some(meta) = view.meta(&full)? else { continue };
        if rules.has(&path) {
            part(hasher, &path);
            hash(hasher, view, &full, &meta)?;
        }
        if meta.kind == Kind::Directory {
            below(hasher, view, root, &path, rules, depth + 1)?;
        }
    }
    Ok(())
}

fn hash(hasher: &mut Sha256, view: &View, path: &[u8], meta: &Meta) -> io::Result<()> {
    let what = match meta.kind {
        Kind::File => format!("f{}", view.content(path)?).into_bytes(),
        Kind::Symlink => [b"l", view.link(path)?.as_slice()].concat(),
        Kind::Directory => b"d".to_vec(),
        Kind::Fifo => b"p".to_vec(),
        Kind::Socket => b"s".to_vec(),
        Kind::Char => format!("c{}:{}", meta.device.0, meta.device.1).into_bytes(),
        Kind::Block => format!("b{}:{}", meta.device.0, meta.device.1).into_bytes(),
    };
    part(hasher, &what);
    part(hasher, format!("{:o}:{}:{}", meta.mode, meta.uid, meta.gid).as_bytes());
    if matches!(meta.kind, Kind::File | Kind::Directory) {
        for (key, value) in view.xattrs(path) {
            part(hasher, &key);
            part(hasher, &value);
        }
    }
    Ok(())
}

fn part(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// A path without a slash at either end, `.` and `..`.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut done: Vec<&[u8]> = Vec::new();
    for part in path.split(|c| *c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(done.pop()),
            part => done.push(part),
        }
    }
    done.join(&b'/')
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory, name) {
        (b"", name) => name.to_vec(),
        (directory, b"") => directory.to_vec(),
        (directory, name) => [directory, b"/", name].concat(),
    }
}

pub(crate) fn text(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

/// A mode as Go's `os.FileMode` has it.
pub(crate) fn go_mode(meta: &Meta) -> u32 {
    let kind = match meta.kind {
        Kind::File => 0,
        Kind::Directory => 1 << 31,
        Kind::Symlink => 1 << 27,
        Kind::Fifo => 1 << 25,
        Kind::Socket => 1 << 24,
        Kind::Block => 1 << 26,
        Kind::Char => 1 << 26 | 1 << 21,
    };
    let bit = |from: u32, to: u32| if meta.mode & from != 0 { to } else { 0 };
    kind | meta.mode & 0o777 | bit(0o4000, 1 << 23) | bit(0o2000, 1 << 22) | bit(0o1000, 1 << 20)
}

/// What fsutil says of a path.
pub(crate) fn stat_of(view: &View, path: &[u8], meta: &Meta, name: String) -> io::Result<Stat> {
    let linkname = match meta.kind {
        Kind::Symlink => String::from_utf8_lossy(&view.link(path)?).into_owned(),
        _ => String::new(),
    };
    Ok(Stat {
        path: name,
        mode: go_mode(meta),
        uid: meta.uid,
        gid: meta.gid,
        size: if meta.kind == Kind::File { i64::try_from(meta.size).unwrap_or(i64::MAX) } else { 0 },
        mod_time: meta.mtime.0.saturating_mul(1_000_000_000).saturating_add(i64::from(meta.mtime.1)),
        linkname,
        devmajor: i64::from(meta.device.0),
        devminor: i64::from(meta.device.1),
        xattrs: std::collections::HashMap::new(),
    })
}
