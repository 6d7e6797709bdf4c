//! Removes directory trees of any depth with few descriptors and without following symlinks.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Below this depth a directory is first moved up: a hostile layer may nest deeper than descriptors suffice.
const MAX_DEPTH: usize = 48;

/// Removes `name` in `parent`, whatever it is; a missing one is fine.
pub(crate) fn remove(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let parent = parent.as_fd();
    let mut moved = vec![name.to_vec()];
    let mut counter = 0u64;
    while let Some(name) = moved.pop() {
        match rustix::fs::unlinkat(parent, name.as_slice(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(e) => return Err(e),
        }
        remove_directory(parent, &name, 0, &mut |directory, child| {
            loop {
                let up = format!(".skiff-removing-{counter}").into_bytes();
                counter += 1;
                match rustix::fs::renameat_with(
                    directory,
                    child,
                    parent,
                    up.as_slice(),
                    RenameFlags::NOREPLACE,
                ) {
                    Err(Errno::EXIST) => {}
                    Err(e) => return Err(e),
                    Ok(()) => {
                        moved.push(up);
                        return Ok(());
                    }
                }
            }
        })?;
    }
    Ok(())
}

type MoveUp<'a> = dyn FnMut(rustix::fd::BorrowedFd<'_>, &[u8]) -> rustix::io::Result<()> + 'a;

fn remove_directory(
    parent: rustix::fd::BorrowedFd<'_>,
    name: &[u8],
    depth: usize,
    move_up: &mut MoveUp<'_>,
) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for item in rustix::fs::Dir::read_from(&directory)? {
        let item = item?;
        let child = item.file_name().to_bytes();
        if matches!(child, b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(&directory, child, AtFlags::empty()) {
            Err(Errno::ISDIR) if depth >= MAX_DEPTH => move_up(directory.as_fd(), child)?,
            Err(Errno::ISDIR) => remove_directory(directory.as_fd(), child, depth + 1, move_up)?,
            other => other?,
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes a path; a missing one is fine.
pub(crate) fn remove_path(path: &std::path::Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let parent = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(remove(&parent, std::os::unix::ffi::OsStrExt::as_bytes(name))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_descriptors_reach_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut current = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        for _ in 0..1200 {
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            current = rustix::fs::openat(&current, "d", flags, Mode::empty()).unwrap();
        }
        rustix::fs::symlinkat("/", &current, "root").unwrap();
        remove_path(&dir.path().join("d")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        remove_path(&dir.path().join("d")).unwrap();
    }
}
