//! What the daemon knows of containers: it asks the engine as an ordinary client, over streams of its own.
//!
//! Looking neither wakes a stopped guest nor keeps it awake, and what the engine says is not trusted: answers are bounded,
//! and names go through [`printable`] before they are shown.

mod api;
mod model;
mod watch;

pub(crate) use api::{Api, ApiError};
pub(crate) use model::{Binding, Container, Network, printable};
pub(crate) use watch::Containers;
