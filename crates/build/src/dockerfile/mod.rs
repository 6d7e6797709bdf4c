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

/// Says which of how many instructions is on a line, and what it says; nothing for a file that can't be read.
pub(crate) fn count_instructions(text: &str, line: u32) -> Option<(usize, usize, String)> {
    let nodes = parse::parse(text).ok()?.nodes;
    let at = nodes.iter().position(|node| (node.lines.start..=node.lines.end).contains(&line))?;
    Some((at + 1, nodes.len(), nodes[at].original.clone()))
}

#[cfg(test)]
mod tests;
