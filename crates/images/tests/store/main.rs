//! The store from outside: real registries on loopback, archives, kills, hostile contents.
#![forbid(unsafe_code)]

mod auth;
mod bombs;
mod content;
mod crash;
mod hostile;
mod lies;
mod load;
mod outside;
mod proxy;
mod pull;
mod push;
mod registry;
mod remote;
mod remove;
mod server;
mod throughput;
mod trouble;
mod workspace;
