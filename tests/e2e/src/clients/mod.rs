//! Real clients of networks in containers of a real distribution: package managers, version control, databases.

mod builds;
mod databases;
mod debian;
mod machine;
mod names;
mod packages;
mod servers;
mod web;

use std::time::Duration;

use crate::{Scenario, Subject};

/// Every scenario, in the order in which they build on each other.
pub fn all() -> Vec<Scenario> {
    [packages::ALL, builds::ALL, names::ALL, servers::ALL, databases::ALL].concat()
}

/// The settings of a daemon whose guest sees this machine's Rust, too large to be put into an image.
pub fn settings(names_port: u16) -> String {
    let sysroot = machine::sysroot().map(|path| path.display().to_string());
    let shared: Vec<String> = sysroot.into_iter().collect();
    serde_json::json!({"files": {"read_only": shared}, "names": {"port": names_port}}).to_string()
}

/// How long a client may take that a person would wait for.
fn patience(on: &Subject) -> Duration {
    on.patience(150)
}

/// Says why something was not tried, in the report's form.
fn skipped(reason: &str) {
    eprintln!("       skipped: {reason}");
}
