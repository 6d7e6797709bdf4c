//! The server before a fake backend, over real sockets.

mod archive;
mod buildkit;
mod client;
mod containers;
mod docker_cli;
mod exec;
mod fake;
mod hijack;
mod images;
mod networks;
mod robustness;
mod system;
mod volumes;
