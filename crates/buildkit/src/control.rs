//! `moby.buildkit.v1.Control`: builds, their progress, the cache.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control as Service;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse,
    StatusRequest, StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use futures_util::{Stream, StreamExt};
use skiff_build::{PruneOptions, timestamp};
use tokio::io::AsyncWriteExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use crate::fault;
use crate::service::{Inner, version};
use crate::session::Offer;

/// What a session in a stream of messages may have on its way, in bytes.
const PIPE: usize = 256 << 10;
const CHUNK: usize = 32 << 10;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// See the module's text.
pub(crate) struct Control(pub Arc<Inner>);

impl Control {
    /// What a build of the history has told, unless it (or a new one of its name) can be listened to.
    async fn told(&self, name: &str) -> Option<Vec<StatusResponse>> {
        if self.0.builds.find(name).is_some() {
            return None;
        }
        let (history, name) = (self.0.history.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || history.told(&name)).await.ok().flatten()
    }
}

#[async_trait]
impl Service for Control {
    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let prepared = self.0.prepare(request.into_inner().into(), None)?;
        let exporter_response = prepared.run().await?;
        Ok(Response::new(SolveResponse { exporter_response }))
    }

    type StatusStream = Answers<StatusResponse>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let name = request.into_inner().r#ref;
        let mut response: Response<Self::StatusStream> = match self.told(&name).await {
            Some(told) => Response::new(Box::pin(futures_util::stream::iter(told.into_iter().map(Ok)))),
            None => {
                let build = self.0.builds.get(&name).await;
                let build = build.ok_or_else(|| Status::unknown(format!("no such job {name}")))?;
                Response::new(Box::pin(build.status.listen().map(Ok)))
            }
        };
        // Clients correct their clocks by it.
        if let Ok(now) = MetadataValue::try_from(jiff::Timestamp::now().to_string()) {
            response.metadata_mut().insert("buildkit-current-timestamp", now);
        }
        Ok(response)
    }

    type SessionStream = Answers<BytesMessage>;

    /// A session whose bytes are messages of this stream.
    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let offer = offer(request.metadata());
        let place =
            self.0.sessions.reserve(&offer).map_err(|error| Status::already_exists(error.to_string()))?;
        let mut incoming = request.into_inner();
        let (near, far) = tokio::io::duplex(PIPE);
        let (reader, mut writer) = tokio::io::split(near);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if writer.write_all(&message.data).await.is_err() {
                    break;
                }
            }
            let _ = writer.shutdown().await;
        });
        tokio::spawn(async move {
            if let Err(error) = place.serve(offer, far).await {
                tracing::debug!(%error, "session failed");
            }
        });
        let outgoing = ReaderStream::with_capacity(reader, CHUNK).filter_map(async |bytes| {
            let data = bytes.ok()?.to_vec();
            Some(Ok(BytesMessage { data }))
        });
        Ok(Response::new(Box::pin(outgoing)))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse { record: vec![self.0.worker()] }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(version()) }))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let filters = request.into_inner().filter;
        let records = self.0.solver.disk_usage(&filters).await.map_err(|error| fault::status(&error))?;
        Ok(Response::new(DiskUsageResponse { record: records.into_iter().map(usage).collect() }))
    }

    type PruneStream = Answers<UsageRecord>;

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let request = request.into_inner();
        let bytes = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        let options = PruneOptions {
            all: request.all,
            keep_duration: bytes(request.keep_duration).map(Duration::from_nanos),
            keep_bytes: bytes(request.reserved_space),
            max_used: bytes(request.max_used_space),
            min_free: bytes(request.min_free_space),
            filters: request.filter,
        };
        let removed = self.0.solver.prune(options).await.map_err(|error| fault::status(&error))?;
        Ok(Response::new(Box::pin(futures_util::stream::iter(
            removed.into_iter().map(|record| Ok(usage(record))),
        ))))
    }

    type ListenBuildHistoryStream = Answers<BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let events = self.0.history.listen(request.into_inner())?;
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        let (history, request) = (self.0.history.clone(), request.into_inner());
        let updated = tokio::task::spawn_blocking(move || history.update(&request)).await;
        updated.map_err(|error| Status::internal(format!("a worker failed: {error}")))??;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

fn offer(metadata: &MetadataMap) -> Offer {
    let all = |name: &str| -> Vec<String> {
        metadata.get_all(name).iter().filter_map(|value| value.to_str().ok().map(str::to_owned)).collect()
    };
    let first = |name: &str| all(name).into_iter().next().unwrap_or_default();
    Offer {
        id: first("x-docker-expose-session-uuid"),
        shared_key: first("x-docker-expose-session-sharedkey"),
        methods: all("x-docker-expose-session-grpc-method"),
    }
}

fn usage(record: skiff_build::UsageRecord) -> UsageRecord {
    UsageRecord {
        id: record.id,
        mutable: record.mutable,
        in_use: record.in_use,
        size: i64::try_from(record.size).unwrap_or(i64::MAX),
        created_at: Some(timestamp(record.created)),
        last_used_at: record.last_used.map(timestamp),
        usage_count: i64::try_from(record.usage_count).unwrap_or(i64::MAX),
        description: record.description,
        record_type: record.kind,
        shared: record.shared,
        parents: record.parents,
        ..UsageRecord::default()
    }
}
