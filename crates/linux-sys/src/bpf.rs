//! The filter that decides which devices the processes of a cgroup may use (`bpf(2)`, `BPF_PROG_TYPE_CGROUP_DEVICE`).
#![expect(unsafe_code, reason = "bpf has no rustix wrapper")]

use crate::sys::call;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction (`struct bpf_insn` of linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low half, source register in the high one.
    pub registers: u8,
    /// Offset of a load or jump.
    pub offset: i16,
    /// Constant.
    pub value: i32,
}

// linux/bpf.h
const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const PROG_QUERY: u32 = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
/// More filters than one cgroup takes (`BPF_CGROUP_MAX_PROGS`).
const MOST: usize = 64;

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<usize> {
    // SAFETY: the callers pass the structure that the command reads, whose pointers refer to memory that they keep alive
    // and whose length goes along; all bytes of it are initialised.
    Ok(unsafe { call!(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) }?)
}

/// Loads a device filter and makes it the only one of a cgroup v2 directory; filters of its ancestors keep their say.
///
/// At every moment of the change a filter is in force.
///
/// # Errors
/// `EPERM` without the privilege, `EINVAL` when the kernel's verifier refuses the filter.
pub fn set_device_filter(cgroup: BorrowedFd<'_>, filter: &[Instruction]) -> io::Result<()> {
    let old = attached(cgroup)?;
    let program = load(filter)?;
    let mut attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &mut attach)?;
    for id in old {
        let program = by_id(id)?;
        attach.program = program.as_raw_fd() as u32;
        attach.flags = 0;
        bpf(PROG_DETACH, &mut attach)?;
    }
    Ok(())
}

fn load(filter: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: filter.len() as u32,
        instructions: filter.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(PROG_LOAD, &mut load)?;
    // SAFETY: the kernel has just made the descriptor (close-on-exec), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MOST];
    let mut query = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        padding: 0,
    };
    bpf(PROG_QUERY, &mut query)?;
    let count = (query.count as usize).min(MOST);
    Ok(ids.into_iter().take(count).collect())
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = [id, 0, 0];
    let fd = bpf(PROG_GET_FD_BY_ID, &mut attributes)?;
    // SAFETY: the kernel has just made the descriptor (close-on-exec), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
