//! Virtual machine backends behind one trait.
//!
//! A [`Backend`] turns a [`GuestConfig`] into a running [`Guest`]: QEMU boots the guest image, `native` runs the
//! agent on this very host. Who decides *when* a guest runs is not here; see the `machine` crate.
//!
//! Both backends start a process that outlives this one: a daemon that was killed finds its guest again by
//! [`Backend::adopt`].

#![forbid(unsafe_code)]

mod console;
mod endpoint;
mod error;
mod guest;
pub mod native;
mod process;
pub mod qemu;
mod record;
mod saved;

pub use console::{Console, read_tail};
pub use endpoint::{ByteStream, Endpoint};
pub use error::{Error, Evidence, Result, Stage};
pub use guest::{
    Accelerator, Backend, Description, Exit, ExitReason, Guest, GuestConfig, Progress, Step, Transport,
};
pub use process::{Identity, Process, ProcessExit};
pub use saved::{Key, Restore};
