//! The engine itself.

use std::pin::Pin;

use async_trait::async_trait;
use bollard_stubs::models::{
    ContainerSummary, EventMessage, ImageSummary, SystemInfo, SystemVersion, Volume,
};
use futures_util::Stream;

use super::UnixTime;
use crate::error::Result;
use crate::filters::Filters;

/// Events in order, past ones first; an error ends the stream.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<EventMessage>> + Send>>;

/// Which events `GET /events` asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventsOptions {
    /// Past events from this time on; without it only new ones.
    pub since: Option<UnixTime>,
    /// The stream ends at this time.
    pub until: Option<UnixTime>,
    /// Any of `config container daemon event image label network node plugin scope secret service type volume`.
    pub filters: Filters,
}

/// Which parts of the disk usage are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsageKinds {
    /// Containers.
    pub containers: bool,
    /// Images.
    pub images: bool,
    /// Volumes.
    pub volumes: bool,
    /// Build cache.
    pub build_cache: bool,
}

/// What lies on the data disk.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Bytes of all image layers, shared ones counted once.
    pub layers_size: i64,
    /// Images, with `containers` and `shared_size` set; `None` when not asked for.
    pub images: Option<Vec<ImageSummary>>,
    /// Containers, with sizes; `None` when not asked for.
    pub containers: Option<Vec<ContainerSummary>>,
    /// Volumes, with usage data; `None` when not asked for.
    pub volumes: Option<Vec<Volume>>,
    /// The build cache; `None` when not asked for.
    pub build_cache: Option<Vec<super::BuildCacheRecord>>,
}

/// The engine's own calls.
#[async_trait]
pub trait System: Send + Sync + 'static {
    /// Answers `GET /version`; API versions are filled in by the server.
    async fn version(&self) -> Result<SystemVersion>;

    /// Answers `GET /info`.
    async fn info(&self) -> Result<SystemInfo>;

    /// Subscribes to events.
    async fn events(&self, options: EventsOptions) -> Result<EventStream>;

    /// Measures the data disk (`GET /system/df`).
    async fn disk_usage(&self, kinds: DiskUsageKinds) -> Result<DiskUsage>;
}
