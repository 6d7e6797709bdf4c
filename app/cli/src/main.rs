//! Runs Linux containers on any desktop: docker-like commands and the host daemon.

fn main() {}
