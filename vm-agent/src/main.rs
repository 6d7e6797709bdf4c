//! The agent: supervisor, engine and link router, in the guest or on a Linux host.

fn main() {}
