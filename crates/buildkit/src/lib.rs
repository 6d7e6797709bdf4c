//! BuildKit's protocol: sessions, file transfer, Control and LLBBridge over gRPC.
//!
//! ```text
//!   POST /session, Control.Session ──► session: the client's files, secrets, agents, logins
//!   POST /grpc, h2c ──► control: Solve, Status, …  ──► builds ──► solve ──► export
//!                  └──► bridge: the client drives  ──► gateway ─┘
//!   POST /build?version=2 ──► classic ─────────────────────────┘
//! ```
//! The crate knows no socket: whoever has one hands over connections and gRPC requests. Graphs, cache and files are
//! `skiff_build`'s; this is how clients get at them.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod bridge;
mod builds;
mod caps;
mod classic;
mod content;
mod control;
mod export;
mod fault;
mod fsutil;
mod gateway;
mod history;
mod service;
pub mod session;
mod shown;
mod solve;
mod status;
#[cfg(test)]
mod tests;

pub use classic::{Body, ClassicBuild, Line, Lines};
pub use history::{PastBuild, Tale, Told};
pub use service::{BuildKit, Config, OnImage};
