//! File operations other than copying: making, removing, linking.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use skiff_images::archive::{open_inside, remove_tree, resolve};

use super::copy::{chown, failed, parent_of, set_times};
use super::select::{Selection, clean};
use super::view::View;
use crate::error::{Error, Result};
use std::sync::Arc;

/// Whose what is made becomes, and of when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ownership {
    /// User and group; `None`: as the source has it, or root.
    pub owner: Option<(u32, u32)>,
    /// Modification time; `None`: as the source has it, or now.
    pub time: Option<(i64, u32)>,
}

impl Ownership {
    fn apply(&self, made: &OwnedFd) -> rustix::io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            chown(made.as_fd(), uid, gid)?;
        }
        match self.time {
            Some(time) => set_times(made.as_fd(), time),
            None => Ok(()),
        }
    }
}

/// Makes a directory and those that it is in, as far as they are missing; opens it. `path` is followed inside.
pub(crate) fn make_parents(
    root: &OwnedFd,
    path: &[u8],
    mode: u32,
    ownership: &Ownership,
) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match open_inside(root, path, flags) {
        Err(Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let mut current = open_inside(root, b"/", flags)?;
    let mut so_far = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        so_far.push(b'/');
        so_far.extend_from_slice(part);
        current = match open_inside(root, &so_far, flags) {
            Err(Errno::NOENT) => {
                // A link that leads nowhere answers EEXIST here.
                rustix::fs::mkdirat(&current, part, Mode::RWXU)?;
                let made = open_inside(root, &so_far, flags | OFlags::NOFOLLOW)?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(mode & 0o7777))?;
                ownership.apply(&made)?;
                made
            }
            other => other?,
        };
    }
    Ok(current)
}

/// Makes a directory.
pub(crate) fn make_directory(
    root: &OwnedFd,
    path: &[u8],
    mode: u32,
    parents: bool,
    ownership: &Ownership,
) -> Result<()> {
    let target = resolve(root, path).map_err(|errno| failed("mkdir", path, errno))?;
    if parents {
        return make_parents(root, &target, mode, ownership)
            .map(drop)
            .map_err(|error| failed("mkdir", path, error));
    }
    let failed = |errno: Errno| failed("mkdir", path, errno);
    let (parent, name) = parent_and_name(root, &target).map_err(failed)?;
    match rustix::fs::mkdirat(&parent, name.as_slice(), Mode::RWXU) {
        Err(Errno::EXIST) => return Ok(()),
        other => other.map_err(failed)?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&parent, name.as_slice(), flags, Mode::empty()).map_err(failed)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode & 0o7777)).map_err(failed)?;
    ownership.apply(&made).map_err(failed)
}

/// Writes a file.
pub(crate) fn make_file(
    root: &OwnedFd,
    path: &[u8],
    mode: u32,
    data: &[u8],
    ownership: &Ownership,
) -> Result<()> {
    let failed = |errno: Errno| failed("open", path, errno);
    let target = resolve(root, path).map_err(failed)?;
    let (parent, name) = parent_and_name(root, &target).map_err(failed)?;
    // The last name was followed: a link that is there now leads nowhere.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made =
        rustix::fs::openat(&parent, name.as_slice(), flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
    let mut file = std::fs::File::from(made);
    io::Write::write_all(&mut file, data).map_err(|error| super::copy::failed("write", path, error))?;
    let made = OwnedFd::from(file);
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode & 0o7777)).map_err(failed)?;
    ownership.apply(&made).map_err(failed)
}

/// Gives a file that was written its mode, owner and times.
pub(crate) fn finish_file(root: &OwnedFd, path: &[u8], mode: u32, ownership: &Ownership) -> Result<()> {
    let failed = |errno: Errno| failed("chmod", path, errno);
    let file = open_inside(root, path, OFlags::RDONLY | OFlags::NOFOLLOW).map_err(failed)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).map_err(failed)?;
    ownership.apply(&file).map_err(failed)
}

/// Makes a symbolic link at `new` that leads to `old`.
pub(crate) fn make_link(root: &OwnedFd, old: &[u8], new: &[u8], ownership: &Ownership) -> Result<()> {
    let failed = |errno: Errno| failed("symlink", new, errno);
    let (parent, name) = parent_and_name(root, &clean(new)).map_err(failed)?;
    rustix::fs::symlinkat(old, &parent, name.as_slice()).map_err(failed)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&parent, name.as_slice(), flags, Mode::empty()).map_err(failed)?;
    ownership.apply(&made).map_err(failed)
}

/// Removes a path, or what a pattern means.
pub(crate) fn remove(root: &OwnedFd, path: &[u8], wildcard: bool, allow_missing: bool) -> Result<()> {
    let again = root.try_clone().map_err(|error| failed("open", path, error))?;
    let selection = Selection { path: path.to_vec(), wildcard, ..Selection::default() };
    let paths = selection.paths(&View::Mounted(Arc::new(again)))?;
    for (path, _) in paths {
        let failed = |errno: Errno| failed("remove", &path, errno);
        if path.is_empty() {
            return Err(Error::failed("rm /: the root can't be removed"));
        }
        let found = open_inside(root, &path, OFlags::PATH | OFlags::NOFOLLOW);
        match found {
            Err(Errno::NOENT | Errno::NOTDIR) if allow_missing => continue,
            Err(errno) => return Err(failed(errno)),
            Ok(_) => {}
        }
        let (parent, name) = parent_and_name(root, &path).map_err(failed)?;
        remove_tree(&parent, &name).map_err(failed)?;
    }
    Ok(())
}

fn parent_and_name(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<(OwnedFd, Vec<u8>)> {
    let path = clean(path);
    let name = path.rsplit(|c| *c == b'/').next().filter(|name| !name.is_empty()).ok_or(Errno::EXIST)?;
    let parent = open_inside(root, &parent_of(&path), OFlags::RDONLY | OFlags::DIRECTORY)?;
    Ok((parent, name.to_vec()))
}

/// Applies a change as chmod(1) takes it to a mode.
pub(crate) fn symbolic_mode(change: &str, mode: u32, directory: bool) -> Result<u32> {
    let wrong = || Error::invalid(format!("invalid mode: {change}"));
    if let Ok(octal) = u32::from_str_radix(change, 8) {
        return if octal <= 0o7777 { Ok(octal) } else { Err(wrong()) };
    }
    let mut mode = mode & 0o7777;
    for clause in change.split(',') {
        let operator = clause.find(['+', '-', '=']).ok_or_else(wrong)?;
        let (mut who, rest) = (0u32, &clause[operator..]);
        for c in clause[..operator].chars() {
            who |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return Err(wrong()),
            };
        }
        if who == 0 {
            who = 0o7777;
        }
        let mut actions: Vec<(char, String)> = Vec::new();
        for c in rest.chars() {
            match (c, actions.last_mut()) {
                ('+' | '-' | '=', _) => actions.push((c, String::new())),
                (c, Some((_, letters))) => letters.push(c),
                (_, None) => return Err(wrong()),
            }
        }
        for (operator, letters) in actions {
            let mut bits = 0;
            for c in letters.chars() {
                bits |= match c {
                    'r' => 0o444 & who,
                    'w' => 0o222 & who,
                    'x' => 0o111 & who,
                    'X' if directory || mode & 0o111 != 0 => 0o111 & who,
                    'X' => 0,
                    's' => 0o6000 & who,
                    't' => 0o1000,
                    'u' => spread(mode >> 6 & 7) & who,
                    'g' => spread(mode >> 3 & 7) & who,
                    'o' => spread(mode & 7) & who,
                    _ => return Err(wrong()),
                };
            }
            mode = match operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => mode & !(who & 0o777) | bits,
            };
        }
    }
    Ok(mode)
}

fn spread(bits: u32) -> u32 {
    bits << 6 | bits << 3 | bits
}

/// Opens a file of a view, for looking up users in it.
pub(crate) fn open_in(view: &View, path: &str) -> io::Result<std::fs::File> {
    let resolved = view.resolve(path.as_bytes(), true)?;
    view.open(&resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_with_chmod() {
        let change = |text: &str, mode| symbolic_mode(text, mode, false).ok();
        assert_eq!(change("755", 0), Some(0o755));
        assert_eq!(change("u+x,go-w", 0o666), Some(0o744));
        assert_eq!(change("a=rX", 0o755), Some(0o555));
        assert_eq!(change("a=rX", 0o644), Some(0o444));
        assert_eq!(symbolic_mode("a+X", 0o644, true).ok(), Some(0o755));
        assert_eq!(change("g=u", 0o640), Some(0o660));
        assert_eq!(change("u+s,+t", 0o755), Some(0o5755));
        assert_eq!(change("x", 0), None);
        assert_eq!(change("u+q", 0), None);
    }
}
