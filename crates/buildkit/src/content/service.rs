//! The service over the blobs of the build history.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::messages::{Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse};
use crate::history::History;

/// As much as one message has, in bytes.
const CHUNK: usize = 1 << 20;

type Reply<T> = Result<tonic::Response<T>, tonic::Status>;

/// See the module's text.
#[derive(Debug, Clone)]
pub(crate) struct ContentServer(pub History);

impl NamedService for ContentServer {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

impl ContentServer {
    fn find(&self, digest: &str) -> Result<crate::history::Blob, tonic::Status> {
        self.0.blob(digest).ok_or_else(|| tonic::Status::not_found(format!("content {digest}: not found")))
    }
}

impl Service<Request<Body>> for ContentServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            Ok(match method {
                "Info" => Grpc::new(ProstCodec::default()).unary(About(service), request).await,
                "Read" => Grpc::new(ProstCodec::default()).server_streaming(Read(service), request).await,
                // What is kept here is written by builds alone.
                other => {
                    tonic::Status::unimplemented(format!("unknown method {other} for service {}", Self::NAME))
                        .into_http()
                }
            })
        })
    }
}

struct About(ContentServer);

impl UnaryService<InfoRequest> for About {
    type Response = InfoResponse;
    type Future = BoxFuture<'static, Reply<InfoResponse>>;

    fn call(&mut self, request: tonic::Request<InfoRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let digest = request.into_inner().digest;
            let size = i64::try_from(service.find(&digest)?.size).unwrap_or(i64::MAX);
            let at = Some(Timestamp::default());
            let info = Info { digest, size, created_at: at, updated_at: at, ..Info::default() };
            Ok(tonic::Response::new(InfoResponse { info: Some(info) }))
        })
    }
}

struct Read(ContentServer);

type Chunks = Pin<Box<dyn Stream<Item = Result<ReadContentResponse, tonic::Status>> + Send>>;

impl ServerStreamingService<ReadContentRequest> for Read {
    type Response = ReadContentResponse;
    type ResponseStream = Chunks;
    type Future = BoxFuture<'static, Reply<Chunks>>;

    fn call(&mut self, request: tonic::Request<ReadContentRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let ReadContentRequest { digest, offset, size } = request.into_inner();
            let blob = service.find(&digest)?;
            let offset = u64::try_from(offset)
                .map_err(|_| tonic::Status::out_of_range("read past object length 0 bytes"))?;
            if offset > blob.size {
                return Err(tonic::Status::out_of_range(format!(
                    "read past object length {} bytes",
                    blob.size
                )));
            }
            // 0 is all of it.
            let left =
                u64::try_from(size).ok().filter(|size| *size > 0).unwrap_or(u64::MAX).min(blob.size - offset);
            let failed =
                move |error: std::io::Error| tonic::Status::internal(format!("read {digest}: {error}"));
            let mut file = tokio::fs::File::open(&blob.path).await.map_err(&failed)?;
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(&failed)?;
            let pieces = tokio_util::io::ReaderStream::with_capacity(file.take(left), CHUNK);
            let mut at = i64::try_from(offset).unwrap_or(i64::MAX);
            let chunks = pieces.map(move |piece| {
                let data = piece.map_err(&failed)?.to_vec();
                let response = ReadContentResponse { offset: at, data };
                at += i64::try_from(response.data.len()).unwrap_or(0);
                Ok(response)
            });
            Ok(tonic::Response::new(Box::pin(chunks) as Chunks))
        })
    }
}
