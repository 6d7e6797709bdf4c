//! Sessions: what the client of a build offers, for as long as its connection lasts.
//!
//! ```text
//!  POST /session ─► 101 ─┐
//!                        ├─► Transport ─► Caller (HTTP/2 client) ─► FileSync, FileSend, Auth, Secrets, SSH, Upload
//!  Control.Session ──────┘        │
//!                            health checks; the session ends with its connection
//! ```
//! The roles flip: the client opened the connection, and is the gRPC server on it.

mod auth;
mod caller;
mod files;
mod offer;
mod secrets;
mod ssh;
mod stores;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use tokio::sync::watch;

pub(crate) use caller::Caller;
pub use caller::Transport;
pub use offer::Offer;
pub use table::{SessionError, Sessions};

pub(crate) use offer::SessionClient;

/// How often a client is asked whether it is there, and how long it may take to say so.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(15);
/// Unanswered questions in a row that make a client dead.
const HEALTH_FAILURES: u32 = 6;

/// As large as BuildKit lets a message be, in bytes.
pub(crate) const MESSAGE_LIMIT: usize = 16 << 20;

/// A client's session.
#[derive(Debug)]
pub struct Session {
    offer: Offer,
    methods: HashSet<String>,
    caller: Caller,
    ended: watch::Receiver<bool>,
}

impl Session {
    /// Begins a session on a connection; the future lasts as long as the session, and drives it.
    async fn begin(
        offer: Offer,
        transport: impl Transport,
    ) -> hyper::Result<(Arc<Self>, impl Future<Output = ()> + Send)> {
        let (caller, connection) = Caller::connect(transport).await?;
        let (end, ended) = watch::channel(false);
        let methods: HashSet<String> =
            offer.methods.iter().map(|method| method.to_ascii_lowercase()).collect();
        let checked = methods.contains("/grpc.health.v1.health/check");
        let id = offer.id.clone();
        let session = Arc::new(Self { offer, methods, caller: caller.clone(), ended });
        let drive = async move {
            tokio::select! {
                result = connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, session = id, "session's connection broke");
                    }
                }
                () = watch_health(caller), if checked => {
                    tracing::debug!(session = id, "session's client does not answer");
                }
            }
            let _ = end.send(true);
        };
        Ok((session, drive))
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.offer.id
    }

    /// What tells its directories apart from those of other clients.
    pub(crate) fn shared_key(&self) -> &str {
        &self.offer.shared_key
    }

    /// Whether the client serves a method (`/moby.filesync.v1.FileSync/DiffCopy`).
    pub fn supports(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// Ends when the session does.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// A call's outcome, or the session's end: a call on a dead connection would hang.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, tonic::Status>> + Send,
    ) -> Result<T, tonic::Status> {
        tokio::select! {
            result = call => result,
            () = self.ended() => Err(tonic::Status::unavailable(format!("session {} closed", self.offer.id))),
        }
    }
}

/// Ends when the client doesn't answer any more.
async fn watch_health(caller: Caller) {
    let mut client = HealthClient::with_origin(caller, Caller::origin());
    let mut failures = 0;
    while failures < HEALTH_FAILURES {
        tokio::time::sleep(HEALTH_INTERVAL).await;
        let check = client.check(HealthCheckRequest { service: String::new() });
        match tokio::time::timeout(HEALTH_TIMEOUT, check).await {
            Ok(Ok(_)) => failures = 0,
            Ok(Err(_)) | Err(_) => failures += 1,
        }
    }
}
