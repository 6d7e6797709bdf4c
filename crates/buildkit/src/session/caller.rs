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

/// What one stream may have on its way before it is read, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all streams. Half of it is what small frames may cost that nobody has read yet (h2 counts up to 256 bytes for
/// each of them, and hangs up beyond): a client tells of 50,000 files in frames of 50 bytes, as fast as a stream's window
/// lets it.
const CONNECTION_WINDOW: u32 = 64 << 20;

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::{Bytes, Frame};
    use hyper::service::service_fn;

    use super::*;

    #[tokio::test]
    async fn many_small_frames_may_wait_to_be_read() {
        const FRAMES: usize = 60_000;
        const FRAME: usize = 24;
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        tokio::spawn(async move {
            let service = service_fn(async |_: Request<Incoming>| {
                let frame =
                    || Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(&[7; FRAME])));
                let frames = futures_util::stream::iter(std::iter::repeat_with(frame).take(FRAMES));
                Ok::<_, std::convert::Infallible>(Response::new(StreamBody::new(frames)))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.serve_connection(TokioIo::new(theirs), service).await
        });
        let (caller, connection) = Caller::connect(ours).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(Caller::origin()).body(Body::empty()).unwrap();
        let response = caller.clone().send.send_request(request).await.unwrap();
        // The window fills with them meanwhile.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let read = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(read.len(), FRAMES * FRAME);
    }
}
