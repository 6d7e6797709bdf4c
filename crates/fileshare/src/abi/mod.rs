//! The FUSE protocol, as `include/uapi/linux/fuse.h` of Linux 6.12 (protocol 7.41) has it.
//!
//! Numbers are in the guest's byte order, which is little-endian on every machine Skiff knows.

mod reply;
mod request;

pub use reply::{Attr, DirBuffer, EntryOut, KernelStat, Reply, Statx, notify_inode, notify_name};
pub use request::{Header, In, SetAttr};

/// Length of a request's header in bytes.
pub const IN_HEADER: usize = 40;
/// Length of an answer's header in bytes.
pub const OUT_HEADER: usize = 16;
/// Longest data of one write, and of one read.
pub const MAX_WRITE: usize = 1 << 20;
/// Longest request: the data of a write and its headers.
pub const MAX_REQUEST: usize = MAX_WRITE + 4096;
/// Longest name of a directory entry.
pub const MAX_NAME: usize = 255;
/// The node that is the shared directory.
pub const ROOT: u64 = 1;
/// Protocol that this server speaks; the kernel lowers its own to it.
pub const MAJOR: u32 = 7;
/// Newest minor version that this server knows.
pub const MINOR: u32 = 41;
/// Oldest minor version that this server serves.
pub const OLDEST_MINOR: u32 = 31;

macro_rules! opcodes {
    ($($name:ident = $code:literal),* $(,)?) => {
        /// What a request asks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are the kernel's")]
        pub enum Op { $($name = $code),* }

        impl Op {
            /// Returns the operation with this code.
            pub fn from_code(code: u32) -> Option<Op> {
                match code {
                    $($code => Some(Op::$name),)*
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    Lookup = 1, Forget = 2, GetAttr = 3, SetAttr = 4, ReadLink = 5, Symlink = 6, MkNod = 8, MkDir = 9, Unlink = 10,
    RmDir = 11, Rename = 12, Link = 13, Open = 14, Read = 15, Write = 16, StatFs = 17, Release = 18, FSync = 20,
    SetXattr = 21, GetXattr = 22, ListXattr = 23, RemoveXattr = 24, Flush = 25, Init = 26, OpenDir = 27, ReadDir = 28,
    ReleaseDir = 29, FSyncDir = 30, GetLock = 31, SetLock = 32, SetLockWait = 33, Access = 34, Create = 35,
    Interrupt = 36, Destroy = 38, BatchForget = 42, Fallocate = 43, ReadDirPlus = 44, Rename2 = 45, LSeek = 46,
    CopyFileRange = 47, SyncFs = 50, TmpFile = 51, Statx = 52,
    // Of the guest half, not of the kernel: begins a stream, and is not answered.
    Attach = 0x5346_0001,
}

/// `FUSE_INIT` flags that this server uses.
pub mod init {
    /// Reads may come in any order.
    pub const ASYNC_READ: u64 = 1;
    /// `O_TRUNC` comes with open.
    /// Writes may be longer than a page.
    pub const BIG_WRITES: u64 = 1 << 5;
    /// Directories are read with attributes.
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    /// …where the kernel sees that it pays.
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// Direct I/O may overlap.
    pub const ASYNC_DIO: u64 = 1 << 15;
    /// Lookups in one directory may overlap.
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    /// `max_pages` of the answer counts.
    pub const MAX_PAGES: u64 = 1 << 22;
    /// Targets of symlinks are cached.
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    /// Cached pages stay until the server says that they are old.
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    /// The server takes setuid bits away by itself: it never shows any.
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    /// The second word of flags counts.
    pub const INIT_EXT: u64 = 1 << 30;
}

/// Bits of `fuse_open_out.open_flags`.
pub mod open {
    /// Cached pages stay.
    pub const KEEP_CACHE: u32 = 1 << 1;
    /// Directory entries may be cached.
    pub const CACHE_DIR: u32 = 1 << 3;
    /// Close need not be told.
    pub const NOFLUSH: u32 = 1 << 5;
}

/// Bits of `fuse_setattr_in.valid`.
pub mod fattr {
    /// `mode`.
    pub const MODE: u32 = 1;
    /// `uid`.
    pub const UID: u32 = 1 << 1;
    /// `gid`.
    pub const GID: u32 = 1 << 2;
    /// `size`.
    pub const SIZE: u32 = 1 << 3;
    /// `atime`.
    pub const ATIME: u32 = 1 << 4;
    /// `mtime`.
    pub const MTIME: u32 = 1 << 5;
    /// `fh`.
    pub const FH: u32 = 1 << 6;
    /// Now, in place of `atime`.
    pub const ATIME_NOW: u32 = 1 << 7;
    /// Now, in place of `mtime`.
    pub const MTIME_NOW: u32 = 1 << 8;
}
