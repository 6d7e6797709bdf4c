//! The container engine: containers, execs, logs, events and their durable state.
//!
//! ```text
//!   Engine ── registry ── Container ── record (state::Record, in the database)
//!     │                      │   └──── log (files, filled by the pump)
//!     │                      └──────── run (pidfd, stdin, terminal, cgroup, ports) while it runs
//!     ├── files    what others read and write in containers
//!     ├── events   what happened, for whoever listens
//!     ├── networks bridges and their addresses, who may reach whom, names
//!     ├── volumes  the local driver
//!     └── images   skiff_images behind the API's models
//! ```
//!
//! The engine knows no HTTP. Containers are children of the supervisor; the engine can be killed at any instruction,
//! and [`Engine::open`] goes on where the last one stopped: recovery is the normal start path, see `recover`.

#![forbid(unsafe_code)]

mod build;
mod clock;
mod config;
mod container;
mod copy_up;
mod engine;
mod error;
mod events;
mod exec;
mod files;
mod filters;
mod health;
mod images;
mod log;
mod names;
mod network;
mod options;
mod process;
mod publish;
mod recover;
mod registry;
mod signals;
mod sources;
mod spec;
mod state;
mod system;
mod volumes;

pub use build::{BuildCacheRecord, BuildProgress, PruneBuilds, PrunedBuilds};
pub use config::{BridgeNetwork, Config, Egress, PacketFilter};
pub use engine::Engine;
pub use error::{Code, Error, Result};
pub use events::{Actor, Event, EventOptions, EventStream, Kind};
pub use files::{Archive, ByteStream, CommitContainer, ContainerChange, PathStat, PutArchive, VolumeFile};
pub use filters::Filters;
pub use images::{
    ImageDetails, ImageProgress, ImportImage, ListImages, ProgressStream, PullImage, PushImage,
};
pub use log::reader::ChunkStream;
pub use log::{Chunk, Stream};
pub use network::{Forwarder, LocalForwarder, NameServers};
pub use options::{
    AttachOptions, AttachStreams, CreateContainer, InputWriter, ListContainers, Logs, LogsOptions,
    RemoveContainer, StartExec, StatsOptions, StatsStream, StopOptions, TerminalSize, WaitCondition, Waiting,
};
pub use publish::{LocalPublisher, Protocol, PublishError, PublishRequest, PublishedPort, Publisher};
pub use sources::{LocalSources, Source, SourceError, Sources};
pub use system::{DiskUsage, DiskUsageKinds};
