//! The sessions that are open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

use super::{Offer, Session, Transport};

/// How long a build waits for the session that it names: both are opened at the same time.
const WAIT: Duration = Duration::from_secs(5);
/// More sessions than any machine builds for.
const LIMIT: usize = 1024;

/// Why there is no session.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Another one has that id.
    #[error("session {id} already exists")]
    Exists {
        /// The id.
        id: String,
    },
    /// No id, or one that can't be.
    #[error("invalid session id {id:?}")]
    Invalid {
        /// The id.
        id: String,
    },
    /// There are too many.
    #[error("too many sessions")]
    TooMany,
    /// None of that id has come.
    #[error("no active session for {id}: context deadline exceeded")]
    Absent {
        /// The id.
        id: String,
    },
    /// The connection failed before it began.
    #[error("begin session: {0}")]
    Connection(hyper::Error),
}

/// Sessions by id; one that is about to begin has a place already.
type Table = HashMap<String, Option<Arc<Session>>>;

/// All open sessions. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    table: Arc<Mutex<Table>>,
    /// Counts openings, for those who wait for one.
    opened: Arc<watch::Sender<u64>>,
}

impl Sessions {
    /// Serves a session on a connection until either side ends it.
    ///
    /// # Errors
    /// As [`Sessions::reserve`]; a connection that breaks before it begins.
    pub async fn serve(&self, offer: Offer, transport: impl Transport) -> Result<(), SessionError> {
        let place = self.reserve(&offer)?;
        place.serve(offer, transport).await
    }

    /// Takes the place of a session before its connection is there.
    ///
    /// # Errors
    /// For an id that is taken or makes no sense.
    pub fn reserve(&self, offer: &Offer) -> Result<Place, SessionError> {
        let id = offer.id.clone();
        if id.is_empty() || id.len() > 256 || id.chars().any(char::is_control) {
            return Err(SessionError::Invalid { id });
        }
        let mut table = self.table();
        if table.contains_key(&id) {
            return Err(SessionError::Exists { id });
        }
        if table.len() >= LIMIT {
            return Err(SessionError::TooMany);
        }
        table.insert(id.clone(), None);
        Ok(Place { sessions: self.clone(), id })
    }

    /// Finds a session; waits a little for it.
    ///
    /// # Errors
    /// When it doesn't come.
    pub async fn get(&self, id: &str) -> Result<Arc<Session>, SessionError> {
        // Some clients say which of their sessions they mean with a prefix.
        let id = id.rsplit_once(':').map_or(id, |(_, id)| id);
        let absent = || SessionError::Absent { id: id.to_owned() };
        if id.is_empty() {
            return Err(absent());
        }
        let mut opened = self.opened.subscribe();
        let found = async {
            loop {
                let session = self.table().get(id).cloned().flatten();
                match session {
                    Some(session) => return Some(session),
                    None => opened.changed().await.ok()?,
                }
            }
        };
        tokio::time::timeout(WAIT, found).await.ok().flatten().ok_or_else(absent)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A taken id, free again when this goes.
#[derive(Debug)]
pub struct Place {
    sessions: Sessions,
    id: String,
}

impl Place {
    /// Serves the session until either side ends it.
    ///
    /// # Errors
    /// When the connection breaks before it begins.
    pub async fn serve(self, offer: Offer, transport: impl Transport) -> Result<(), SessionError> {
        let (session, drive) = Session::begin(offer, transport).await.map_err(SessionError::Connection)?;
        tracing::debug!(session = self.id, "session opened");
        self.sessions.table().insert(self.id.clone(), Some(session));
        self.sessions.opened.send_modify(|count| *count += 1);
        drive.await;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.table().remove(&self.id);
    }
}
