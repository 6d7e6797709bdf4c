//! Safe wrappers over the Linux system calls that rustix does not cover.
//!
//! This is the only crate of the workspace that contains unsafe code. Each file that does says why at its top,
//! and everything public is safe to call.
//!
//! The largest piece is [`child`]: a process is described as a flat list of prepared steps, cloned with `clone3`,
//! and the clone executes nothing but raw system calls over memory that was ready before it existed.
#![cfg(target_os = "linux")]

pub mod bpf;
pub mod child;
pub mod ext4;
pub mod fd_passing;
pub mod inherited;
pub mod limits;
pub mod module;
pub mod mount;
pub mod namespace;
pub mod netns;
pub mod random;
pub mod reboot;
pub mod seccomp;
pub mod signal;
pub mod signal_fd;
mod sys;
pub mod transparent;
pub mod truncate;
pub mod tun;
pub mod unread;

pub use signal_fd::{SignalFd, unblock_all};
