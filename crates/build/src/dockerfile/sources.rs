//! What the frontend asks the solver for.

use std::sync::{Mutex, PoisonError};

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
    /// When the client has no such image.
    async fn resolve_layout(
        &self,
        place: &str,
        platform: &pb::Platform,
        log_name: &str,
    ) -> Result<ResolvedImage>;

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
    job: &'a Job,
    /// The definitions.
    inputs: &'a std::collections::BTreeMap<String, pb::Definition>,
    /// Why the first image that could not be resolved could not.
    unresolved: Mutex<Option<Error>>,
}

impl<'a> JobSources<'a> {
    /// Sources of a job.
    pub fn new(job: &'a Job, inputs: &'a std::collections::BTreeMap<String, pb::Definition>) -> Self {
        Self { job, inputs, unresolved: Mutex::new(None) }
    }

    /// Why an image could not be resolved, in the words of `docker pull`.
    pub fn unresolved(&self) -> Option<Error> {
        self.unresolved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A failure to resolve an image in BuildKit's words; `docker pull` has others for the same.
fn unresolved(name: &str, error: &Error) -> Error {
    let what = format!("failed to resolve source metadata for {name}");
    match error {
        Error::Images { cause } => match &**cause {
            skiff_images::Error::RegistryNotFound { message }
                if message.starts_with("pull access denied") =>
            {
                Error::Denied {
                    message: format!(
                        "{what}: pull access denied, repository does not exist or may require authorization: server \
                         message: insufficient_scope: authorization failed"
                    ),
                }
            }
            skiff_images::Error::RegistryNotFound { .. } => {
                Error::not_found(format!("{what}: {name}: not found"))
            }
            skiff_images::Error::RegistryUnauthorized { .. } => {
                Error::Denied { message: format!("{what}: {error}") }
            }
            skiff_images::Error::Request { method, url, reason } => {
                // BuildKit looks a manifest up before it fetches it.
                let method = if *method == "Get" { "Head" } else { method };
                let path = name.split_once('/').and_then(|(_, path)| path.rsplit_once(':'));
                let url = match (url.strip_suffix("/v2/"), path) {
                    (Some(host), Some((path, tag))) => format!("{host}/v2/{path}/manifests/{tag}"),
                    _ => url.clone(),
                };
                Error::unavailable(format!("{what}: failed to do request: {method} \"{url}\": {reason}"))
            }
            skiff_images::Error::NoMatchingManifest { platform } => {
                Error::not_found(format!("{what}: no match for platform in manifest: not found ({platform})"))
            }
            _ => Error::failed(format!("{what}: {error}")),
        },
        _ => error.clone(),
    }
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
        self.job.resolve_image(name, Some(platform), mode, Some(log_name)).await.map_err(|error| {
            self.unresolved
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| error.clone());
            unresolved(name, &error)
        })
    }

    async fn resolve_layout(
        &self,
        place: &str,
        platform: &pb::Platform,
        log_name: &str,
    ) -> Result<ResolvedImage> {
        self.job.resolve_layout(place, "", "", Some(platform), Some(log_name)).await
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
