//! Growing a mounted ext4 file system and giving its free blocks back to the disk below.
#![expect(unsafe_code, reason = "ioctls without a rustix wrapper")]

use crate::sys::call;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `EXT4_IOC_RESIZE_FS` = `_IOW('f', 16, __u64)` (fs/ext4/ext4.h).
const EXT4_IOC_RESIZE_FS: u32 = 0x4008_6610;
/// `FITRIM` = `_IOWR('X', 121, struct fstrim_range)` (linux/fs.h).
const FITRIM: u32 = 0xc018_5879;

#[repr(C)]
struct TrimRange {
    start: u64,
    len: u64,
    min_len: u64,
}

/// Grows the mounted file system that `mount_point` lies on to `blocks` blocks of its own block size.
pub fn resize(mount_point: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads eight bytes from the address, which is that of a live u64.
    unsafe { call!(libc::SYS_ioctl, mount_point.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) }?;
    Ok(())
}

/// Discards every unused block of the mounted file system and returns how many bytes that were.
pub fn trim(mount_point: BorrowedFd<'_>) -> io::Result<u64> {
    let mut range = TrimRange { start: 0, len: u64::MAX, min_len: 0 };
    // SAFETY: the kernel reads and writes the structure that the request number describes, and it lives across the call.
    unsafe { call!(libc::SYS_ioctl, mount_point.as_raw_fd(), FITRIM, &raw mut range) }?;
    Ok(range.len)
}
