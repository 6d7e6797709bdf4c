//! Build checks: the rules of BuildKit's linter, by its names and in its words.

mod linter;
mod rule;

pub use linter::{Linter, Options, Warning};
pub use rule::Rule;
