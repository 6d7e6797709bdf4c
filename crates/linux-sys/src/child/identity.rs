//! The child's steps on users, capabilities and limits.
//!
//! The kernel keeps credentials per thread; these calls change the one thread that a clone has.
#![expect(unsafe_code, reason = "runs in a clone: raw system calls over prepared memory")]

use super::Groups;
use super::mounts::status;
use crate::sys::{Errno, Result, call};

/// `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h): two words per set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets of capabilities as bit masks.
#[derive(Clone, Copy)]
pub(super) struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

fn get() -> Result<Sets> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut words = [CapabilityWord::default(); 2];
    // SAFETY: version 3 writes two words, which is what the array holds.
    unsafe { call!(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) }?;
    let [low, high] = words;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

pub(super) fn set(sets: Sets) -> Result<()> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let word = |shift: u32| CapabilityWord {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let words = [word(0), word(32)];
    // SAFETY: version 3 reads two words, which is what the array holds.
    unsafe { call!(libc::SYS_capset, &raw mut header, words.as_ptr()) }?;
    Ok(())
}

pub(super) fn control(option: i32, a: u64, b: u64) -> Result<()> {
    // SAFETY: used with options that take numbers only.
    unsafe { call!(libc::SYS_prctl, option, a, b, 0, 0) }?;
    Ok(())
}

pub(super) fn set_ambient(mask: u64) -> Result<()> {
    control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    for capability in 0..64u64 {
        if mask & (1 << capability) != 0 {
            control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability)?;
        }
    }
    Ok(())
}

pub(super) fn bound(keep: u64) -> Result<()> {
    for capability in 0..64u64 {
        if keep & (1 << capability) == 0 {
            match control(libc::PR_CAPBSET_DROP, capability, 0) {
                Ok(()) => {}
                // Past the last capability of this kernel.
                Err(Errno(libc::EINVAL)) => break,
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn set_groups(groups: &Groups) -> Result<()> {
    if let Groups::Set(groups) = groups {
        // SAFETY: the kernel reads as many ids as the slice has.
        unsafe { call!(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }?;
    }
    Ok(())
}

/// Takes user and group 0; in a new user namespace the process has every capability already.
pub(super) fn become_root(groups: &Groups) -> Result<()> {
    become_user(0, 0, groups)?;
    // The change of user has given its files in /proc to the host's root.
    control(libc::PR_SET_DUMPABLE, 1, 0)
}

pub(super) fn become_user(uid: u32, gid: u32, groups: &Groups) -> Result<()> {
    control(libc::PR_SET_KEEPCAPS, 1, 0)?;
    set_groups(groups)?;
    // SAFETY: no memory is passed.
    unsafe { call!(libc::SYS_setresgid, gid, gid, gid) }?;
    // SAFETY: no memory is passed.
    unsafe { call!(libc::SYS_setresuid, uid, uid, uid) }?;
    control(libc::PR_SET_KEEPCAPS, 0, 0)?;
    // A change of user empties the effective set; the steps after this one still need it.
    let mut sets = get()?;
    sets.effective = sets.permitted;
    set(sets)
}

/// Gives the standard streams to `uid`, as far as they are things that can be given.
pub(super) fn own_streams(uid: u32) -> Result<()> {
    for stream in 0..3 {
        let seen = match status(stream) {
            Ok(seen) => seen,
            Err(Errno(libc::EBADF)) => continue,
            Err(errno) => return Err(errno),
        };
        let null = (seen.stx_rdev_major, seen.stx_rdev_minor) == (1, 3);
        if seen.stx_uid == uid || null {
            continue;
        }
        // SAFETY: no memory is passed.
        match unsafe { call!(libc::SYS_fchown, stream, uid, seen.stx_gid) } {
            // Read-only file systems, sockets of another user namespace and the like keep their owner.
            Ok(_) | Err(Errno(libc::EINVAL | libc::EPERM | libc::EROFS)) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(super) fn limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: `struct rlimit64` is two 64-bit words, soft limit first; the old limit is not asked for.
    unsafe { call!(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), 0usize) }?;
    Ok(())
}
