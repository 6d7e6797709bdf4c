//! gRPC over a connection that the other side opened: the client of a build is the server of its session.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;

/// What one stream and all streams may have on their way before they are read, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A byte stream that carries HTTP/2.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// Sends calls over one connection. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    send: http2::SendRequest<Body>,
}

impl Caller {
    /// Begins HTTP/2 as its client; the future drives the connection and ends with it.
    pub async fn connect(
        transport: impl Transport,
    ) -> hyper::Result<(Self, impl Future<Output = hyper::Result<()>> + Send)> {
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(transport))
            .await?;
        Ok((Self { send }, connection))
    }

    /// The address in calls, which nobody reads.
    pub fn origin() -> Uri {
        Uri::from_static("http://session")
    }
}

impl tower_service::Service<Request<Body>> for Caller {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}
