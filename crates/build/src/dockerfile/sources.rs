//! What the frontend asks the solver for.

use async_trait::async_trait;

use crate::error::{Code, Error, Result};
use crate::frontend::{ResolveMode, ResolvedImage};
use crate::graph::pb;
use crate::progress::Event;
use crate::solver::Job;

/// What the frontend asks the solver for, and tells it.
#[async_trait]
pub trait Sources: Send + Sync {
    /// Finds out what an image is, for a platform. `log_name` is how progress calls that.
    ///
    /// # Errors
    /// An image that there isn't; a registry that does not answer.
    async fn resolve_image(
        &self,
        name: &str,
        platform: &pb::Platform,
        mode: ResolveMode,
        log_name: &str,
    ) -> Result<ResolvedImage>;

    /// The same for an image in an OCI layout of the client (`store@digest`).
    ///
    /// # Errors
    /// [`Error::Unavailable`], unless the solver can read them.
    async fn resolve_layout(
        &self,
        place: &str,
        platform: &pb::Platform,
        log_name: &str,
    ) -> Result<ResolvedImage> {
        let _ = (platform, log_name);
        Err(Error::unavailable(format!(
            "oci-layout context {place} can't be read: this builder does not take content from its client"
        )))
    }

    /// Makes a definition, once, and reads files of it, or the `length` bytes from `offset` of each; nothing for those
    /// that are not there.
    ///
    /// # Errors
    /// What the solver says.
    async fn read_files(
        &self,
        definition: pb::Definition,
        paths: &[&str],
        range: Option<(u64, u64)>,
    ) -> Result<Vec<Option<Vec<u8>>>>;

    /// Returns a definition that the client gave.
    fn input(&self, name: &str) -> Option<pb::Definition>;

    /// Tells the user something.
    fn tell(&self, event: Event);
}

/// A job of the solver, with the definitions that its client gave.
#[derive(Debug)]
pub struct JobSources<'a> {
    /// The job.
    pub job: &'a Job,
    /// The definitions.
    pub inputs: &'a std::collections::BTreeMap<String, pb::Definition>,
}

#[async_trait]
impl Sources for JobSources<'_> {
    async fn resolve_image(
        &self,
        name: &str,
        platform: &pb::Platform,
        mode: ResolveMode,
        log_name: &str,
    ) -> Result<ResolvedImage> {
        self.job.resolve_image(name, Some(platform), mode, Some(log_name)).await
    }

    async fn read_files(
        &self,
        definition: pb::Definition,
        paths: &[&str],
        range: Option<(u64, u64)>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let made = self.job.solve(definition)?;
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            files.push(match made.read_file(path, range).await {
                Ok(data) => Some(data),
                // A vertex that was not found is another matter than a file.
                Err(error) if error.code() == Code::NotFound && error.vertex().is_none() => None,
                Err(error) => return Err(error),
            });
        }
        Ok(files)
    }

    fn input(&self, name: &str) -> Option<pb::Definition> {
        self.inputs.get(name).cloned()
    }

    fn tell(&self, event: Event) {
        self.job.progress().event(event);
    }
}
