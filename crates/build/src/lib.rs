//! Build: the graph, its solver and cache, the Dockerfile language, BuildKit's protocol.
//!
//! ```text
//!  POST /build ────────┐        ┌─ dockerfile: text ─► graph
//!  /build?version=2 ───┼─► Job ─┤
//!  /grpc (buildx) ─────┘        └─ solver: graph ─► snapshots ─► export (image, files, archives)
//!                                    │  ├ sources: image, local, git, http
//!                                    │  ├ files:   copy, mkdir, mkfile, rm, symlink; escape-proof
//!                                    │  └ steps:   run by the engine ([`StepRunner`])
//!                                    └─ cache: results by the content of what they were made from
//! ```
//! One language joins all of it: LLB, the graph of BuildKit, as its own protobuf messages ([`graph::pb`]). A vertex is a
//! marshalled `pb.Op` and is known by the digest of those bytes, so definitions of clients and those that the Dockerfile
//! frontend makes are the same thing.
//!
//! Who gives what: a door (classic, session, gRPC) makes a [`Client`] of what its client offers (contexts, secrets, ssh
//! agents, registry credentials) and a [`Progress`] sink, begins a [`Job`] with them, lets a frontend or the client solve
//! definitions in it ([`Job::solve`]), and exports the [`BuildResult`].
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod classic;
mod client;
pub mod dockerfile;
mod error;
pub mod export;
mod files;
mod frontend;
mod git;
pub mod graph;
mod progress;
mod solver;
mod step;

pub use client::{
    Client, ContextEntry, ContextSink, Contexts, Credentials, EntryKind, LocalRequest, NoClient, Secrets,
    Ssh, Stores, Wanted,
};
pub use error::{Code, Error, Location, Result};
pub use frontend::{BuildResult, FrontendRequest, IMAGE_CONFIG_KEY, Refs, ResolveMode, ResolvedImage};
pub use progress::{Event, Progress, Silent, now, timestamp};
pub use solver::{
    CacheImport, Config, DirEntry, Entitlement, Job, JobOptions, Limits, Material, Mounted, PruneOptions,
    Ref, Solver, UsageRecord,
};
pub use step::{Bind, Network, Output, Step, StepMount, StepRunner, Tmpfs, Writer};
