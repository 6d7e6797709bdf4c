//! The engine's API, as an ordinary client: over an `api` stream.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use skiff_link::{Args, Link, OpenError, StreamHeader};
use tokio::time::timeout;

/// Longest accepted answer in bytes.
const ANSWER_LIMIT: usize = 8 << 20;
/// An engine that takes longer has other troubles.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why the engine could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// There is no way to it.
    #[error("cannot reach the engine")]
    Open(#[from] OpenError),
    /// The connection broke.
    #[error("lost the engine in the middle of an answer")]
    Http(#[from] hyper::Error),
    /// The answer was too long, or broke off.
    #[error("cannot read the engine's answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is no JSON.
    #[error("the engine's answer makes no sense")]
    Json(#[from] serde_json::Error),
    /// It said no.
    #[error("the engine answered with status {status}")]
    Status {
        /// The status code.
        status: u16,
    },
    /// There was no answer in time.
    #[error("the engine did not answer within {} s", DEADLINE.as_secs())]
    Deadline,
}

/// The engine behind a link.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    link: Link,
}

impl Api {
    pub(crate) fn new(link: Link) -> Self {
        Self { link }
    }

    /// Asks for one object.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        let ask = async {
            let response = self.open(path).await?;
            let body =
                Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(ApiError::Body)?;
            Ok(serde_json::from_slice(&body.to_bytes())?)
        };
        timeout(DEADLINE, ask).await.map_err(|_| ApiError::Deadline)?
    }

    /// Opens an answer that goes on: its body is read by the caller.
    pub(crate) async fn open(&self, path: &str) -> Result<Response<Incoming>, ApiError> {
        let stream = self.link.open(&StreamHeader { args: Args::Api {} }).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the engine broke");
            }
        });
        let request = Request::get(path)
            .header("Host", "skiff")
            .header("Connection", "close")
            .body(Empty::<Bytes>::new())
            .expect("paths are made here");
        let response = sender.send_request(request).await?;
        match response.status().as_u16() {
            200 => Ok(response),
            status => Err(ApiError::Status { status }),
        }
    }
}
