//! What tests share: images, registries, the docker CLI, running engines.
//!
//! Everything is blocking and cleans up after itself when dropped, also on panic. Nothing outside loopback is contacted.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod binaries;
pub mod cli;
pub mod daemon;
pub mod engine;
pub mod http;
pub mod image;
pub mod leftovers;
pub mod nftables;
pub mod process;
pub mod proxy;
pub mod pty;
pub mod registry;
pub mod wait;
pub mod webdriver;

pub use cli::DockerCli;
pub use daemon::{Backend, DaemonUnderTest};
pub use engine::NativeEngine;
pub use image::{Image, Layer};
pub use leftovers::Leftovers;
pub use process::{Finished, Program, Running};
pub use proxy::CuttingProxy;
pub use pty::PtySession;
pub use registry::Registry;
pub use wait::{free_port, wait_until};
