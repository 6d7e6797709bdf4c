//! Values of flags, parsed by Docker's rules. Each parser returns Docker's error text.

pub mod bytes;
pub mod detach_keys;
pub mod device;
pub mod duration;
pub mod environment;
pub mod filter;
pub mod health;
pub mod mount;
pub mod platform;
pub mod port;
pub mod reference;
pub mod restart;
pub mod trust;
pub mod ulimit;
pub mod volume;
