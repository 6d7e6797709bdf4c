//! Linux: objects are `O_PATH` descriptors; each name is resolved by openat2(2) that may not leave its directory.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, SeekFrom, StatxFlags,
    Timespec, Timestamps, XattrFlags, inotify,
};

use super::{DirEntry, Facts, How, Place, S_IFIFO, S_IFMT, S_IFSOCK, Seen, What, When};
use crate::abi::{Attr, KernelStat};
use crate::errno::{Errno, Result};

/// Most entries of a directory that are read at once.
const MOST_ENTRIES: usize = 4 << 20;

/// A file-system object, not opened.
#[derive(Debug)]
pub struct Object(OwnedFd);

/// A file or directory, open for I/O.
#[derive(Debug)]
pub struct File(OwnedFd);

/// The text of the host for an error.
pub fn words(errno: Errno) -> String {
    std::io::Error::from_raw_os_error(errno.0).to_string()
}

/// Lets this process have as many descriptors as it may, and says how many that is.
pub fn raise_limits() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let before = limit.current;
        limit.current = limit.maximum;
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit.current = before;
        }
    }
    limit.current.unwrap_or(1 << 20)
}

/// The user that this process acts as.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

fn facts(fd: impl AsFd) -> Result<Facts> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, mask)?;
    let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
    Ok(Facts {
        ident: (u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor), stat.stx_ino),
        attr: Attr {
            ino: stat.stx_ino,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            atime: time(stat.stx_atime),
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            btime: time(stat.stx_btime),
            mode: u32::from(stat.stx_mode),
            nlink: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
            blksize: stat.stx_blksize,
        },
    })
}

impl How {
    fn flags(self) -> OFlags {
        let mut flags = match (self.read, self.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        flags.set(OFlags::TRUNC, self.truncate);
        flags.set(OFlags::EXCL, self.exclusive);
        flags.set(OFlags::DSYNC, self.durable);
        // Never waits for the other end of a pipe, never makes a terminal ours.
        flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK
    }
}

impl Object {
    /// The directory at a path, which may lead through symlinks: it is the host's user who names it.
    pub fn open_root(path: &Path) -> Result<Object> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Object(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    /// The entry of this directory with a name.
    pub fn child(&self, child: &[u8]) -> Result<Object> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let stay = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        Ok(Object(rustix::fs::openat2(&self.0, name(child), flags, Mode::empty(), stay)?))
    }

    /// The path under which the kernel knows the descriptor: it leads to the very object, whatever its name is now.
    fn magic(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Identity and attributes.
    pub fn facts(&self) -> Result<Facts> {
        facts(&self.0)
    }

    /// Opens the object, a regular file or a directory, for I/O.
    pub fn open(&self, how: How) -> Result<File> {
        Ok(File(rustix::fs::openat(CWD, self.magic(), how.flags(), Mode::empty())?))
    }

    /// Makes a file in this directory and opens it.
    pub fn create(&self, child: &[u8], how: How, mode: u32) -> Result<(File, Object)> {
        let flags = how.flags() | OFlags::CREATE | OFlags::NOFOLLOW;
        let stay = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = rustix::fs::openat2(&self.0, name(child), flags, Mode::from_raw_mode(mode), stay)?;
        let magic = format!("/proc/self/fd/{}", file.as_raw_fd());
        let object = rustix::fs::openat(CWD, magic, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok((File(file), Object(object)))
    }

    /// Makes a directory in this one.
    pub fn mkdir(&self, child: &[u8], mode: u32) -> Result<()> {
        Ok(rustix::fs::mkdirat(&self.0, name(child), Mode::from_raw_mode(mode))?)
    }

    /// Makes a pipe, a socket or an empty file in this directory.
    pub fn mknod(&self, child: &[u8], mode: u32) -> Result<()> {
        let kind = match mode & S_IFMT {
            S_IFIFO => FileType::Fifo,
            S_IFSOCK => FileType::Socket,
            0 | super::S_IFREG => FileType::RegularFile,
            _ => return Err(Errno::PERM),
        };
        Ok(rustix::fs::mknodat(&self.0, name(child), kind, Mode::from_raw_mode(mode & 0o777), 0)?)
    }

    /// Makes a symlink in this directory.
    pub fn symlink(&self, child: &[u8], target: &[u8]) -> Result<()> {
        Ok(rustix::fs::symlinkat(name(target), &self.0, name(child))?)
    }

    /// Makes another name for an object in this directory.
    pub fn link(&self, object: &Object, child: &[u8]) -> Result<()> {
        Ok(rustix::fs::linkat(CWD, object.magic(), &self.0, name(child), AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Removes a name that is no directory.
    pub fn unlink(&self, child: &[u8]) -> Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name(child), AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, child: &[u8]) -> Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name(child), AtFlags::REMOVEDIR)?)
    }

    /// Moves a name; `flags` are those of renameat2(2).
    pub fn rename(&self, child: &[u8], to: &Object, new: &[u8], flags: u32) -> Result<()> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL);
        }
        Ok(rustix::fs::renameat_with(&self.0, name(child), &to.0, name(new), flags)?)
    }

    /// The target of a symlink.
    pub fn readlink(&self) -> Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.0, "", Vec::with_capacity(256))?.into_bytes())
    }

    /// Sets the permissions of a file or directory.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        Ok(rustix::fs::chmodat(CWD, self.magic(), Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    /// Sets the times.
    pub fn set_times(&self, access: When, change: When) -> Result<()> {
        let spec = |when| match when {
            When::Omit => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
            When::Now => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
            When::At(seconds, nanos) => Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) },
        };
        let times = Timestamps { last_access: spec(access), last_modification: spec(change) };
        Ok(rustix::fs::utimensat(&self.0, "", &times, AtFlags::EMPTY_PATH)?)
    }

    /// Reads an extended attribute of a file or directory.
    pub fn xattr(&self, attribute: &[u8], buffer: &mut [u8]) -> Result<usize> {
        let magic = self.magic();
        if buffer.is_empty() {
            return Ok(rustix::fs::getxattr_query(magic, name(attribute))?);
        }
        Ok(rustix::fs::getxattr(magic, name(attribute), buffer)?)
    }

    /// Sets an extended attribute; `flags` are those of setxattr(2).
    pub fn set_xattr(&self, attribute: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        Ok(rustix::fs::setxattr(self.magic(), name(attribute), value, flags)?)
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, attribute: &[u8]) -> Result<()> {
        Ok(rustix::fs::removexattr(self.magic(), name(attribute))?)
    }

    /// The names of all extended attributes, each with a NUL behind it.
    pub fn xattrs(&self) -> Result<Vec<u8>> {
        // XATTR_LIST_MAX.
        let mut list = vec![0; 65_536];
        let length = rustix::fs::listxattr(self.magic(), &mut list[..])?;
        list.truncate(length);
        Ok(list)
    }

    /// How full the file system is.
    pub fn statfs(&self) -> Result<KernelStat> {
        let stat = rustix::fs::fstatvfs(&self.0)?;
        Ok(KernelStat {
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            bsize: u32::try_from(stat.f_bsize).unwrap_or(4096),
            frsize: u32::try_from(stat.f_frsize).unwrap_or(4096),
        })
    }
}

impl File {
    /// Identity and attributes.
    pub fn facts(&self) -> Result<Facts> {
        facts(&self.0)
    }

    /// Reads at a place; short only at the end.
    pub fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<usize> {
        let mut total = 0;
        while !buffer.is_empty() {
            match rustix::io::pread(&self.0, &mut *buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    total += count;
                    offset += count as u64;
                    buffer = &mut buffer[count..];
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) if total == 0 => return Err(errno.into()),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    /// Writes at a place; short only when the disk is full.
    pub fn write_at(&self, mut data: &[u8], place: Place) -> Result<usize> {
        let mut total = 0;
        while !data.is_empty() {
            let written = match place {
                Place::At(offset) => rustix::io::pwrite(&self.0, data, offset + total as u64),
                Place::End => {
                    let slices = [std::io::IoSlice::new(data)];
                    rustix::io::pwritev2(&self.0, &slices, 0, rustix::io::ReadWriteFlags::APPEND)
                }
            };
            match written {
                Ok(0) => break,
                Ok(count) => {
                    total += count;
                    data = &data[count..];
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) if total == 0 => return Err(errno.into()),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    /// Brings content, and with `all` attributes too, to the disk.
    pub fn sync(&self, all: bool) -> Result<()> {
        Ok(if all { rustix::fs::fsync(&self.0) } else { rustix::fs::fdatasync(&self.0) }?)
    }

    /// Sets the length.
    pub fn set_len(&self, length: u64) -> Result<()> {
        Ok(rustix::fs::ftruncate(&self.0, length)?)
    }

    /// fallocate(2).
    pub fn allocate(&self, mode: u32, offset: u64, length: u64) -> Result<()> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        Ok(rustix::fs::fallocate(&self.0, mode, offset, length)?)
    }

    /// Finds data (3) or a hole (4) from a place on; see lseek(2).
    pub fn seek(&self, offset: u64, whence: u32) -> Result<u64> {
        let from = match whence {
            3 => SeekFrom::Data(offset),
            4 => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        Ok(rustix::fs::seek(&self.0, from)?)
    }

    /// copy_file_range(2).
    pub fn copy_to(&self, mut from: u64, target: &File, mut to: u64, length: usize) -> Result<usize> {
        Ok(rustix::fs::copy_file_range(&self.0, Some(&mut from), &target.0, Some(&mut to), length)?)
    }

    /// All entries of a directory.
    pub fn entries(&self) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            if entries.len() >= MOST_ENTRIES {
                return Err(Errno::NOMEM);
            }
            let kind = match entry.file_type() {
                FileType::Fifo => 1,
                FileType::CharacterDevice => 2,
                FileType::Directory => 4,
                FileType::BlockDevice => 6,
                FileType::RegularFile => 8,
                FileType::Symlink => 10,
                FileType::Socket => 12,
                FileType::Unknown => 0,
            };
            entries.push(DirEntry { ino: entry.ino(), kind, name: entry.file_name().to_bytes().into() });
        }
        Ok(entries)
    }
}

/// Reports changes of directories (inotify). Watches follow their directory, whatever its name becomes.
#[derive(Debug)]
pub struct Watcher(OwnedFd);

impl Watcher {
    /// Makes a watcher of nothing.
    pub fn new() -> Result<Watcher> {
        Ok(Watcher(inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?))
    }

    /// Watches a directory.
    pub fn add(&self, directory: &Object) -> Result<i32> {
        use inotify::WatchFlags as W;
        let what = W::CREATE
            | W::DELETE
            | W::MOVED_FROM
            | W::MOVED_TO
            | W::MODIFY
            | W::ATTRIB
            | W::CLOSE_WRITE
            | W::EXCL_UNLINK
            | W::ONLYDIR;
        Ok(inotify::add_watch(&self.0, directory.magic(), what)?)
    }

    /// Watches a directory no longer.
    pub fn remove(&self, watch: i32) {
        // One that ended by itself is gone already.
        let _ = inotify::remove_watch(&self.0, watch);
    }

    /// Waits up to so long for changes.
    pub fn wait(&self, patience: std::time::Duration) {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: patience.as_secs().cast_signed(),
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        // Whether something came or the wait was cut short, the caller reads what is there.
        let _ = poll(&mut ready, Some(&timeout));
    }

    /// Hands over the changes that are there. All that happened before the call is among them.
    pub fn read(&self, mut seen: impl FnMut(Seen)) -> Result<()> {
        use inotify::ReadFlags as R;
        let mut buffer = [MaybeUninit::uninit(); 65_536];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let (watch, flags) = (event.wd(), event.events());
            if flags.contains(R::QUEUE_OVERFLOW) {
                seen(Seen::Overflow);
                continue;
            }
            if flags.contains(R::IGNORED) {
                seen(Seen::Ended { watch });
                continue;
            }
            let cookie = event.cookie();
            let what = if flags.contains(R::CREATE) {
                What::Made
            } else if flags.contains(R::DELETE) {
                What::Removed
            } else if flags.contains(R::MOVED_FROM) {
                What::MovedFrom(cookie)
            } else if flags.contains(R::MOVED_TO) {
                What::MovedTo(cookie)
            } else if flags.contains(R::MODIFY) {
                What::Content
            } else if flags.contains(R::ATTRIB) {
                What::Attributes
            } else if flags.contains(R::CLOSE_WRITE) {
                What::Closed
            } else {
                continue;
            };
            let name = event.file_name().map(|name| name.to_bytes().into());
            seen(Seen::Entry { watch, what, name, directory: flags.contains(R::ISDIR) });
        }
    }
}
