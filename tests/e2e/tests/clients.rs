//! Real clients in containers, against an engine on this host and one in a guest.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use skiff_e2e::{Subject, clients, run_all};

#[test]
fn clients_in_containers_of_a_native_engine_work() {
    let subject = Subject::serve().unwrap_or_else(|error| panic!("{error:#}"));
    run_all(&subject, &clients::all());
}

#[test]
fn clients_in_containers_of_a_guest_work() {
    let subject = Subject::guest_with_settings(clients::settings).unwrap_or_else(|error| panic!("{error:#}"));
    run_all(&subject, &clients::all());
}
