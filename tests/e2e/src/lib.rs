//! End-to-end scenarios, the same for every backend.
//!
//! A scenario is a function over a [`Subject`]: a running engine, a docker CLI pointed at it, and a registry. One test
//! per backend runs all of them against one engine, so that a guest boots once; [`run_all`] reports each by name and
//! fails at the end with every failure. `SKIFF_SCENARIO=text` picks the scenarios whose name contains the text.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod chance;
pub mod clients;
pub mod crash;
pub mod name_server;
pub mod outside;
pub mod probe;
pub mod runner;
pub mod scenarios;
pub mod subject;

pub use chance::Chance;
pub use runner::{Scenario, run_all};
pub use subject::Subject;
