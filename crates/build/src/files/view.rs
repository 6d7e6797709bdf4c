//! A tree of files that is only read: a context, or layers joined by overlayfs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use skiff_images::archive::open_inside;

use super::store::Store;
use super::tree::{NodeKind, Tree};

/// As in the kernel.
const MAX_LINKS: usize = 255;
const LARGEST_XATTRS: usize = 64 << 10;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    Char,
    Block,
}

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub kind: Kind,
    /// Permissions and the three bits above them.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub size: u64,
    pub device: (u32, u32),
    /// Set for a file with several names.
    pub inode: Option<(u64, u64)>,
}

/// The tree. Paths are relative, without links in their directories, without a slash at either end; `` is the root.
#[derive(Debug, Clone)]
pub(crate) enum View {
    /// Nothing.
    Empty,
    /// A context.
    Tree { tree: Arc<Tree>, store: Arc<Store> },
    /// A directory, most likely a detached mount.
    Mounted(Arc<OwnedFd>),
}

impl View {
    /// Describes a path, a link itself; `None` when there is none.
    pub fn meta(&self, path: &[u8]) -> io::Result<Option<Meta>> {
        match self {
            View::Empty => Ok(path.is_empty().then(root_meta)),
            View::Tree { tree, .. } => {
                if path.is_empty() {
                    return Ok(Some(root_meta()));
                }
                Ok(tree.get(path).map(|node| {
                    let (kind, size, device) = match &node.kind {
                        NodeKind::File { size, .. } => (Kind::File, *size, (0, 0)),
                        NodeKind::Directory => (Kind::Directory, 0, (0, 0)),
                        NodeKind::Symlink { target } => (Kind::Symlink, target.len() as u64, (0, 0)),
                        NodeKind::Fifo => (Kind::Fifo, 0, (0, 0)),
                        NodeKind::Char { device } => (Kind::Char, 0, *device),
                        NodeKind::Block { device } => (Kind::Block, 0, *device),
                    };
                    Meta {
                        kind,
                        mode: node.mode,
                        uid: node.uid,
                        gid: node.gid,
                        mtime: node.mtime,
                        size,
                        device,
                        inode: None,
                    }
                }))
            }
            View::Mounted(root) => match open_inside(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(errno) => Err(errno.into()),
                Ok(node) => Ok(Some(meta_of(&node)?)),
            },
        }
    }

    /// The names in a directory, in order.
    pub fn list(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        match self {
            View::Empty => Ok(Vec::new()),
            View::Tree { tree, .. } => Ok(tree.list(path)),
            View::Mounted(root) => {
                let directory =
                    open_inside(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
                let mut names = Vec::new();
                for entry in Dir::read_from(&directory)? {
                    let entry = entry?;
                    let name = entry.file_name().to_bytes();
                    if !matches!(name, b"." | b"..") {
                        names.push(name.to_vec());
                    }
                }
                names.sort();
                Ok(names)
            }
        }
    }

    /// Where a link leads to.
    pub fn link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            View::Empty => Err(Errno::NOENT.into()),
            View::Tree { tree, .. } => match tree.get(path).map(|node| &node.kind) {
                Some(NodeKind::Symlink { target }) => Ok(target.clone()),
                _ => Err(Errno::INVAL.into()),
            },
            View::Mounted(root) => {
                let node = open_inside(root, path, OFlags::PATH | OFlags::NOFOLLOW)?;
                Ok(rustix::fs::readlinkat(&node, c"", Vec::new())?.into_bytes())
            }
        }
    }

    /// Opens a regular file; nothing else is ever opened.
    pub fn open(&self, path: &[u8]) -> io::Result<File> {
        match self {
            View::Empty => Err(Errno::NOENT.into()),
            View::Tree { tree, store } => match tree.get(path).map(|node| &node.kind) {
                Some(NodeKind::File { hash, .. }) => File::open(store.path(hash)),
                _ => Err(Errno::NOENT.into()),
            },
            View::Mounted(root) => {
                let node = open_inside(root, path, OFlags::PATH | OFlags::NOFOLLOW)?;
                let status = rustix::fs::fstat(&node)?;
                if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
                    return Err(Errno::INVAL.into());
                }
                let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
                Ok(File::from(rustix::fs::open(fd_path(&node), flags, Mode::empty())?))
            }
        }
    }

    /// Extended attributes that belong to the file: capabilities and users' own.
    pub fn xattrs(&self, path: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        match self {
            View::Empty => Vec::new(),
            View::Tree { tree, .. } => tree.get(path).map(|node| node.xattrs.clone()).unwrap_or_default(),
            View::Mounted(root) => match open_inside(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(node) => own_xattrs(&node),
                Err(_) => Vec::new(),
            },
        }
    }

    /// The hash of a file's contents.
    pub fn content(&self, path: &[u8]) -> io::Result<String> {
        if let View::Tree { tree, .. } = self
            && let Some(NodeKind::File { hash, .. }) = tree.get(path).map(|node| &node.kind)
        {
            return Ok(hash.clone());
        }
        let mut file = self.open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok(hex::encode(hasher.finalize())),
                n => hasher.update(&buffer[..n]),
            }
        }
    }

    /// Follows the links of a path, inside. What does not exist is taken as it is. With `last`, the last name is followed
    /// too.
    pub fn resolve(&self, path: &[u8], last: bool) -> io::Result<Vec<u8>> {
        let mut todo: Vec<Vec<u8>> = parts(path).rev().collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                done.pop();
                continue;
            }
            done.push(part);
            if todo.is_empty() && !last {
                break;
            }
            let so_far = done.join(&b'/');
            if self.meta(&so_far)?.is_none_or(|meta| meta.kind != Kind::Symlink) {
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = self.link(&so_far)?;
            done.pop();
            if target.first() == Some(&b'/') {
                done.clear();
            }
            todo.extend(parts(&target).rev());
        }
        Ok(done.join(&b'/'))
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|c| *c == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}

fn root_meta() -> Meta {
    Meta {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size: 0,
        device: (0, 0),
        inode: None,
    }
}

pub(crate) fn meta_of(node: &OwnedFd) -> io::Result<Meta> {
    let status = rustix::fs::fstat(node)?;
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        _ => Kind::Socket,
    };
    Ok(Meta {
        kind,
        mode: status.st_mode & 0o7777,
        uid: status.st_uid,
        gid: status.st_gid,
        mtime: (status.st_mtime, u32::try_from(status.st_mtime_nsec).unwrap_or(0)),
        size: u64::try_from(status.st_size).unwrap_or(0),
        device: (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev)),
        inode: (kind == Kind::File && status.st_nlink > 1).then_some((status.st_dev, status.st_ino)),
    })
}

/// A path that leads to the file of a descriptor.
pub(crate) fn fd_path(node: impl AsFd) -> String {
    format!("/proc/self/fd/{}", node.as_fd().as_raw_fd())
}

fn own_xattrs(node: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = fd_path(node);
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

/// Opens a directory to be a view's root.
pub(crate) fn read_only_root(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
