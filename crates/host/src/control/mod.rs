//! The daemon's control socket: JSON lines, one request per connection.
//!
//! The client sends one [`Request`]; the daemon answers with any number of [`Event`]s, of which the last is
//! [`Event::Done`] or [`Event::Error`]. After the `Done` of a [`Request::Shell`] or [`Request::Engine`] the
//! connection carries the bytes of the guest's SSH server or of the engine.

mod client;
pub(crate) mod configuration;
mod logs;
mod message;
pub(crate) mod server;
pub(crate) mod wire;

pub use client::{Client, ClientError, LogRequest};
pub(crate) use message::chain;
pub use message::{
    Configuration, DaemonStatus, Event, Failure, Finding, Grade, GuestStatus, LogSource, MachineState,
    MachineStatus, Progress, Request, Status, Version,
};
