//! A FUSE server for shared directories of the host, on requests that come as frames.
//!
//! [`Shares`] says which directories a user shares and which of them holds a path. [`serve`] serves one mount of the guest
//! on a stream of FUSE messages: requests in, answers and notices out. The guest is not trusted: it knows objects only
//! by numbers that it was given, each name is a single component of a directory that it has, and what it can make this
//! side hold is bounded.
//!
//! Caches of the guest live long, because the host's watcher reports every change; see `coherence` for how, and
//! `server::ghost` for how programs in containers get to see changes that were made on the host.

//! What is the host's is in [`host`], one file per operating system. So far that is Linux: elsewhere this crate is empty, and
//! the daemon shares nothing.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod abi;
mod coherence;
mod drain;
pub mod errno;
mod handles;
pub mod host;
mod journal;
mod nodes;
mod opened;
mod owner;
mod server;
mod session;
mod share;

pub use server::{Access, Server};
pub use session::{Attached, Error, Mount, attached, serve, settle};
pub use share::{Denied, Located, Share, Shares};
