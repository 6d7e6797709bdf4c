//! Trees of files between client and engine: fsutil's protocol, one stream of packets each way.
//!
//! ```text
//!   sender                                 receiver
//!     STAT a ────────────────────────────►  order checked, made or compared with what is there
//!     STAT a/b (file) ───────────────────►  another file than the one at hand?
//!     …                          ◄────────  REQ 1       (the number of its STAT)
//!     DATA 1 … DATA 1 (empty: its end) ──►  written
//!     STAT (nothing: the end) ───────────►
//!                                ◄────────  FIN         all is written
//!     FIN ───────────────────────────────►
//! ```

mod metadata;
mod mode;
mod order;
mod receive;
mod send;

pub(crate) use metadata::put as put_metadata;
pub(crate) use receive::{ReceiveError, receive};
pub(crate) use send::{OnSent, SendError, Shape, send};
