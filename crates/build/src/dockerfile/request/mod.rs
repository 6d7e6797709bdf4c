//! What clients ask the frontend for.

mod answer;
mod git;
mod settings;

pub use answer::{LintReport, describe, lint, outline, targets};
pub use git::GitRef;
pub use settings::Settings;
