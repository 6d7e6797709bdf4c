//! Every scenario against every backend.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use skiff_e2e::{Subject, run_all, scenarios};
use skiff_testkit::Backend;

#[test]
fn native_engine_passes_every_scenario() {
    let subject = Subject::serve().unwrap_or_else(|error| panic!("{error:#}"));
    run_all(&subject, &scenarios::all());
}

#[test]
fn native_daemon_passes_every_scenario() {
    let subject = Subject::daemon(Backend::Native).unwrap_or_else(|error| panic!("{error:#}"));
    run_all(&subject, &scenarios::all());
}

#[test]
fn guest_in_qemu_passes_every_scenario() {
    let subject = Subject::daemon(Backend::Qemu).unwrap_or_else(|error| panic!("{error:#}"));
    run_all(&subject, &scenarios::all());
}
