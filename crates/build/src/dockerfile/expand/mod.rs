//! Variables and their expansion: what the shell would do, as far as BuildKit does it.

mod lex;
mod pattern;
mod variables;

pub use lex::{Expanded, Lex};
pub use variables::Variables;

#[cfg(test)]
mod tests;
