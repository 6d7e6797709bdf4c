//! From instructions to the graph.
//!
//! ```text
//! text ─ parse ─► nodes ─ instruction ─► stages ─ resolve ─► bases, triggers ─ dispatch ─► draft ─► definition
//! ```
//! Stages that the target does not need are read and checked, but neither resolved nor run.

mod arguments;
mod context;
mod convert;
mod copy;
mod dispatch;
mod draft;
mod expose;
mod go;
mod image;
mod lint;
mod names;
mod resolve;
mod run;
mod stage;

pub use context::{Differ, IGNORE_FILE, http_source, local_source, read_source};
pub use convert::{Converted, Input, MainContext, StepNote, convert};
pub use draft::{Draft, Out, Vertex};
