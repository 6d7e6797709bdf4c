//! The server behind this machine's own FUSE: what programs see on a mount, and what of it is on the host.
//!
//! Needs root and `/dev/fuse`.
#![cfg(target_os = "linux")]

mod coherence;
mod harness;
mod posix;
mod random;
