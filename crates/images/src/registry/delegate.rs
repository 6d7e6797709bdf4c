//! Logins that stay with somebody else: the client of a build keeps its passwords and fetches tokens itself.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Auth, Secret};

/// Who has a login.
#[async_trait]
pub trait Delegate: Send + Sync {
    /// Tells delegates apart, so that nobody gets another one's tokens.
    fn id(&self) -> String;

    /// Fetches a bearer token: the token itself, and for how many seconds it is good. `None`: it can't do that, and has
    /// its login asked for.
    ///
    /// # Errors
    /// In the words of whoever refused it.
    async fn token(
        &self,
        realm: &str,
        service: &str,
        scopes: &[&str],
    ) -> Result<Option<(Secret, u64)>, String>;

    /// Returns the login itself, for registries that know no tokens.
    ///
    /// # Errors
    /// When it does not answer.
    async fn login(&self) -> Result<Option<Auth>, String>;
}

/// A [`Delegate`] in an [`Auth`]. Equal are those of one id.
#[derive(Clone)]
pub struct Delegated(pub Arc<dyn Delegate>);

impl fmt::Debug for Delegated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delegated").field(&self.0.id()).finish()
    }
}

impl PartialEq for Delegated {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for Delegated {}
