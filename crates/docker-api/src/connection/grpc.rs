//! gRPC: calls over HTTP/2, on an upgraded connection or from its first byte on.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::backend::{Backend, GrpcBody, RawConnection};

/// What one stream and all streams may have on their way before they are read, in bytes.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;
pub(super) const CONNECTION_WINDOW: u32 = 4 << 20;

/// Whether a request is a gRPC call, whatever its path.
pub(super) fn is_call<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2
        && request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a call.
pub(super) async fn answer(backend: &dyn Backend, request: Request<Incoming>) -> Response<GrpcBody> {
    backend.grpc(request.map(|body| body.map_err(Into::into).boxed_unsync())).await
}

/// Serves an upgraded connection.
pub(crate) async fn serve(backend: Arc<dyn Backend>, connection: RawConnection) {
    let service = service_fn(move |request| {
        let backend = backend.clone();
        async move { Ok::<_, Infallible>(answer(&*backend, request).await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(connection), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "gRPC connection ended");
    }
}
