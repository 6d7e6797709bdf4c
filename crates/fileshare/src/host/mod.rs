//! The host's file system, as the server uses it. One file per operating system; nothing else in this crate knows which.
//!
//! An [`Object`] is a file-system object that is known but not opened: it stays the same object whatever happens to its
//! name. A [`File`] is open for I/O. Every name is a single component, so nothing here can lead out of a directory, and
//! no symlink is ever followed.

use crate::abi::Attr;

mod linux;

pub use linux::{File, Object, Watcher, own_uid, raise_limits, words};

/// What tells objects apart: device and inode number.
pub type Ident = (u64, u64);

/// An object's identity and attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Which object it is.
    pub ident: Ident,
    /// Its attributes, as the host has them.
    pub attr: Attr,
}

/// The kind of an object (`S_IFMT` of its mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe, a socket or a device.
    Other,
}

impl Facts {
    /// What kind of object it is.
    pub fn kind(&self) -> Kind {
        match self.attr.mode & S_IFMT {
            S_IFREG => Kind::File,
            S_IFDIR => Kind::Directory,
            S_IFLNK => Kind::Symlink,
            _ => Kind::Other,
        }
    }
}

/// Mask of the kind in a mode.
pub const S_IFMT: u32 = 0o170_000;
/// Kind of a regular file.
pub const S_IFREG: u32 = 0o100_000;
/// Kind of a directory.
pub const S_IFDIR: u32 = 0o040_000;
/// Kind of a symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// Kind of a pipe.
pub const S_IFIFO: u32 = 0o010_000;
/// Kind of a socket.
pub const S_IFSOCK: u32 = 0o140_000;

/// Where written bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To this offset.
    At(u64),
    /// To the end of the file, wherever that is by now.
    End,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct How {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Emptied.
    pub truncate: bool,
    /// Only if it is made by this call.
    pub exclusive: bool,
    /// Each write is on the disk before it is answered.
    pub durable: bool,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Leave it.
    Omit,
    /// The present.
    Now,
    /// Seconds and nanoseconds.
    At(i64, u32),
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Inode number.
    pub ino: u64,
    /// Its `DT_*`.
    pub kind: u8,
    /// Its name.
    pub name: Box<[u8]>,
}

/// What a watched directory reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Something happened to an entry of the directory, or (without a name) to the directory itself.
    Entry {
        /// The watch that saw it.
        watch: i32,
        /// What happened.
        what: What,
        /// The entry.
        name: Option<Box<[u8]>>,
        /// Whether the entry is a directory.
        directory: bool,
    },
    /// The watch has ended: its directory is gone.
    Ended {
        /// The watch.
        watch: i32,
    },
    /// More happened than could be told.
    Overflow,
}

/// What happened to a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// It is new.
    Made,
    /// It is gone.
    Removed,
    /// It has left for another name; the number pairs it with its arrival.
    MovedFrom(u32),
    /// It has come from another name.
    MovedTo(u32),
    /// Its content has changed.
    Content,
    /// Its attributes have changed.
    Attributes,
    /// It was closed after writing.
    Closed,
}
