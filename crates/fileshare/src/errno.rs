//! Linux error numbers: what the guest's kernel understands, whatever the host is.

use std::io;

/// An error number of Linux, positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// The result of an operation on behalf of the guest.
pub type Result<T> = std::result::Result<T, Errno>;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $number:expr;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Errno = Errno($number);)*
        }
    };
}

// include/uapi/asm-generic/errno-base.h and errno.h, which x86-64 and arm64 share.
numbers! {
    /// Operation not permitted.
    PERM = 1;
    /// No such file or directory.
    NOENT = 2;
    /// Input/output error.
    IO = 5;
    /// Bad file descriptor.
    BADF = 9;
    /// Out of memory.
    NOMEM = 12;
    /// Permission denied.
    ACCES = 13;
    /// File exists.
    EXIST = 17;
    /// Not a directory.
    NOTDIR = 20;
    /// Is a directory.
    ISDIR = 21;
    /// Invalid argument.
    INVAL = 22;
    /// Too many open files in the system.
    NFILE = 23;
    /// No space left on device.
    NOSPC = 28;
    /// Read-only file system.
    ROFS = 30;
    /// Result does not fit.
    RANGE = 34;
    /// File name too long.
    NAMETOOLONG = 36;
    /// Function not implemented.
    NOSYS = 38;
    /// Directory not empty.
    NOTEMPTY = 39;
    /// Too many symbolic links.
    LOOP = 40;
    /// No such attribute.
    NODATA = 61;
    /// Not supported.
    OPNOTSUPP = 95;
    /// What the handle referred to has gone.
    STALE = 116;
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        #[cfg(target_os = "linux")]
        if let Some(number) = error.raw_os_error() {
            return Errno(number);
        }
        use io::ErrorKind as K;
        match error.kind() {
            K::NotFound => Errno::NOENT,
            K::PermissionDenied => Errno::ACCES,
            K::AlreadyExists => Errno::EXIST,
            K::NotADirectory => Errno::NOTDIR,
            K::IsADirectory => Errno::ISDIR,
            K::DirectoryNotEmpty => Errno::NOTEMPTY,
            K::ReadOnlyFilesystem => Errno::ROFS,
            K::StorageFull | K::QuotaExceeded => Errno::NOSPC,
            K::InvalidInput => Errno::INVAL,
            K::InvalidFilename => Errno::NAMETOOLONG,
            K::Unsupported => Errno::OPNOTSUPP,
            K::OutOfMemory => Errno::NOMEM,
            _ => Errno::IO,
        }
    }
}

#[cfg(target_os = "linux")]
impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Errno {
        Errno(errno.raw_os_error())
    }
}
