//! Containers that really run: a busybox in a temporary directory, as root.

mod exec;
mod files;
mod isolation;
mod lifecycle;
mod setup;
mod terminal;
