//! The Docker Engine API as a server: routes, models, version negotiation, hijacking.
#![forbid(unsafe_code)]
// The templates of answers are large `json!` values.
#![recursion_limit = "256"]

pub mod backend;
mod body;
mod connection;
mod error;
mod filters;
mod go_json;
mod hijack;
mod query;
mod route;
mod server;
mod shape;
mod version;

pub use bollard_stubs::models;
pub use connection::{Connection, Presence};
pub use error::{ApiError, Result};
pub use filters::Filters;
pub use server::Server;
pub use version::ApiVersion;
