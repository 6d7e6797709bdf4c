//! The child's steps on processors, priorities and memory nodes.
#![expect(unsafe_code, reason = "runs in a clone: raw system calls over prepared memory")]

use crate::sys::{Result, call};

/// `struct sched_attr` of sched_setattr(2), first version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedulerAttributes {
    /// Filled in when it is used.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub period: u64,
}

pub(super) fn set(attributes: &SchedulerAttributes) -> Result<()> {
    let attributes = SchedulerAttributes { size: size_of::<SchedulerAttributes>() as u32, ..*attributes };
    // SAFETY: the structure says how long it is, and lives across the call.
    unsafe { call!(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }?;
    Ok(())
}

pub(super) fn io_priority(value: i32) -> Result<()> {
    /// `IOPRIO_WHO_PROCESS` (linux/ioprio.h).
    const PROCESS: i32 = 1;
    // SAFETY: no memory is passed.
    unsafe { call!(libc::SYS_ioprio_set, PROCESS, 0, value) }?;
    Ok(())
}

pub(super) fn affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the kernel reads as many bytes as the slice has.
    unsafe { call!(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }?;
    Ok(())
}

pub(super) fn memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel reads one bit less than it is told.
    let bits = nodes.len() * 64 + usize::from(!nodes.is_empty());
    // SAFETY: the kernel reads as many words as the slice has.
    unsafe { call!(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) }?;
    Ok(())
}
