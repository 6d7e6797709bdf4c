//! BuildKit's doors.

use async_trait::async_trait;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use skiff_build::Code;
use skiff_buildkit::session::Offer;
use skiff_buildkit::{ClassicBuild, Line};
use skiff_docker_api::backend::{
    BodyReader, BuildKit, BuildKitBuild, GrpcBody, Progress, ProgressStream, SessionOffer, TakeConnection,
};
use skiff_docker_api::{ApiError, Result};

use super::Adapter;

#[async_trait]
impl BuildKit for Adapter {
    async fn grpc(&self, request: Request<GrpcBody>) -> Response<GrpcBody> {
        self.1.grpc(request).await.map(|body| body.map_err(Into::into).boxed_unsync())
    }

    fn open_session(&self, offer: SessionOffer) -> Result<TakeConnection> {
        let SessionOffer { id, shared_key, methods } = offer;
        let offer = Offer { id, shared_key, methods };
        let place =
            self.1.sessions().reserve(&offer).map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(Box::new(move |connection| {
            Box::pin(async move {
                if let Err(error) = place.serve(offer, connection).await {
                    tracing::debug!(%error, "session failed");
                }
            })
        }))
    }

    async fn build(&self, request: BuildKitBuild, context: BodyReader) -> Result<ProgressStream> {
        let quiet = request.quiet;
        let request = ClassicBuild {
            id: request.id,
            session: request.session,
            remote: request.remote,
            dockerfile: request.dockerfile,
            target: request.target,
            tags: request.tags,
            build_args: request.build_args,
            labels: request.labels,
            cache_from: request.cache_from,
            no_cache: request.no_cache,
            pull: request.pull,
            platform: request.platform,
            network: request.network,
            extra_hosts: request.extra_hosts,
            shm_size: request.shm_size,
            ulimits: request.ulimits.into_iter().map(|limit| (limit.name, limit.soft, limit.hard)).collect(),
            outputs: request
                .outputs
                .into_iter()
                .map(|output| (output.kind, output.attrs.unwrap_or_default().into_iter().collect()))
                .collect(),
        };
        let lines = self.1.build(request, context).await.map_err(api_error)?;
        let lines = lines.filter_map(move |line| {
            std::future::ready(match line {
                Ok(Line::Trace(_)) if quiet => None,
                Ok(Line::Trace(text)) => Some(Ok(Progress {
                    id: Some("moby.buildkit.trace".to_owned()),
                    aux: Some(text.into()),
                    ..Progress::default()
                })),
                // What `docker build -q` prints, and nothing else.
                Ok(Line::Image(id)) if quiet => Some(Ok(Progress::stream(format!("{id}\n")))),
                Ok(Line::Image(id)) => Some(Ok(Progress {
                    id: Some("moby.image.id".to_owned()),
                    aux: Some(serde_json::json!({ "ID": id })),
                    ..Progress::default()
                })),
                Err(error) => Some(Err(api_error(error))),
            })
        });
        Ok(lines.boxed())
    }

    async fn cancel_build(&self, id: &str) -> Result<()> {
        self.1.cancel_build(id);
        Ok(())
    }
}

pub(super) fn api_error(error: skiff_build::Error) -> ApiError {
    let message = error.to_string();
    match error.code() {
        Code::InvalidArgument => ApiError::bad_request(message),
        Code::NotFound => ApiError::not_found(message),
        Code::Denied => ApiError::forbidden(message),
        Code::Unavailable => ApiError::unavailable(message),
        _ => ApiError::internal(message),
    }
}
