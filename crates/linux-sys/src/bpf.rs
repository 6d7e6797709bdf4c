//! Programs in the kernel that judge the use of devices in a cgroup (`bpf(2)`, `BPF_PROG_TYPE_CGROUP_DEVICE`).
#![expect(unsafe_code, reason = "bpf(2) has no wrapper")]

use crate::sys::call;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// linux/bpf.h.
const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `union bpf_attr` of `BPF_PROG_LOAD`, as far as it is used; the kernel takes what is beyond as zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a program, whose instructions are `struct bpf_insn` in the machine's order of bytes, and attaches it to a cgroup:
/// it is asked about every use of a device there and below, beside those that are attached further up. It goes with the
/// cgroup.
///
/// # Errors
/// `EINVAL` for a program that the kernel does not take, `EPERM` without the right, `ENOSYS` on a kernel without it.
pub fn attach_device_filter(cgroup: BorrowedFd<'_>, instructions: &[u64]) -> io::Result<()> {
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr() as u64,
        // It calls no function of the kernel's, so it is nobody's derivative.
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the attributes are as long as said, and what they point to lives until the call returns; the kernel copies.
    let program = unsafe { call!(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) }?;
    // SAFETY: the descriptor is new and nobody else knows it.
    let program = unsafe { OwnedFd::from_raw_fd(program as i32) };
    let attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes are as long as said; both descriptors are open.
    unsafe { call!(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) }?;
    Ok(())
}
