//! The Dockerfile language, as BuildKit's `dockerfile.v0` has it.
//!
//! ```text
//! attributes ─► request ─┐
//! Dockerfile ─► parse ─► instruction ─► lower ─► definition + configuration
//!                            └─ check (build checks) ┘
//! ```
//! [`build`] is the way in for clients of the solver; [`plan`] does the same without running anything.

mod check;
mod expand;
mod fault;
mod frontend;
mod ignore;
mod instruction;
mod lower;
mod parse;
mod request;
mod sources;
mod suggest;

pub use fault::Fault;
pub use fault::excerpt;
pub use frontend::{Build, Plan, PlannedImage, build, plan};
pub use ignore::{Matcher as IgnoreMatcher, clean as clean_path, read as read_ignore_file};
pub use lower::StepNote;
pub(crate) use sources::JobSources;
pub use sources::Sources;

#[cfg(test)]
mod tests;
