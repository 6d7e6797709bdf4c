//! The parent of every container: reaps, remembers exit statuses, keeps descriptors.
//!
//! One small single-threaded process (PID 1 in the guest, `skiff-agent serve` on a plain Linux host) starts the
//! engine and the link router and restarts them when they die. The engine clones containers with `CLONE_PARENT`, so
//! that they are children of this process and outlive the engine.
//!
//! ```text
//!            supervisor ──────────────┐ parent of
//!             │  ▲   │                ▼
//!     notices │  │   │ spawns     containers
//!   (exit,    ▼  │   ▼                ▲
//!    stop)   engine ──────────────────┘ clones (CLONE_PARENT), then `adopt`
//! ```
//!
//! The engine holds two `SOCK_SEQPACKET` sockets to the supervisor: *requests* (one question, one answer) and
//! *notices* (exits, the wish to stop). Both die with the engine; the [`table::Table`] does not. A restarted engine
//! asks for the [`protocol::Entry`] list, fetches the descriptors back and goes on where the dead one stopped.
//!
//! The supervisor parses nothing that comes from outside: its only peer is the engine, which it started itself.

#![forbid(unsafe_code)]

mod client;
pub mod protocol;
mod server;
mod service;
pub mod table;

pub use client::Client;
pub use protocol::{Entry, Error, ExitStatus};
pub use server::{Outcome, Server, ServerConfig};
pub use service::Service;

/// The environment variable that tells the engine its two sockets: `<requests>,<notices>` as descriptor numbers.
pub const FD_VARIABLE: &str = "SKIFF_SUPERVISOR_FD";
