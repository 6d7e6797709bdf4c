//! The child's step that runs a hook: a program of somebody else's, with the child's own place in the world.
#![expect(unsafe_code, reason = "runs in a clone: raw system calls over prepared memory")]

use super::paths::Opened;
use super::run::{exit, reset_signals};
use super::spawn::Vectors;
use super::terminal::duplicate;
use crate::sys::{Errno, Result, call};
use std::ffi::CStr;

/// How a hook ended.
pub(super) enum End {
    /// With success.
    Success,
    /// With an exit code other than 0, or 128 more than the signal's number.
    Code(u32),
}

/// The exit code of a clone that could not execute the hook.
const NOT_EXECUTED: i32 = 127;

/// Runs `path` and waits until it ends or its time is up, in which case it is killed and the error is `ETIMEDOUT`.
pub(super) fn run(path: &CStr, vectors: &Vectors, stdin: i32, timeout: Option<u32>) -> Result<End> {
    let mut pidfd: i32 = -1;
    // SAFETY: all-zero bytes are a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: as for the clone that this one is made from: a copy of all memory, and nothing but system calls.
    let pid = unsafe { call!(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) }?;
    if pid == 0 {
        let _ = execute(path, vectors, stdin);
        exit_with(NOT_EXECUTED);
    }
    let pidfd = Opened(pidfd);
    let waited = wait_readable(pidfd.0, timeout);
    if waited.is_err() {
        // SAFETY: no memory is passed.
        let _ = unsafe { call!(libc::SYS_pidfd_send_signal, pidfd.0, libc::SIGKILL, 0usize, 0) };
    }
    let status = reap(pid as i32)?;
    waited?;
    Ok(match (status & 0x7f, status >> 8 & 0xff) {
        (0, 0) => End::Success,
        (0, code) => End::Code(code as u32),
        (signal, _) => End::Code(128 + signal as u32),
    })
}

fn execute(path: &CStr, vectors: &Vectors, stdin: i32) -> Result<()> {
    reset_signals()?;
    // SAFETY: no memory is passed. The file may have been read by the hook before.
    unsafe { call!(libc::SYS_lseek, stdin, 0, libc::SEEK_SET) }?;
    duplicate(stdin, 0)?;
    // SAFETY: no memory is passed; everything above the standard streams is the child's own business.
    unsafe { call!(libc::SYS_close_range, 3, u32::MAX, 0) }?;
    // SAFETY: both arrays end in null and point to strings of the prepared steps.
    unsafe { call!(libc::SYS_execve, path, vectors.arguments.as_ptr(), vectors.environment.as_ptr()) }?;
    Ok(())
}

fn exit_with(code: i32) -> ! {
    // SAFETY: no memory is passed; the call does not return.
    let _ = unsafe { call!(libc::SYS_exit_group, code) };
    exit()
}

fn wait_readable(fd: i32, timeout: Option<u32>) -> Result<()> {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let time = timeout
        .map(|ms| libc::timespec { tv_sec: i64::from(ms / 1000), tv_nsec: i64::from(ms % 1000) * 1_000_000 });
    let time = time.as_ref().map_or(std::ptr::null(), |time| &raw const *time);
    // All signals are blocked here: nothing interrupts the wait.
    // SAFETY: the structures live across the call; no signal mask is given.
    match unsafe { call!(libc::SYS_ppoll, &raw mut poll, 1, time, 0usize, 0) }? {
        0 => Err(Errno(libc::ETIMEDOUT)),
        _ => Ok(()),
    }
}

fn reap(pid: i32) -> Result<i32> {
    let mut status = 0i32;
    // SAFETY: the kernel writes one int.
    unsafe { call!(libc::SYS_wait4, pid, &raw mut status, 0, 0usize) }?;
    Ok(status)
}
