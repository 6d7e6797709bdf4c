//! Reading a file of a container whose root file system is mounted nowhere.

use crate::rootfs::RootFs;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The most links that are followed, as in the kernel.
const MAX_LINKS: u32 = 40;

/// A root file system as its layers, topmost first.
#[derive(Clone, Debug)]
pub struct Root {
    layers: Vec<PathBuf>,
}

/// What a path is in the merged view.
enum Entry {
    Directory,
    Link(PathBuf),
    File(PathBuf),
}

impl Root {
    /// Looks at a root file system.
    pub fn new(rootfs: &RootFs) -> Self {
        let layers = match rootfs {
            RootFs::Dir(path) => vec![path.clone()],
            RootFs::Overlay { lower, upper, .. } => std::iter::once(upper).chain(lower).cloned().collect(),
        };
        Self { layers }
    }

    /// Opens a regular file for reading. Links are followed within the root and cannot lead out of it.
    ///
    /// # Errors
    /// `NotFound` also when a whiteout or an opaque directory hides the file.
    pub fn open(&self, path: &str) -> io::Result<File> {
        let mut todo: Vec<String> = parts(Path::new(path));
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(part);
            match self.entry(&done)? {
                Entry::Directory => {}
                Entry::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    done.pop();
                    if target.is_absolute() {
                        done.clear();
                    }
                    todo.extend(parts(&target));
                }
                Entry::File(layer) => {
                    if !todo.is_empty() {
                        return Err(io::ErrorKind::NotADirectory.into());
                    }
                    return open_file(&layer, &done.join("/"));
                }
            }
        }
        Err(Errno::ISDIR.into())
    }

    /// Looks a path without links up, layer by layer.
    fn entry(&self, path: &[String]) -> io::Result<Entry> {
        let text = path.join("/");
        for layer in &self.layers {
            let root =
                rustix::fs::open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat2(&root, text.as_str(), flags, Mode::empty(), resolve) {
                Ok(fd) => {
                    let status = rustix::fs::fstat(&fd)?;
                    return match FileType::from_raw_mode(status.st_mode) {
                        FileType::Directory => Ok(Entry::Directory),
                        FileType::Symlink => {
                            let target = rustix::fs::readlinkat(&fd, c"", Vec::new())?;
                            Ok(Entry::Link(PathBuf::from(
                                String::from_utf8_lossy(target.as_bytes()).into_owned(),
                            )))
                        }
                        FileType::RegularFile => Ok(Entry::File(layer.clone())),
                        // A whiteout is a character device 0:0; no other special file is ever read.
                        _ => Err(io::ErrorKind::NotFound.into()),
                    };
                }
                Err(Errno::NOENT) => {
                    if hides(&root, path)? {
                        break;
                    }
                }
                // A file or link of this layer in place of a directory hides everything below it.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Whether a parent of the path is opaque in this layer, so that the layers below do not show through.
fn hides(root: &impl std::os::fd::AsFd, path: &[String]) -> io::Result<bool> {
    for depth in 1..path.len() {
        let text = path[..depth].join("/");
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat2(root, text.as_str(), flags, Mode::empty(), resolve) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(false),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let mut value = [0u8; 4];
        match rustix::fs::fgetxattr(&directory, "trusted.overlay.opaque", &mut value) {
            Ok(len) if value.get(..len) == Some(b"y") => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

fn open_file(layer: &Path, path: &str) -> io::Result<File> {
    let root =
        rustix::fs::openat(CWD, layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?.into())
}

/// The components of a path, last first.
fn parts(path: &Path) -> Vec<String> {
    let text = path.to_string_lossy();
    text.split('/').filter(|part| !part.is_empty() && *part != ".").rev().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    fn text(root: &Root, path: &str) -> io::Result<String> {
        let mut text = String::new();
        root.open(path)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn layers() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        std::fs::create_dir_all(upper.join("etc")).unwrap();
        std::fs::create_dir_all(lower.join("etc/sub")).unwrap();
        std::fs::write(lower.join("etc/passwd"), "lower").unwrap();
        std::fs::write(lower.join("etc/group"), "lower").unwrap();
        std::fs::write(lower.join("etc/sub/file"), "lower").unwrap();
        let rootfs = RootFs::Overlay { lower: vec![lower], upper, work: dir.path().join("work") };
        let root = Root::new(&rootfs);
        (dir, root)
    }

    #[test]
    fn the_upper_layer_wins_and_the_lower_shows_through() {
        let (dir, root) = layers();
        std::fs::write(dir.path().join("upper/etc/passwd"), "upper").unwrap();
        assert_eq!(text(&root, "etc/passwd").unwrap(), "upper");
        assert_eq!(text(&root, "/etc/group").unwrap(), "lower");
    }

    #[test]
    fn links_stay_inside() {
        let (dir, root) = layers();
        std::fs::write(dir.path().join("secret"), "host").unwrap();
        symlink("../../../../secret", dir.path().join("upper/etc/climb")).unwrap();
        symlink(dir.path().join("secret"), dir.path().join("upper/etc/absolute")).unwrap();
        symlink("/etc/group", dir.path().join("upper/etc/inside")).unwrap();
        symlink("loop", dir.path().join("upper/etc/loop")).unwrap();
        assert_eq!(root.open("etc/climb").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(root.open("etc/absolute").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(root.open("etc/loop").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(text(&root, "etc/inside").unwrap(), "lower");
        assert_eq!(text(&root, "../../etc/group").unwrap(), "lower");
    }

    #[test]
    fn what_overlayfs_hides_is_not_found() {
        let (dir, root) = layers();
        let whiteout = dir.path().join("upper/etc/group");
        rustix::fs::mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let opaque = dir.path().join("upper/etc/sub");
        std::fs::create_dir(&opaque).unwrap();
        rustix::fs::setxattr(&opaque, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .unwrap();
        assert_eq!(root.open("etc/group").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(root.open("etc/sub/file").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_pipe_is_not_opened() {
        let (dir, root) = layers();
        let pipe = dir.path().join("upper/etc/passwd");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(root.open("etc/passwd").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
