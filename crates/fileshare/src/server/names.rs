//! Names: lookup, and what makes, moves and removes directory entries.

use super::Server;
use crate::abi::{EntryOut, Header, In, Reply};
use crate::errno::{Errno, Result};
use crate::host::{How, Kind, What};
use crate::nodes::{LONG, Node};

/// `O_ACCMODE` and the flags of open(2) that matter here (include/uapi/asm-generic/fcntl.h).
pub(super) mod flag {
    pub const ACCMODE: u32 = 0o3;
    pub const WRONLY: u32 = 0o1;
    pub const RDWR: u32 = 0o2;
    pub const EXCL: u32 = 0o200;
    pub const TRUNC: u32 = 0o1000;
    pub const APPEND: u32 = 0o2000;
    pub const DSYNC: u32 = 0o10000;
}

/// How open(2) with these flags opens.
pub(super) fn how(flags: u32) -> Result<How> {
    let (read, write) = match flags & flag::ACCMODE {
        // The kernel reads what surrounds a partial write.
        flag::WRONLY | flag::RDWR => (true, true),
        flag::ACCMODE => return Err(Errno::INVAL),
        _ => (true, false),
    };
    Ok(How {
        read,
        write,
        truncate: flags & flag::TRUNC != 0,
        exclusive: false,
        durable: flags & flag::DSYNC != 0,
    })
}

impl Server {
    /// What a name in a directory leads to now.
    pub(super) fn find(&self, parent: &Node, name: &[u8]) -> Result<EntryOut> {
        let object = self.nodes.object(parent)?.child(name)?;
        let facts = object.facts()?;
        self.entry(parent, name, object, &facts)
    }

    pub(super) fn reply_entry(entry: &EntryOut) -> Reply {
        let mut reply = Reply::with_capacity(EntryOut::LENGTH);
        entry.put(&mut reply);
        reply
    }

    pub(super) fn lookup(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let parent = self.nodes.directory(header.nodeid)?;
        let name = input.name()?;
        match self.find(&parent, name) {
            Ok(entry) => Ok(Self::reply_entry(&entry)),
            // That there is nothing may be remembered too, where somebody watches.
            Err(Errno::NOENT) if parent.watch().is_some() => {
                let attr = crate::abi::Attr::default();
                Ok(Self::reply_entry(&EntryOut { nodeid: 0, entry_valid: LONG, attr_valid: 0, attr }))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Makes a name by `make`, which the watcher is told to expect, and looks it up.
    pub(super) fn made(
        &self,
        header: &Header,
        parent: &Node,
        name: &[u8],
        make: impl FnOnce() -> Result<()>,
    ) -> Result<Reply> {
        let _naming = self.coherence.name();
        self.expecting(&[(parent, What::Made, name)], make)?;
        let object = self.nodes.object(parent)?.child(name)?;
        let facts = object.facts()?;
        self.owners.forget(facts.ident);
        self.owners.give(&object, &facts, header.uid, header.gid);
        let entry = self.entry(parent, name, object, &facts)?;
        let node = self.nodes.get(entry.nodeid)?;
        // What making it has reported is the guest's own.
        self.own_change(&node, || Ok(()))?;
        Ok(Self::reply_entry(&entry))
    }

    /// Makes a change that the watcher will report as these.
    pub(super) fn expecting<T>(
        &self,
        expected: &[(&Node, What, &[u8])],
        change: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let watched = || expected.iter().filter_map(|(node, what, name)| Some((node.watch()?, *what, *name)));
        for (watch, what, name) in watched() {
            self.coherence.expect(watch, what, name);
        }
        let result = change();
        if result.is_err() {
            for (watch, what, name) in watched() {
                self.coherence.seen_own(watch, what, name);
            }
        }
        result
    }

    /// Sets permissions that the daemon's umask has taken away.
    fn complete_mode(&self, parent: &Node, name: &[u8], mode: u32) -> Result<()> {
        let object = self.nodes.object(parent)?.child(name)?;
        let facts = object.facts()?;
        let set = crate::owner::Set { mode: Some(mode), ..Default::default() };
        if facts.attr.mode & 0o7777 == mode { Ok(()) } else { self.owners.change(&object, &facts, set) }
    }

    pub(super) fn mknod(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let parent = self.nodes.directory(header.nodeid)?;
        let mode = input.u32()?;
        input.skip(12)?;
        let name = input.name()?;
        self.made(header, &parent, name, || {
            self.nodes.object(&parent)?.mknod(name, mode)?;
            self.complete_mode(&parent, name, mode & 0o777)
        })
    }

    pub(super) fn mkdir(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let parent = self.nodes.directory(header.nodeid)?;
        let mode = input.u32()? & 0o1777;
        input.skip(4)?;
        let name = input.name()?;
        self.made(header, &parent, name, || {
            self.nodes.object(&parent)?.mkdir(name, mode)?;
            self.complete_mode(&parent, name, mode)
        })
    }

    pub(super) fn symlink(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let parent = self.nodes.directory(header.nodeid)?;
        let name = input.name()?;
        let target = input.text()?;
        self.made(header, &parent, name, || self.nodes.object(&parent)?.symlink(name, target))
    }

    pub(super) fn link(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let parent = self.nodes.directory(header.nodeid)?;
        let node = self.nodes.get(input.u64()?)?;
        let name = input.name()?;
        let object = self.nodes.object(&node)?;
        let _naming = self.coherence.name();
        self.expecting(&[(&parent, What::Made, name)], || {
            self.own_change(&node, || self.nodes.object(&parent)?.link(&object, name))
        })?;
        Ok(Self::reply_entry(&self.find(&parent, name)?))
    }

    pub(super) fn unlink(&self, header: &Header, mut input: In<'_>, kind: Kind) -> Result<Reply> {
        let parent = self.nodes.directory(header.nodeid)?;
        let name = input.name()?;
        let directory = self.nodes.object(&parent)?;
        let _naming = self.coherence.name();
        let node = self.nodes.named(parent.id, name);
        self.expecting(&[(&parent, What::Removed, name)], || match (kind, &node) {
            (Kind::Directory, _) => directory.rmdir(name),
            // A file that has other names has another ctime now.
            (_, Some(node)) => self.own_change(node, || directory.unlink(name)),
            (_, None) => directory.unlink(name),
        })?;
        if let Some(node) = &node {
            self.owners.forget(node.ident);
        }
        self.nodes.removed(parent.id, name);
        Ok(Reply::empty())
    }

    pub(super) fn rename(&self, header: &Header, mut input: In<'_>, with_flags: bool) -> Result<Reply> {
        const EXCHANGE: u32 = 2;
        let from = self.nodes.directory(header.nodeid)?;
        let to = self.nodes.directory(input.u64()?)?;
        let flags = if with_flags {
            let flags = input.u32()?;
            input.skip(4)?;
            flags
        } else {
            0
        };
        let (old, new) = (input.name()?, input.name()?);
        let (source, target) = (self.nodes.object(&from)?, self.nodes.object(&to)?);
        let mut expected = vec![(&*from, What::MovedFrom(0), old), (&*to, What::MovedTo(0), new)];
        if flags & EXCHANGE != 0 {
            expected.extend([(&*to, What::MovedFrom(0), new), (&*from, What::MovedTo(0), old)]);
        }
        let _naming = self.coherence.name();
        let moved = self.nodes.named(from.id, old);
        self.expecting(&expected, || match &moved {
            // A new name is a new ctime.
            Some(node) => self.own_change(node, || source.rename(old, &target, new, flags)),
            None => source.rename(old, &target, new, flags),
        })?;
        self.nodes.moved((from.id, old), (to.id, new), flags & EXCHANGE != 0);
        Ok(Reply::empty())
    }

    pub(super) fn readlink(&self, header: &Header) -> Result<Reply> {
        let node = self.nodes.get(header.nodeid)?;
        if node.kind != Kind::Symlink {
            return Err(Errno::INVAL);
        }
        Ok(Reply::of_bytes(&self.nodes.object(&node)?.readlink()?))
    }
}
