//! The Docker Engine API, as this program speaks it.
//!
//! One small client on hyper: answers stay the JSON the engine sent (`inspect` prints them as they are), and
//! attached streams are the socket itself, so that half-close and the last bytes are ours to see to.

pub mod client;
pub mod endpoint;
pub mod frames;
pub mod hijack;
pub mod query;

pub use client::Client;
pub use endpoint::Endpoint;
pub use query::Query;
