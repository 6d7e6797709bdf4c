//! The server of one mount: a request in, an answer out.
//!
//! Requests are independent and may be handled by several threads at once. Each operation of the kernel is one method
//! here or in a file beside this one; what is not answered (forgets, interrupts) returns nothing.

mod attributes;
mod files;
mod ghost;
mod names;
mod xattrs;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::abi::{self, EntryOut, Header, In, Op, Reply, Statx, init};
use crate::coherence::{Coherence, Notice};
use crate::errno::{Errno, Result};
use crate::handles::Handles;
use crate::host::{self, Facts, Kind, Object};
use crate::nodes::{self, Node, Nodes};
use crate::opened::Opened;
use crate::owner::Owners;
use crate::session::Mount;

pub(crate) use ghost::{Ghost, GhostKind};

/// Whether a share may be changed by containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// It may not, whatever the guest says.
    ReadOnly,
}

/// The server of one mount.
#[derive(Debug)]
pub struct Server {
    pub(crate) nodes: Nodes,
    handles: Handles,
    pub(crate) opened: Opened,
    owners: Owners,
    access: Access,
    pub(crate) coherence: Coherence,
    /// The guest's thread that performs ghost operations; 0 for none.
    ghost_thread: AtomicU32,
    /// The ghost operation that it performs now.
    ghost: Mutex<Option<Ghost>>,
}

impl Server {
    /// Serves the directory behind `root`; `most_open` is how many descriptors its nodes may hold.
    ///
    /// # Errors
    /// When the directory can't be used.
    pub fn new(root: Object, access: Access, most_open: usize) -> Result<Server> {
        let server = Server {
            nodes: Nodes::new(root, most_open)?,
            handles: Handles::default(),
            opened: Opened::default(),
            owners: Owners::new(host::own_uid()),
            access,
            coherence: Coherence::new(),
            ghost_thread: AtomicU32::new(0),
            ghost: Mutex::default(),
        };
        let root = server.nodes.get(abi::ROOT)?;
        server.watch(&root);
        Ok(server)
    }

    /// Writes down at `path` what the guest knows; for a mount that a server before this one has served, takes over what
    /// that one has written down, and has the guest look at everything again.
    pub fn remember(&self, path: &std::path::Path, mount: Mount) {
        self.nodes.remember(path, mount);
        if mount == Mount::Again {
            for directory in self.nodes.directories() {
                self.watch(&directory);
            }
            self.rescan();
        }
    }

    /// Says which thread of the guest performs ghost operations.
    pub(crate) fn set_ghost_thread(&self, thread: u32) {
        self.ghost_thread.store(thread, Ordering::Relaxed);
    }

    /// Answers a request; nothing is returned for those that the kernel wants no answer to.
    pub fn handle(&self, header: &Header, body: &[u8]) -> Option<Vec<u8>> {
        let reply = match Op::from_code(header.opcode) {
            Some(Op::Forget | Op::BatchForget) => {
                // What makes no sense forgets nothing.
                let _ = self.forget(header, In::new(body));
                return None;
            }
            // Every operation here ends by itself.
            Some(Op::Interrupt | Op::Attach) => return None,
            Some(op) => self.answer(op, header, In::new(body)),
            None => Err(Errno::NOSYS),
        };
        Some(reply.unwrap_or_else(Reply::error).finish(header.unique))
    }

    fn answer(&self, op: Op, header: &Header, input: In<'_>) -> Result<Reply> {
        let ghosts = self.ghost_thread.load(Ordering::Relaxed);
        if ghosts != 0
            && header.pid == ghosts
            && let Some(answer) = self.answer_ghost(op, header, input.clone())
        {
            return answer;
        }
        if self.access == Access::ReadOnly && changes(op) {
            return Err(Errno::ROFS);
        }
        match op {
            Op::Init => init_reply(input),
            Op::Lookup => self.lookup(header, input),
            Op::GetAttr => self.getattr(header, input),
            Op::Statx => self.statx(header, input),
            Op::SetAttr => self.setattr(header, input),
            Op::ReadLink => self.readlink(header),
            Op::Symlink => self.symlink(header, input),
            Op::MkNod => self.mknod(header, input),
            Op::MkDir => self.mkdir(header, input),
            Op::Unlink => self.unlink(header, input, Kind::File),
            Op::RmDir => self.unlink(header, input, Kind::Directory),
            Op::Rename => self.rename(header, input, false),
            Op::Rename2 => self.rename(header, input, true),
            Op::Link => self.link(header, input),
            Op::Create => self.create(header, input),
            Op::Read => self.read(header, input),
            Op::Write => self.write(header, input),
            Op::Release | Op::ReleaseDir => self.release(header, input),
            Op::FSync | Op::FSyncDir => self.fsync(header, input),
            Op::Fallocate => self.fallocate(header, input),
            Op::LSeek => self.lseek(header, input),
            Op::CopyFileRange => self.copy_file_range(header, input),
            Op::OpenDir => self.opendir(header),
            Op::ReadDir => self.readdir(header, input, false),
            Op::ReadDirPlus => self.readdir(header, input, true),
            Op::StatFs => self.statfs(),
            Op::GetXattr => self.getxattr(header, input),
            Op::SetXattr => self.setxattr(header, input),
            Op::ListXattr => self.listxattr(header, input),
            Op::RemoveXattr => self.removexattr(header, input),
            Op::Destroy | Op::SyncFs => Ok(Reply::empty()),
            // The kernel does these by itself once it knows that nobody here does. Locks are between the guest's
            // processes: that is where both sides of each are.
            Op::Open | Op::Flush | Op::Access | Op::GetLock | Op::SetLock | Op::SetLockWait => {
                Err(Errno::NOSYS)
            }
            // As a host's file system without it.
            Op::TmpFile => Err(Errno::OPNOTSUPP),
            Op::Forget | Op::BatchForget | Op::Interrupt | Op::Attach => Err(Errno::INVAL),
        }
    }

    fn forget(&self, header: &Header, mut input: In<'_>) -> Result<()> {
        let forget = |id, lookups| {
            if let Some(watch) = self.nodes.forget(id, lookups) {
                self.coherence.unwatch(watch);
            }
            self.opened.forget(id);
        };
        if Op::from_code(header.opcode) == Some(Op::Forget) {
            forget(header.nodeid, input.u64()?);
            return Ok(());
        }
        let count = input.u32()?;
        input.skip(4)?;
        for _ in 0..count {
            let (id, lookups) = (input.u64()?, input.u64()?);
            forget(id, lookups);
        }
        Ok(())
    }

    /// Watches a directory that the guest has learnt of.
    fn watch(&self, node: &Node) {
        if let Ok(object) = self.nodes.object(node)
            && let Some(watch) = self.coherence.watch(&object)
        {
            self.nodes.set_watch(node, watch);
        }
    }

    /// How long names in a directory may be remembered.
    fn names_last(&self, parent: &Node) -> u64 {
        if parent.watch().is_some() { nodes::LONG } else { nodes::SHORT }
    }

    /// How long a node's attributes may be remembered.
    fn attributes_last(&self, node: &Node, facts: &Facts) -> u64 {
        let watched = match node.kind {
            Kind::Directory => node.watch().is_some(),
            // A file of several names changes under one that nobody watches.
            _ => {
                facts.attr.nlink == 1
                    && self.nodes.get(node.place().0).is_ok_and(|parent| parent.watch().is_some())
            }
        };
        if watched { nodes::LONG } else { nodes::SHORT }
    }

    /// Looks an object up that was found as `name` in `parent`, and counts it.
    fn entry(&self, parent: &Node, name: &[u8], object: Object, facts: &Facts) -> Result<EntryOut> {
        let (node, new) = self.nodes.enter(parent.id, name, object, facts)?;
        if new && node.kind == Kind::Directory {
            self.watch(&node);
        }
        let object = self.nodes.object(&node)?;
        node.changes().last.get_or_insert(nodes::stamp(&facts.attr));
        let attr_valid = self.attributes_last(&node, facts);
        self.look(&node, facts, attr_valid);
        // The kernel opens files without asking: it is the lookup that finds those changed that nobody watches.
        let entry_valid = match node.kind {
            Kind::File => self.names_last(parent).min(attr_valid),
            _ => self.names_last(parent),
        };
        let attr = self.owners.shown(&object, facts);
        Ok(EntryOut { nodeid: node.id, entry_valid, attr_valid, attr })
    }

    /// The object of a node and its facts; those of an open file if its name is gone.
    fn facts(&self, node: &Node) -> Result<(Option<Arc<Object>>, Facts)> {
        match self.nodes.object(node) {
            Ok(object) => {
                let facts = object.facts()?;
                Ok((Some(object), facts))
            }
            Err(errno) => match self.handles.of_node(node.id) {
                Some(handle) => Ok((None, handle.file.facts()?)),
                None => Err(errno),
            },
        }
    }

    /// What the guest sees of a node.
    fn shown(&self, node: &Node) -> Result<Statx> {
        let (object, facts) = self.facts(node)?;
        let attr = object.map_or(facts.attr, |object| self.owners.shown(&object, &facts));
        let attr_valid = self.attributes_last(node, &facts);
        self.look(node, &facts, attr_valid);
        Ok(Statx { attr_valid, attr })
    }

    /// Has the guest drop what it has of a file that nobody watches, if the file has changed since somebody looked.
    fn look(&self, node: &Node, facts: &Facts, attr_valid: u64) {
        if node.kind != Kind::File || attr_valid == nodes::LONG {
            return;
        }
        let mut changes = node.changes();
        let now = Some(nodes::stamp(&facts.attr));
        if changes.last.is_some() && changes.last != now {
            // A report of it, should there be one, is told all the same.
            (changes.last, changes.settled) = (now, nodes::Settled::Not);
            self.coherence.send(Notice::Kernel(abi::notify_inode(node.id)));
        }
    }

    /// Makes a change of a file's content or attributes, so that the watcher knows it for the guest's own.
    fn own_change<T>(&self, node: &Node, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let stamp = || self.facts(node).ok().map(|(_, facts)| nodes::stamp(&facts.attr));
        let mut changes = node.changes();
        if changes.last.is_some() && changes.last != stamp() {
            // Somebody else was here first: that change is told, whatever the stamp is when its report comes.
            changes.foreign = true;
        }
        let result = change();
        changes.last = stamp();
        changes.settled = nodes::Settled::Own;
        result
    }
}

/// Whether an operation changes the share.
fn changes(op: Op) -> bool {
    matches!(
        op,
        Op::SetAttr
            | Op::Symlink
            | Op::MkNod
            | Op::MkDir
            | Op::Unlink
            | Op::RmDir
            | Op::Rename
            | Op::Rename2
            | Op::Link
            | Op::Create
            | Op::Write
            | Op::SetXattr
            | Op::RemoveXattr
            | Op::Fallocate
            | Op::CopyFileRange
    )
}

/// The version and features that both sides have.
fn init_reply(mut input: In<'_>) -> Result<Reply> {
    let (major, minor, readahead, low) = (input.u32()?, input.u32()?, input.u32()?, input.u32()?);
    let mut reply = Reply::with_capacity(64);
    if major > abi::MAJOR {
        // The kernel asks again with ours.
        reply.u32(abi::MAJOR).u32(abi::MINOR).bytes(&[0; 56]);
        return Ok(reply);
    }
    if major < abi::MAJOR || minor < abi::OLDEST_MINOR {
        return Err(Errno::OPNOTSUPP);
    }
    let mut offered = u64::from(low);
    if offered & init::INIT_EXT != 0 {
        offered |= u64::from(input.u32()?) << 32;
    }
    let wanted = init::ASYNC_READ
        | init::BIG_WRITES
        | init::EXPLICIT_INVAL_DATA
        | init::DO_READDIRPLUS
        | init::READDIRPLUS_AUTO
        | init::ASYNC_DIO
        | init::PARALLEL_DIROPS
        | init::MAX_PAGES
        | init::CACHE_SYMLINKS
        | init::HANDLE_KILLPRIV_V2
        | init::INIT_EXT;
    let flags = wanted & offered;
    let pages = abi::MAX_WRITE / 4096;
    reply.u32(abi::MAJOR).u32(minor.min(abi::MINOR)).u32(readahead.min(abi::MAX_WRITE as u32));
    reply.u32((flags & 0xffff_ffff) as u32).u16(64).u16(48).u32(abi::MAX_WRITE as u32).u32(1);
    reply.u16(pages as u16).u16(0).u32((flags >> 32) as u32).u32(0).bytes(&[0; 24]);
    Ok(reply)
}
