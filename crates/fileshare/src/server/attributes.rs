//! Attributes: getattr, statx, setattr, statfs.

use super::Server;
use crate::abi::{Header, In, ROOT, Reply, SetAttr, Statx, fattr};
use crate::errno::{Errno, Result};
use crate::host::{Kind, When};
use crate::opened::For;
use crate::owner::Set;

impl Statx {
    /// `fuse_attr_out`, the older and shorter answer.
    fn attr_out(&self) -> Reply {
        let mut reply = Reply::with_capacity(104);
        reply.u64(self.attr_valid).u32(0).u32(0);
        self.attr.put(&mut reply);
        reply
    }
}

impl Server {
    pub(super) fn getattr(&self, header: &Header, _input: In<'_>) -> Result<Reply> {
        let node = self.nodes.get(header.nodeid)?;
        Ok(self.shown(&node)?.attr_out())
    }

    pub(super) fn statx(&self, header: &Header, _input: In<'_>) -> Result<Reply> {
        let node = self.nodes.get(header.nodeid)?;
        let shown = self.shown(&node)?;
        let mut reply = Reply::with_capacity(288);
        shown.put(&mut reply);
        Ok(reply)
    }

    pub(super) fn setattr(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let wish = SetAttr::decode(&mut input)?;
        let has = |bit| wish.valid & bit != 0;
        let node = self.nodes.get(header.nodeid)?;
        let when = |set, now, at: (u64, u32)| match (has(set), has(now)) {
            (_, true) => When::Now,
            (true, false) => When::At(at.0.cast_signed(), at.1),
            (false, false) => When::Omit,
        };
        let access = when(fattr::ATIME, fattr::ATIME_NOW, wish.atime);
        let change = when(fattr::MTIME, fattr::MTIME_NOW, wish.mtime);
        self.own_change(&node, || {
            if has(fattr::SIZE) {
                if node.kind != Kind::File {
                    return Err(if node.kind == Kind::Directory { Errno::ISDIR } else { Errno::INVAL });
                }
                // Without a number, or with one that is not known any more, it is opened for this.
                self.file(node.id, if has(fattr::FH) { wish.fh } else { 0 }, For::Writing)?
                    .set_len(wish.size)?;
            }
            if has(fattr::MODE | fattr::UID | fattr::GID) {
                let (object, facts) = self.facts(&node)?;
                let set = Set {
                    uid: has(fattr::UID).then_some(wish.uid),
                    gid: has(fattr::GID).then_some(wish.gid),
                    mode: (has(fattr::MODE) && node.kind != Kind::Symlink).then_some(wish.mode),
                };
                let object = object.ok_or(Errno::STALE)?;
                self.owners.change(&object, &facts, set)?;
            }
            if access != When::Omit || change != When::Omit {
                self.nodes.object(&node)?.set_times(access, change)?;
            }
            Ok(())
        })?;
        Ok(self.shown(&node)?.attr_out())
    }

    /// The attributes as they are, for a change that the host has made already.
    pub(super) fn attributes_only(&self, header: &Header) -> Result<Reply> {
        let node = self.nodes.get(header.nodeid)?;
        let gone = Statx { attr_valid: 0, attr: super::ghost::phantom_attr(&node) };
        Ok(self.shown(&node).unwrap_or(gone).attr_out())
    }

    pub(super) fn statfs(&self) -> Result<Reply> {
        let root = self.nodes.get(ROOT)?;
        let mut reply = Reply::with_capacity(80);
        self.nodes.object(&root)?.statfs()?.put(&mut reply);
        Ok(reply)
    }
}
