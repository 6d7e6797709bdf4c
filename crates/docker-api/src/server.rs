//! The server: a backend behind a socket.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::connection::{self, Connection};

/// How long to wait after a failed accept, which means no free descriptors: more of the same until some close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the Docker Engine API for a backend. Clones share the backend.
#[derive(Clone)]
pub struct Server {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) identity: HeaderValue,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Server {
    /// Makes a server; `engine_version` is shown in the `Server` header (`Docker/28.5.2 (linux)`).
    ///
    /// # Panics
    /// When `engine_version` has characters that a header may not have.
    pub fn new(backend: Arc<dyn Backend>, engine_version: &str) -> Self {
        let identity = format!("Docker/{engine_version} (linux)");
        let identity = HeaderValue::try_from(identity).expect("an engine version is plain ASCII");
        Self { backend, identity }
    }

    /// Accepts and serves connections until `shutdown` ends; requests under way are dropped then.
    pub async fn serve(&self, listener: UnixListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(self.clone().serve_connection(stream));
                        // Who came first is heard first: without this the runtime would begin with the youngest of those
                        // that arrive together, and a client's `events` would miss what its next request does.
                        tokio::task::yield_now().await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Serves one connection until its end. A hijacked one lives on in a task of its own.
    pub async fn serve_connection<C: Connection>(self, connection: C) {
        if let Err(error) = connection::serve(self, connection).await {
            tracing::debug!(%error, "connection ended");
        }
    }
}
