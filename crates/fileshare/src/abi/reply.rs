//! Encoding of answers and notices.

use super::{OUT_HEADER, ROOT};
use crate::errno::Errno;

/// An answer under construction; its header is filled in at the end.
#[derive(Debug)]
pub struct Reply(Vec<u8>);

impl Reply {
    /// Begins an answer with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Reply {
        let mut buffer = Vec::with_capacity(OUT_HEADER + bytes);
        buffer.resize(OUT_HEADER, 0);
        Reply(buffer)
    }

    /// An answer that only says yes.
    pub fn empty() -> Reply {
        Reply::with_capacity(0)
    }

    /// An answer that says no.
    pub fn error(errno: Errno) -> Reply {
        let mut reply = Reply::empty();
        reply.0[4..8].copy_from_slice(&(-errno.0).to_le_bytes());
        reply
    }

    /// An answer of bytes.
    pub fn of_bytes(bytes: &[u8]) -> Reply {
        let mut reply = Reply::with_capacity(bytes.len());
        reply.0.extend_from_slice(bytes);
        reply
    }

    /// Adds a 16-bit number.
    pub fn u16(&mut self, value: u16) -> &mut Reply {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a 32-bit number.
    pub fn u32(&mut self, value: u32) -> &mut Reply {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a 64-bit number.
    pub fn u64(&mut self, value: u64) -> &mut Reply {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Reply {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Grows the answer by so many bytes for `fill`, which says how many it used.
    pub fn filled(
        &mut self,
        count: usize,
        fill: impl FnOnce(&mut [u8]) -> crate::errno::Result<usize>,
    ) -> crate::errno::Result<usize> {
        let before = self.0.len();
        self.0.resize(before + count, 0);
        let used = fill(&mut self.0[before..]);
        self.0.truncate(before + used.unwrap_or(0).min(count));
        used
    }

    /// Takes the whole of it, for `unique`.
    pub fn finish(mut self, unique: u64) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[0..4].copy_from_slice(&length.to_le_bytes());
        self.0[8..16].copy_from_slice(&unique.to_le_bytes());
        self.0
    }
}

/// A time as seconds and nanoseconds.
pub type Time = (i64, u32);

/// `fuse_attr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields of stat(2)")]
pub struct Attr {
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: (u32, u32),
    pub blksize: u32,
}

impl Attr {
    /// Adds `fuse_attr`.
    pub fn put(&self, reply: &mut Reply) {
        reply.u64(self.ino).u64(self.size).u64(self.blocks);
        for (seconds, _) in [self.atime, self.mtime, self.ctime] {
            reply.u64(seconds.cast_unsigned());
        }
        for (_, nanos) in [self.atime, self.mtime, self.ctime] {
            reply.u32(nanos);
        }
        let (major, minor) = self.rdev;
        // new_encode_dev() of the kernel.
        let rdev = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        reply.u32(self.mode).u32(self.nlink).u32(self.uid).u32(self.gid).u32(rdev).u32(self.blksize).u32(0);
    }
}

/// `fuse_entry_out`: what a name leads to, and how long the kernel may remember it.
#[derive(Debug, Clone, Copy)]
pub struct EntryOut {
    /// The node, 0 for "there is nothing of that name".
    pub nodeid: u64,
    /// Seconds for which the name may be remembered.
    pub entry_valid: u64,
    /// Seconds for which the attributes may be remembered.
    pub attr_valid: u64,
    /// The attributes.
    pub attr: Attr,
}

impl EntryOut {
    /// Length of the encoding in bytes.
    pub const LENGTH: usize = 128;

    /// Adds the structure.
    pub fn put(&self, reply: &mut Reply) {
        reply.u64(self.nodeid).u64(0).u64(self.entry_valid).u64(self.attr_valid).u32(0).u32(0);
        self.attr.put(reply);
    }
}

/// `fuse_statx_out`.
#[derive(Debug, Clone, Copy)]
pub struct Statx {
    /// Seconds for which the attributes may be remembered.
    pub attr_valid: u64,
    /// The attributes.
    pub attr: Attr,
}

/// `STATX_BASIC_STATS | STATX_BTIME`.
const STATX_MASK: u32 = 0x7ff | 0x800;

impl Statx {
    /// Adds the structure.
    pub fn put(&self, reply: &mut Reply) {
        let attr = &self.attr;
        reply.u64(self.attr_valid).u32(0).u32(0).u64(0).u64(0);
        reply.u32(STATX_MASK).u32(attr.blksize).u64(0).u32(attr.nlink).u32(attr.uid).u32(attr.gid);
        reply.u16((attr.mode & 0xffff) as u16).u16(0);
        reply.u64(attr.ino).u64(attr.size).u64(attr.blocks).u64(0);
        for (seconds, nanos) in [attr.atime, attr.btime, attr.ctime, attr.mtime] {
            reply.u64(seconds.cast_unsigned()).u32(nanos).u32(0);
        }
        reply.u32(attr.rdev.0).u32(attr.rdev.1).u32(0).u32(0);
        reply.bytes(&[0; 14 * 8]);
    }
}

/// `fuse_kstatfs`.
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the fields of statvfs(3)")]
pub struct KernelStat {
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub bsize: u32,
    pub frsize: u32,
}

impl KernelStat {
    /// Adds the structure.
    pub fn put(&self, reply: &mut Reply) {
        reply.u64(self.blocks).u64(self.bfree).u64(self.bavail).u64(self.files).u64(self.ffree);
        reply.u32(self.bsize).u32(super::MAX_NAME as u32).u32(self.frsize).u32(0).bytes(&[0; 24]);
    }
}

/// Directory entries, up to a number of bytes.
#[derive(Debug)]
pub struct DirBuffer {
    reply: Reply,
    limit: usize,
}

impl DirBuffer {
    /// Begins with room for `limit` bytes.
    pub fn new(limit: usize) -> DirBuffer {
        DirBuffer { reply: Reply::with_capacity(limit), limit: OUT_HEADER + limit }
    }

    /// Whether an entry of this name would fit, with or without attributes.
    pub fn fits(&self, name: &[u8], plus: bool) -> bool {
        let length = (24 + name.len()).next_multiple_of(8) + if plus { EntryOut::LENGTH } else { 0 };
        self.reply.0.len() + length <= self.limit
    }

    /// Adds an entry; `next` is the offset behind it, `kind` its `DT_*`. The caller asked [`DirBuffer::fits`].
    pub fn add(&mut self, entry: Option<&EntryOut>, ino: u64, next: u64, kind: u8, name: &[u8]) {
        if let Some(entry) = entry {
            entry.put(&mut self.reply);
        }
        self.reply.u64(ino).u64(next).u32(name.len() as u32).u32(u32::from(kind)).bytes(name);
        let padding = (24 + name.len()).next_multiple_of(8) - (24 + name.len());
        self.reply.bytes(&[0; 8][..padding]);
    }

    /// Takes the answer.
    pub fn into_reply(self) -> Reply {
        self.reply
    }
}

/// `FUSE_NOTIFY_INVAL_INODE`: attributes and pages of a node are to be asked for anew.
pub fn notify_inode(nodeid: u64) -> Vec<u8> {
    let mut reply = Reply::with_capacity(24);
    reply.0[4..8].copy_from_slice(&2i32.to_le_bytes());
    reply.u64(nodeid).u64(0).u64(0);
    reply.finish(0)
}

/// `FUSE_NOTIFY_INVAL_ENTRY`: what a name leads to is to be asked for anew.
pub fn notify_name(parent: u64, name: &[u8]) -> Vec<u8> {
    let mut reply = Reply::with_capacity(17 + name.len());
    reply.0[4..8].copy_from_slice(&3i32.to_le_bytes());
    reply.u64(parent.max(ROOT)).u32(name.len() as u32).u32(0).bytes(name).bytes(&[0]);
    reply.finish(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_lengths_of_the_kernels_header() {
        let length = |put: &dyn Fn(&mut Reply)| {
            let mut reply = Reply::empty();
            put(&mut reply);
            reply.finish(7).len() - OUT_HEADER
        };
        let attr = Attr::default();
        assert_eq!(length(&|reply| attr.put(reply)), 88);
        let entry = EntryOut { nodeid: 2, entry_valid: 1, attr_valid: 1, attr };
        assert_eq!(length(&|reply| entry.put(reply)), EntryOut::LENGTH);
        assert_eq!(length(&|reply| Statx { attr_valid: 1, attr }.put(reply)), 288);
        assert_eq!(length(&|reply| KernelStat::default().put(reply)), 80);
        assert_eq!(notify_inode(5).len(), 40);
        assert_eq!(notify_name(5, b"name").len(), 16 + 16 + 5);
    }

    #[test]
    fn an_answer_begins_with_its_length_error_and_number() {
        let bytes = Reply::error(Errno::NOENT).finish(0x0102_0304);
        assert_eq!(bytes, [16, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 4, 3, 2, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn directory_entries_are_padded_and_never_over_the_limit() {
        let mut buffer = DirBuffer::new(64);
        assert!(buffer.fits(b"12345", false));
        buffer.add(None, 1, 1, 8, b"12345");
        assert!(buffer.fits(b"12345678", false));
        buffer.add(None, 1, 2, 8, b"12345678");
        assert!(!buffer.fits(b"1", false));
        assert_eq!(buffer.into_reply().finish(1).len(), OUT_HEADER + 64);
    }
}
