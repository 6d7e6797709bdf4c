//! The engine's own calls.

use async_trait::async_trait;
use futures_util::StreamExt;
use skiff_docker_api::Result;
use skiff_docker_api::backend::{DiskUsage, DiskUsageKinds, EventStream, EventsOptions, System};
use skiff_docker_api::models::{SystemInfo, SystemVersion};

use super::Adapter;
use super::convert::{self, OrApiError};

#[async_trait]
impl System for Adapter {
    async fn version(&self) -> Result<SystemVersion> {
        self.0.version().await.or_api()
    }

    async fn info(&self) -> Result<SystemInfo> {
        self.0.info().await.or_api()
    }

    async fn events(&self, options: EventsOptions) -> Result<EventStream> {
        let options = skiff_engine::EventOptions {
            since: options.since.map(convert::nanoseconds),
            until: options.until.map(convert::nanoseconds),
            filters: convert::filters(&options.filters),
        };
        let events = self.0.events(options).or_api()?;
        Ok(Box::pin(events.map(|event| event.map(Into::into).or_api())))
    }

    async fn disk_usage(&self, kinds: DiskUsageKinds) -> Result<DiskUsage> {
        let build_cache = match kinds.build_cache {
            true => Some(self.build_cache().await?),
            false => None,
        };
        let kinds = skiff_engine::DiskUsageKinds {
            containers: kinds.containers,
            images: kinds.images,
            volumes: kinds.volumes,
        };
        let usage = self.0.disk_usage(kinds).await.or_api()?;
        Ok(DiskUsage {
            layers_size: usage.layers_size,
            images: usage.images,
            containers: usage.containers,
            volumes: usage.volumes,
            build_cache,
        })
    }
}
