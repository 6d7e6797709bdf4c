//! Paths inside a tree that somebody else changes.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As in the kernel.
const MAX_LINKS: usize = 40;
/// Attempts when renames elsewhere keep the kernel from resolving `..`.
const MAX_ATTEMPTS: usize = 1000;

/// Opens a path as a process whose root is `root` would. Links of `/proc` that lead elsewhere are not followed.
///
/// # Errors
/// What openat2(2) answers.
pub fn open_inside(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = match path {
        b"" => b".",
        path => path,
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..MAX_ATTEMPTS {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Follows all links of a path and returns the path without any, which begins with a slash. From the first name that
/// does not exist on, the rest is taken as it is; whether it is there is for the caller to find out.
///
/// # Errors
/// [`Errno::LOOP`] for a circle of links.
pub fn resolve(root: impl AsFd, path: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let mut todo: VecDeque<Vec<u8>> = parts(path).collect();
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        if part == b".." {
            done.pop();
            continue;
        }
        done.push(part);
        let Ok(fd) = open_inside(&root, &done.join(&b'/'), OFlags::PATH | OFlags::NOFOLLOW) else { continue };
        let Ok(target) = rustix::fs::readlinkat(&fd, c"", Vec::new()) else { continue };
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        done.pop();
        let target = target.as_bytes();
        if target.first() == Some(&b'/') {
            done.clear();
        }
        for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
            todo.push_front(part);
        }
    }
    let mut path = vec![b'/'];
    path.extend(done.join(&b'/'));
    Ok(path)
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_lead_nowhere_but_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("/a", dir.path().join("absolute")).unwrap();
        symlink("../../../../a/b", dir.path().join("a/up")).unwrap();
        symlink("/nowhere/x", dir.path().join("broken")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let resolved = |path: &str| resolve(&root, path.as_bytes()).map(|p| String::from_utf8(p).unwrap());
        assert_eq!(resolved("absolute/up/../up").unwrap(), "/a/b");
        assert_eq!(resolved("/../../broken").unwrap(), "/nowhere/x");
        assert_eq!(resolved("").unwrap(), "/");
        assert_eq!(resolved("loop").unwrap_err(), Errno::LOOP);
        assert!(open_inside(&root, b"/absolute/up/../b", OFlags::PATH).is_ok());
        assert_eq!(open_inside(&root, b"/etc/passwd", OFlags::PATH).unwrap_err(), Errno::NOENT);
    }

    proptest! {
        #[test]
        fn any_path_resolves_to_one_without_dots(path in "[a./]{0,30}") {
            let dir = tempfile::tempdir().unwrap();
            symlink("..", dir.path().join("a")).unwrap();
            let root = std::fs::File::open(dir.path()).unwrap();
            if let Ok(found) = resolve(&root, path.as_bytes()) {
                prop_assert!(found.starts_with(b"/"));
                prop_assert!(!found.split(|b| *b == b'/').any(|part| part == b".." || part == b"."));
            }
        }
    }
}
