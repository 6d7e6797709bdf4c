//! Finding and making paths below a root that nobody can lead out of.
//!
//! Every lookup is an `openat2` with `RESOLVE_IN_ROOT`; what it finds is used by descriptor, never by name again.
#![expect(unsafe_code, reason = "runs in a clone: raw system calls over prepared memory")]

use super::{Kind, Links, Target};
use crate::sys::{Errno, Result, call};
use std::ffi::CStr;

const PATH_MAX: usize = 4096;
const MAX_LINKS: u32 = 40;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

pub(super) fn close(fd: i32) {
    // SAFETY: the interpreter closes only descriptors that it has opened itself and forgets afterwards.
    let _ = unsafe { call!(libc::SYS_close, fd) };
}

/// A descriptor of the child that is closed at the end of its scope.
pub(super) struct Opened(pub i32);

impl Drop for Opened {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// Opens `path` as if `root` were `/`.
pub(super) fn open_in_root(root: i32, path: &CStr, flags: i32, links: Links) -> Result<Opened> {
    let links = match links {
        Links::Inside => libc::RESOLVE_IN_ROOT,
        Links::Refuse => libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS,
    };
    open_with(root, path, flags, links)
}

/// Opens `path` below `root` by the rules of openat2(2); magic links are followed in no case.
pub(super) fn open_with(root: i32, path: &CStr, flags: i32, resolve: u64) -> Result<Opened> {
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: resolve | libc::RESOLVE_NO_MAGICLINKS,
    };
    // A rename somewhere on the machine can make a lookup of ".." give up with EAGAIN; openat2(2) says to retry.
    for _ in 0..64 {
        // SAFETY: path and structure live across the call; the size is the structure's.
        match unsafe { call!(libc::SYS_openat2, root, path, &raw const how, size_of::<OpenHow>()) } {
            Err(Errno(libc::EAGAIN)) => {}
            other => return other.map(|fd| Opened(fd as i32)),
        }
    }
    Err(Errno(libc::EAGAIN))
}

/// Opens a target below the root, making it and its parents when they are missing.
pub(super) fn open_or_make(root: i32, target: &Target) -> Result<Opened> {
    match open_in_root(root, &target.path, libc::O_PATH, target.links) {
        Err(Errno(libc::ENOENT)) => make(root, target),
        other => other,
    }
}

/// A path under construction, without allocation.
struct Buffer {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: [0; PATH_MAX], len: 0 }
    }

    fn append(&mut self, more: &[u8]) -> Result<()> {
        let end = self.len.saturating_add(more.len());
        // One byte stays zero: the terminator.
        if end >= PATH_MAX {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        match self.bytes.get_mut(self.len..end) {
            Some(room) => room.copy_from_slice(more),
            None => return Err(Errno(libc::ENAMETOOLONG)),
        }
        self.len = end;
        self.terminate();
        Ok(())
    }

    fn terminate(&mut self) {
        if let Some(end) = self.bytes.get_mut(self.len) {
            *end = 0;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// The text as a C string; "." when empty, since the empty path names nothing.
    fn as_c(&self) -> &CStr {
        if self.len == 0 {
            return c".";
        }
        self.bytes.get(..=self.len).and_then(|b| CStr::from_bytes_until_nul(b).ok()).unwrap_or(c".")
    }

    /// Removes the last component, leaving "" for one alone.
    fn pop(&mut self) {
        self.len = self.as_bytes().iter().rposition(|&b| b == b'/').unwrap_or(0);
        self.terminate();
    }

    fn push(&mut self, component: &[u8]) -> Result<()> {
        if self.len > 0 {
            self.append(b"/")?;
        }
        self.append(component)
    }

    fn clear(&mut self) {
        self.len = 0;
        self.terminate();
    }
}

/// Splits the first component from a path; the rest keeps its separators.
fn split_first(path: &[u8]) -> (&[u8], &[u8]) {
    let start = path.iter().position(|&b| b != b'/').unwrap_or(path.len());
    let path = path.get(start..).unwrap_or(&[]);
    let end = path.iter().position(|&b| b == b'/').unwrap_or(path.len());
    (path.get(..end).unwrap_or(&[]), path.get(end..).unwrap_or(&[]))
}

/// Walks the path component by component with links resolved by hand, making what is missing.
///
/// Dangling links are why the kernel alone cannot do it: what they point to is made inside the root.
fn make(root: i32, target: &Target) -> Result<Opened> {
    let mut todo = Buffer::new();
    todo.append(target.path.to_bytes())?;
    let mut done = Buffer::new();
    let mut links = 0u32;
    // Bounded: each turn takes a component, and only links (at most MAX_LINKS) or a race add some.
    for _ in 0..PATH_MAX {
        let (component, rest) = split_first(todo.as_bytes());
        let mut next = Buffer::new();
        next.append(rest)?;
        if component.is_empty() {
            return open_in_root(root, done.as_c(), libc::O_PATH, Links::Refuse);
        }
        if component == b"." || component == b".." {
            if component == b".." {
                done.pop();
            }
            todo = next;
            continue;
        }
        let last = split_first(next.as_bytes()).0.is_empty();
        let mut name = Buffer::new();
        name.append(component)?;
        done.push(component)?;
        match open_in_root(root, done.as_c(), libc::O_PATH | libc::O_NOFOLLOW, Links::Refuse) {
            Ok(found) => {
                let mut link = Buffer::new();
                // SAFETY: the kernel writes at most the length given into the buffer.
                let read = unsafe {
                    call!(libc::SYS_readlinkat, found.0, c"", link.bytes.as_mut_ptr(), PATH_MAX - 1)
                };
                if let Ok(len) = read {
                    links += 1;
                    if links > MAX_LINKS || target.links == Links::Refuse {
                        return Err(Errno(libc::ELOOP));
                    }
                    link.len = len.min(PATH_MAX - 1);
                    link.terminate();
                    done.pop();
                    if link.as_bytes().first() == Some(&b'/') {
                        done.clear();
                    }
                    link.append(b"/")?;
                    link.append(next.as_bytes())?;
                    todo = link;
                } else {
                    todo = next;
                }
            }
            Err(Errno(libc::ENOENT)) => {
                done.pop();
                let parent =
                    open_in_root(root, done.as_c(), libc::O_PATH | libc::O_DIRECTORY, Links::Refuse)?;
                let made = if last && target.kind == Kind::File {
                    // SAFETY: the name is a terminated string that lives across the call.
                    unsafe { call!(libc::SYS_mknodat, parent.0, name.as_c(), libc::S_IFREG | 0o755, 0) }
                } else {
                    // SAFETY: as above.
                    unsafe { call!(libc::SYS_mkdirat, parent.0, name.as_c(), 0o755) }
                };
                match made {
                    // The component is looked at again in the next turn, whoever made it.
                    Ok(_) | Err(Errno(libc::EEXIST)) => {}
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno(libc::ELOOP))
}
