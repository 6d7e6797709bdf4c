//! The host daemon: Docker socket, control socket, and the host's half of every link service.
//!
//! [`daemon::run`] is the daemon, [`control::Client`] is how programs talk to it, and [`spawn::ensure_daemon`] starts
//! it when it is not running. The daemon never reads the Docker API: bytes go to the guest as they came.

#![forbid(unsafe_code)]

mod containers;
pub mod control;
pub mod daemon;
pub mod diagnose;
pub mod docker_context;
pub mod doctor;
mod explain;
pub mod listen;
mod lock;
mod log;
mod names;
mod proxy;
mod service;
pub mod shell;
pub mod spawn;
pub mod ssh_key;

pub use lock::LockError;
