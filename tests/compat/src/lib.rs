//! Other people's test suites the docker CLI's flags and projects of compose, run against our socket and, where the machine allows it, against
//! Debian's dockerd in the same run. What passes there has to pass here, or be in `exceptions.txt` with its reason.
#![forbid(unsafe_code)]

pub mod bollard;
pub mod clients;
pub mod compose;
pub mod docker_py;
mod exceptions;
pub mod flags;
pub mod fuzz;
mod images;
mod outcome;
mod reference;

use std::path::{Path, PathBuf};

pub use exceptions::Exceptions;
pub use reference::Reference;

/// The root of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."))
}

/// Where what is fetched is kept between runs.
fn store() -> PathBuf {
    workspace().join("target/compat")
}
