//! Pulling every tag of a repository (`docker pull --all-tags`).

use super::{Naming, status};
use crate::error::Error;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Auth, Endpoint, Purpose};
use crate::store::Store;

impl Store {
    /// Pulls every tag of a repository from its registry, or from a mirror of it, one after the other.
    ///
    /// # Errors
    /// As [`Store::pull`]; a name with a tag. What was pulled before the failure stays.
    pub async fn pull_all(
        &self,
        repository: &str,
        platform: Option<&str>,
        auth: Option<Auth>,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let repository = Reference::parse(repository)?;
        if repository.tag().is_some() || repository.digest().is_some() {
            return Err(Error::Invalid { message: "tag can't be used with --all-tags/-a".to_owned() });
        }
        let platform = Store::platform(platform)?;
        let mut endpoints = self.inner.client.endpoints(&repository);
        let origin = endpoints.pop().ok_or(Error::Interrupted)?;
        for mirror in &endpoints {
            match self.pull_all_from(mirror, &repository, &platform, None, progress).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(mirror = mirror.authority, image = %repository, %error, "mirror did not serve the image");
                }
            }
        }
        self.pull_all_from(&origin, &repository, &platform, auth, progress).await
    }

    async fn pull_all_from(
        &self,
        endpoint: &Endpoint,
        repository: &Reference,
        platform: &Platform,
        auth: Option<Auth>,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let tags = self
            .inner
            .client
            .repository(endpoint, repository, auth.clone(), Purpose::Pull)
            .await?
            .tags()
            .await?;
        let mut updated = false;
        for tag in tags {
            // A tag that is none by our rules can't be asked for.
            let Ok(wanted) = repository.at_tag(&tag) else { continue };
            let pulled = self
                .pull_from(endpoint, &wanted, platform, auth.clone(), progress, Naming::OneOfMany)
                .await?;
            updated |= pulled.updated;
        }
        progress.event(status(&repository.familiar_name(), updated));
        Ok(())
    }
}
