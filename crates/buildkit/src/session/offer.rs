//! What a client says about its session, and the session as the solver sees it.

use std::sync::Arc;

use skiff_build::Client;

use super::{Session, Sessions};

/// What a client says when it opens a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Its id (`X-Docker-Expose-Session-Uuid`).
    pub id: String,
    /// What tells its directories apart from those of other clients (`X-Docker-Expose-Session-Sharedkey`).
    pub shared_key: String,
    /// The methods that it serves (`X-Docker-Expose-Session-Grpc-Method`).
    pub methods: Vec<String>,
}

/// The client of a build whose offers are found in its session.
///
/// The session is looked up with each call: it may come a little after the build, and a named context may be another
/// session's.
#[derive(Debug, Clone)]
pub(crate) struct SessionClient {
    pub sessions: Sessions,
    /// The build's session; empty: it has none.
    pub id: String,
}

impl SessionClient {
    /// The client as the solver takes it.
    pub fn into_client(self) -> Client {
        let this = Arc::new(self);
        Client {
            contexts: this.clone(),
            secrets: this.clone(),
            ssh: this.clone(),
            credentials: this.clone(),
            stores: this,
        }
    }

    /// The build's session, or another one by name.
    pub async fn session(&self, other: &str) -> skiff_build::Result<Arc<Session>> {
        let id = if other.is_empty() { &self.id } else { other };
        self.sessions.get(id).await.map_err(|error| skiff_build::Error::unavailable(error.to_string()))
    }
}
