//! Resource limits of other processes (`prlimit(2)`).
#![expect(unsafe_code, reason = "rustix names the limits, and the numbers come from a list of our own")]

use crate::sys::call;
use std::io;

/// Sets one limit (`RLIMIT_*`) of a process.
///
/// # Errors
/// `EPERM` when the hard limit would rise without the privilege, `ESRCH` when there is no such process.
pub fn set(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = [soft, hard];
    // SAFETY: `struct rlimit64` is two 64-bit words, soft limit first; the old limit is not asked for.
    unsafe { call!(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), 0usize) }?;
    Ok(())
}
