//! Open files and directories.

use std::sync::{Arc, PoisonError};

use super::Server;
use super::names::{flag, how};
use crate::abi::{self, DirBuffer, EntryOut, Header, In, Op, Reply, open};
use crate::errno::{Errno, Result};
use crate::handles::Handle;
use crate::host::{File, How, Kind, Place, What};
use crate::opened::For;

impl Server {
    fn reply_open(reply: &mut Reply, handle: u64, flags: u32) {
        reply.u64(handle).u32(flags).u32(0);
    }

    /// The file that a request is about: what it was made as, if its number still says so, else opened for the request.
    pub(super) fn file(&self, nodeid: u64, number: u64, what: For) -> Result<Arc<File>> {
        if let Ok(handle) = self.handles.get(number, nodeid)
            && (handle.writes || what == For::Reading)
        {
            return Ok(Arc::clone(&handle.file));
        }
        let node = self.nodes.get(nodeid)?;
        match node.kind {
            Kind::File => {}
            Kind::Directory => return Err(Errno::ISDIR),
            Kind::Symlink | Kind::Other => return Err(Errno::INVAL),
        }
        self.opened.get_or_open(node.id, what, || {
            let object = self.nodes.object(&node)?;
            let write = what == For::Writing;
            match object.open(How { read: true, write, ..How::default() }) {
                // One that may be written but not read.
                Err(Errno::ACCES) if write => object.open(How { write, ..How::default() }),
                other => other,
            }
        })
    }

    pub(super) fn create(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let parent = self.nodes.directory(header.nodeid)?;
        let (flags, mode) = (input.u32()?, input.u32()? & 0o777);
        input.skip(8)?;
        let name = input.name()?;
        let directory = self.nodes.object(&parent)?;
        let how = how(flags)?;
        let _naming = self.coherence.name();
        // Made by this call, or opened as it is: only the former has an event and an owner to be given.
        let exclusive = How { exclusive: true, ..how };
        let made = self
            .expecting(&[(&parent, What::Made, name)], || directory.create(name, exclusive, mode | 0o600));
        let ((file, object), new) = match made {
            Ok(made) => (made, true),
            Err(Errno::EXIST) if flags & flag::EXCL == 0 => {
                let object = directory.child(name)?;
                if object.facts()?.kind() != Kind::File {
                    return Err(Errno::EXIST);
                }
                ((object.open(how)?, object), false)
            }
            Err(errno) => return Err(errno),
        };
        let mut facts = file.facts()?;
        if new {
            self.owners.forget(facts.ident);
            self.owners.give(&object, &facts, header.uid, header.gid);
            if facts.attr.mode & 0o777 != mode {
                let set = crate::owner::Set { mode: Some(mode), ..Default::default() };
                self.owners.change(&object, &facts, set)?;
                facts = file.facts()?;
            }
        }
        let entry = self.entry(&parent, name, object, &facts)?;
        let node = self.nodes.get(entry.nodeid)?;
        // What making it has reported is the guest's own.
        self.own_change(&node, || Ok(()))?;
        // Its kernel says when it closes what it has made, and so does the host then. One too many is opened for each
        // request as others are.
        let handle = self.handles.insert(entry.nodeid, file, how.write).unwrap_or(0);
        let mut reply = Reply::with_capacity(EntryOut::LENGTH + 16);
        entry.put(&mut reply);
        Self::reply_open(&mut reply, handle, open::KEEP_CACHE | open::NOFLUSH);
        Ok(reply)
    }

    fn handle_of(&self, header: &Header, number: u64) -> Result<Arc<Handle>> {
        self.handles.get(number, header.nodeid)
    }

    pub(super) fn read(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let (number, offset, size) = (input.u64()?, input.u64()?, input.u32()? as usize);
        let file = self.file(header.nodeid, number, For::Reading)?;
        let mut reply = Reply::with_capacity(size.min(abi::MAX_WRITE));
        reply.filled(size.min(abi::MAX_WRITE), |buffer| file.read_at(buffer, offset))?;
        Ok(reply)
    }

    pub(super) fn write(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        /// The data comes from the guest's page cache: its offset counts, whoever has opened the file to append.
        const CACHE: u32 = 1;
        let (number, offset, size, kind) = (input.u64()?, input.u64()?, input.u32()? as usize, input.u32()?);
        input.skip(8)?;
        let flags = input.u32()?;
        input.skip(4)?;
        let data = input.bytes(size)?;
        let place =
            if flags & flag::APPEND != 0 && kind & CACHE == 0 { Place::End } else { Place::At(offset) };
        let file = self.file(header.nodeid, number, For::Writing)?;
        let node = self.nodes.get(header.nodeid)?;
        let written = self.own_change(&node, || file.write_at(data, place))?;
        if flags & flag::DSYNC != 0 {
            file.sync(false)?;
        }
        let mut reply = Reply::with_capacity(8);
        reply.u32(written as u32).u32(0);
        Ok(reply)
    }

    pub(super) fn release(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        // Closing what was never opened closes nothing.
        self.handles.remove(input.u64()?, header.nodeid);
        Ok(Reply::empty())
    }

    pub(super) fn fsync(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        const DATA_ONLY: u32 = 1;
        let (number, flags) = (input.u64()?, input.u32()?);
        let file = match Op::from_code(header.opcode) {
            Some(Op::FSyncDir) => Arc::clone(&self.handle_of(header, number)?.file),
            _ => match self.opened.get(header.nodeid, For::Writing) {
                Some(file) => file,
                None => match self.file(header.nodeid, number, For::Reading) {
                    Err(Errno::ACCES) => self.file(header.nodeid, number, For::Writing)?,
                    file => file?,
                },
            },
        };
        file.sync(flags & DATA_ONLY == 0)?;
        Ok(Reply::empty())
    }

    pub(super) fn fallocate(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let (number, offset, length, mode) = (input.u64()?, input.u64()?, input.u64()?, input.u32()?);
        let file = self.file(header.nodeid, number, For::Writing)?;
        let node = self.nodes.get(header.nodeid)?;
        self.own_change(&node, || file.allocate(mode, offset, length))?;
        Ok(Reply::empty())
    }

    pub(super) fn lseek(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let (number, offset, whence) = (input.u64()?, input.u64()?, input.u32()?);
        let mut reply = Reply::with_capacity(8);
        reply.u64(self.file(header.nodeid, number, For::Reading)?.seek(offset, whence)?);
        Ok(reply)
    }

    pub(super) fn copy_file_range(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        /// What one answer may take: the host copies tens of megabytes in the time a guest waits gladly.
        const MOST: u64 = 64 << 20;
        let (number, from) = (input.u64()?, input.u64()?);
        let (target_node, target_number, to) = (input.u64()?, input.u64()?, input.u64()?);
        let length = input.u64()?.min(MOST) as usize;
        let source = self.file(header.nodeid, number, For::Reading)?;
        let target = self.file(target_node, target_number, For::Writing)?;
        let node = self.nodes.get(target_node)?;
        let copied = self.own_change(&node, || source.copy_to(from, &target, to, length))?;
        let mut reply = Reply::with_capacity(8);
        reply.u32(copied as u32).u32(0);
        Ok(reply)
    }

    pub(super) fn opendir(&self, header: &Header) -> Result<Reply> {
        let node = self.nodes.directory(header.nodeid)?;
        let file = self.nodes.object(&node)?.open(How { read: true, ..Default::default() })?;
        let handle = self.handles.insert(node.id, file, false)?;
        let mut reply = Reply::with_capacity(16);
        let cached = if node.watch().is_some() { open::KEEP_CACHE | open::CACHE_DIR } else { 0 };
        Self::reply_open(&mut reply, handle, cached);
        Ok(reply)
    }

    pub(super) fn readdir(&self, header: &Header, mut input: In<'_>, plus: bool) -> Result<Reply> {
        let (number, offset, size) = (input.u64()?, input.u64()?, input.u32()? as usize);
        let handle = self.handle_of(header, number)?;
        let parent = self.nodes.directory(header.nodeid)?;
        let entries = {
            let mut entries = handle.entries.lock().unwrap_or_else(PoisonError::into_inner);
            match &*entries {
                Some(entries) if offset > 0 => Arc::clone(entries),
                _ => Arc::clone(entries.insert(Arc::new(handle.file.entries()?))),
            }
        };
        let mut buffer = DirBuffer::new(size.min(abi::MAX_WRITE));
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, entry) in entries.iter().enumerate().skip(start) {
            if !buffer.fits(&entry.name, plus) {
                break;
            }
            let next = index as u64 + 1;
            if !plus {
                buffer.add(None, entry.ino, next, entry.kind, &entry.name);
                continue;
            }
            let own = matches!(&*entry.name, b"." | b"..");
            // An entry that is gone by now is listed without attributes: the kernel asks if it wants any.
            let found = if own { Err(Errno::NOENT) } else { self.find(&parent, &entry.name) };
            let none = EntryOut { nodeid: 0, entry_valid: 0, attr_valid: 0, attr: abi::Attr::default() };
            let found = found.unwrap_or(none);
            buffer.add(Some(&found), entry.ino, next, entry.kind, &entry.name);
        }
        Ok(buffer.into_reply())
    }
}
