//! DNS messages (RFC 1035), as far as forwarding resolvers look into them.
//!
//! [`Question`] is what a client asks, and writes answers that this product knows itself. Answers of others are passed on
//! as they came; [`answer`] finds out how long they live and what they say. [`Servers`] decides whom to ask.
#![forbid(unsafe_code)]

pub mod answer;
mod message;
mod servers;

pub use message::{Code, Data, Kind, Question, query};
pub use servers::Servers;

/// Bytes of the header of every message.
const HEADER: usize = 12;
