//! What several tests of the link share.
#![allow(dead_code, reason = "each test uses its part")]

pub mod wire;

use skiff_link::Link;
use skiff_link::mux::{Config, Role, connect_halves};
use tokio::net::UnixStream;

/// A configuration with few streams.
pub fn small() -> Config {
    Config { max_streams: 64, backlog: 32, ..Config::default() }
}

/// Both ends of a new link, host first.
pub async fn pair() -> (Link, Link) {
    pair_with(small(), small()).await
}

/// Both ends of a new link with these configurations, host first.
pub async fn pair_with(host: Config, guest: Config) -> (Link, Link) {
    let (a, b) = UnixStream::pair().unwrap();
    let (host_read, host_write) = a.into_split();
    let (guest_read, guest_write) = b.into_split();
    let (host, guest) = tokio::join!(
        connect_halves(host_read, host_write, Role::Host, host),
        connect_halves(guest_read, guest_write, Role::Guest, guest),
    );
    (host.unwrap(), guest.unwrap())
}
