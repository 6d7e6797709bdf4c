//! Ghost operations: changes that the host has made already, made once more in the guest so that its programs see them.
//!
//! | change on the host | what the guest half does | what the server does |
//! |---|---|---|
//! | content | `truncate(path, size)` | SETATTR: shows the attributes |
//! | attributes | `chmod(path, mode)` | SETATTR: shows the attributes |
//! | new name | `mknod`, `mkdir` or `symlink` | LOOKUP: not there; then MKNOD…: the entry as it is |
//! | name gone | `unlink` or `rmdir` | LOOKUP: still there; then UNLINK…: yes |
//! | name moved | `rename` | LOOKUPs as before the move; then RENAME: yes |
//! | closed after writing | `open`, `close` | nothing: the kernel does both by itself |
//!
//! The guest half has one thread for this, and the kernel says with each request which thread it comes from: nobody else
//! can be taken for it.

use super::Server;
use crate::abi::{Attr, EntryOut, Header, In, Op, Reply};
use crate::errno::{Errno, Result};
use crate::host::{Kind, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use crate::nodes::Node;

/// A change for the guest's programs to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ghost {
    /// The directory.
    pub parent: u64,
    /// The name in it.
    pub name: Box<[u8]>,
    /// What happened.
    pub kind: GhostKind,
}

/// What happened to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GhostKind {
    /// It is new.
    Made {
        /// Kind and permissions.
        mode: u32,
    },
    /// It is gone.
    Removed {
        /// What it was.
        kind: Kind,
    },
    /// It has another name now.
    Moved {
        /// The directory of the new name.
        parent: u64,
        /// The new name.
        name: Box<[u8]>,
        /// What it is.
        kind: Kind,
    },
    /// Its content has changed.
    Content {
        /// Its length now.
        size: u64,
    },
    /// Its attributes have changed.
    Attributes {
        /// Its permissions now.
        mode: u32,
    },
    /// It was closed after writing.
    Closed,
}

/// What the guest half does; the numbers are its protocol.
mod call {
    pub const TRUNCATE: u32 = 1;
    pub const MKNOD: u32 = 2;
    pub const MKDIR: u32 = 3;
    pub const SYMLINK: u32 = 4;
    pub const RENAME: u32 = 5;
    pub const UNLINK: u32 = 6;
    pub const RMDIR: u32 = 7;
    pub const CHMOD: u32 = 8;
    pub const TOUCH: u32 = 9;
}

/// Code of a notice that is for the guest half, where the kernel's own have theirs (`fuse_notify_code`).
const GHOST: i32 = 100;

impl Server {
    /// The message that has the guest half perform a ghost operation; none if its directory has been forgotten.
    pub(crate) fn ghost_message(&self, ghost: &Ghost) -> Option<Vec<u8>> {
        let path = self.nodes.path(ghost.parent, &ghost.name)?;
        let (call, argument, second) = match &ghost.kind {
            GhostKind::Content { size } => (call::TRUNCATE, *size, None),
            GhostKind::Attributes { mode } => (call::CHMOD, u64::from(*mode), None),
            GhostKind::Made { mode } => {
                let call = match mode & S_IFMT {
                    S_IFDIR => call::MKDIR,
                    S_IFLNK => call::SYMLINK,
                    _ => call::MKNOD,
                };
                (call, u64::from(*mode), None)
            }
            GhostKind::Removed { kind: Kind::Directory } => (call::RMDIR, 0, None),
            GhostKind::Removed { .. } => (call::UNLINK, 0, None),
            GhostKind::Moved { parent, name, .. } => (call::RENAME, 0, Some(self.nodes.path(*parent, name)?)),
            GhostKind::Closed => (call::TOUCH, 0, None),
        };
        let mut message = Reply::error(Errno(-GHOST));
        message.u32(call).u32(0).u64(argument).bytes(&path).bytes(&[0]);
        message.bytes(second.as_deref().unwrap_or_default()).bytes(&[0]);
        Some(message.finish(0))
    }

    /// Answers a request of the ghost thread, if it is not one to answer as any other.
    pub(super) fn answer_ghost(&self, op: Op, header: &Header, input: In<'_>) -> Option<Result<Reply>> {
        let ghost = self.ghost.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()?;
        match op {
            Op::Lookup => self.ghost_lookup(&ghost, header, input),
            Op::MkNod | Op::MkDir | Op::Symlink => Some(self.ghost_entry(&ghost)),
            Op::Unlink | Op::RmDir => {
                self.nodes.removed(ghost.parent, &ghost.name);
                Some(Ok(Reply::empty()))
            }
            Op::Rename | Op::Rename2 => {
                if let GhostKind::Moved { parent, name, .. } = &ghost.kind {
                    self.nodes.moved((ghost.parent, &ghost.name), (*parent, name), false);
                }
                Some(Ok(Reply::empty()))
            }
            Op::SetAttr => Some(self.attributes_only(header)),
            _ => None,
        }
    }

    fn ghost_lookup(&self, ghost: &Ghost, header: &Header, mut input: In<'_>) -> Option<Result<Reply>> {
        let name = input.name().ok()?;
        let known = |parent, name| self.nodes.named(parent, name);
        if (header.nodeid, name) == (ghost.parent, &*ghost.name) {
            return match &ghost.kind {
                GhostKind::Made { .. } => Some(Err(Errno::NOENT)),
                GhostKind::Removed { kind } => Some(match known(header.nodeid, name) {
                    Some(node) => Ok(self.remembered(&node)),
                    None => self.nodes.phantom(header.nodeid, name, *kind).map(|node| phantom_entry(&node)),
                }),
                GhostKind::Moved { parent, name: new, kind } => Some(match known(header.nodeid, name) {
                    Some(node) => Ok(self.remembered(&node)),
                    None => {
                        let target = self.nodes.directory(*parent);
                        match target.and_then(|target| self.find(&target, new)) {
                            Ok(entry) => Ok(Self::reply_entry(&EntryOut { entry_valid: 0, ..entry })),
                            Err(_) => self
                                .nodes
                                .phantom(header.nodeid, name, *kind)
                                .map(|node| phantom_entry(&node)),
                        }
                    }
                }),
                // The name may have moved on by now: it is still what the guest knows it to be.
                GhostKind::Content { .. } | GhostKind::Attributes { .. } | GhostKind::Closed => {
                    let parent = self.nodes.directory(header.nodeid);
                    Some(
                        match (parent.and_then(|parent| self.find(&parent, name)), known(header.nodeid, name))
                        {
                            (Ok(entry), _) => Ok(Self::reply_entry(&entry)),
                            (Err(_), Some(node)) => Ok(self.remembered(&node)),
                            (Err(errno), None) => Err(errno),
                        },
                    )
                }
            };
        }
        if let GhostKind::Moved { parent, name: new, .. } = &ghost.kind
            && (header.nodeid, name) == (*parent, &**new)
        {
            let moved = known(ghost.parent, &ghost.name);
            return Some(match known(*parent, new) {
                // What the move has replaced.
                Some(node) if self.is_replaced(&node, moved.as_deref()) => Ok(self.remembered(&node)),
                _ => Err(Errno::NOENT),
            });
        }
        None
    }

    fn is_replaced(&self, node: &Node, moved: Option<&Node>) -> bool {
        let is = self
            .nodes
            .get(node.place().0)
            .and_then(|parent| Ok(self.nodes.object(&parent)?.child(&node.place().1)?.facts()?.ident));
        moved.is_none_or(|moved| moved.id != node.id) && is != Ok(node.ident)
    }

    /// The entry of a node that the guest has looked up before, counted once more.
    fn remembered(&self, node: &Node) -> Reply {
        self.nodes.count(node);
        match self.shown(node) {
            Ok(shown) => Self::reply_entry(&EntryOut {
                nodeid: node.id,
                entry_valid: 1,
                attr_valid: 0,
                attr: shown.attr,
            }),
            Err(_) => phantom_entry(node),
        }
    }

    fn ghost_entry(&self, ghost: &Ghost) -> Result<Reply> {
        let parent = self.nodes.directory(ghost.parent)?;
        match self.find(&parent, &ghost.name) {
            Ok(entry) => Ok(Self::reply_entry(&entry)),
            Err(_) => {
                let kind = match &ghost.kind {
                    GhostKind::Made { mode } if mode & S_IFMT == S_IFDIR => Kind::Directory,
                    GhostKind::Made { mode } if mode & S_IFMT == S_IFLNK => Kind::Symlink,
                    _ => Kind::File,
                };
                self.nodes.phantom(parent.id, &ghost.name, kind).map(|node| phantom_entry(&node))
            }
        }
    }

    /// Sets the ghost operation that the guest half performs now.
    pub(crate) fn set_ghost(&self, ghost: Option<Ghost>) {
        *self.ghost.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = ghost;
    }
}

/// Attributes of something that is there no more.
pub(super) fn phantom_attr(node: &Node) -> Attr {
    let mode = match node.kind {
        Kind::Directory => S_IFDIR | 0o755,
        Kind::Symlink => S_IFLNK | 0o777,
        Kind::File | Kind::Other => S_IFREG | 0o644,
    };
    Attr { ino: node.ident.1, mode, nlink: 1, blksize: 4096, ..Attr::default() }
}

/// An entry for something that is there no more.
fn phantom_entry(node: &Node) -> Reply {
    let entry = EntryOut { nodeid: node.id, entry_valid: 0, attr_valid: 0, attr: phantom_attr(node) };
    Server::reply_entry(&entry)
}
