//! Connections that become a container's stdio.
//!
//! ```text
//!  client ── input ──► detach keys? ──► InputWriter        shutdown = the client closed its side
//!  client ◄─ output ── multiplexed? ◄── ChunkStream        end = the connection is closed
//! ```

mod copy;
pub(crate) mod detach;
pub(crate) mod multiplex;
pub(crate) mod websocket;

pub(crate) use copy::run;
