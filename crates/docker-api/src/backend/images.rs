//! Images.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bollard_stubs::models::{
    ImageDeleteResponseItem, ImageHistoryResponseItem, ImageInspect, ImagePruneResponse, ImageSummary,
};
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use super::{BodyReader, ByteStream};
use crate::error::Result;
use crate::filters::Filters;

/// Progress of a long operation. An error as the first item becomes the answer's status, a later one its last line.
pub type ProgressStream = Pin<Box<dyn Stream<Item = Result<Progress>> + Send>>;

/// One line of progress in Docker's JSON vocabulary.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Text for people, printed as it is (`Loaded image: …\n`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What happens (`Downloading`, `Pull complete`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How far it is.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub detail: Option<ProgressDetail>,
    /// The layer or tag that the line is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A result for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
    /// Why the operation failed: the last line of one that says more than an error of its own could.
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// The same for old clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorDetail {
    /// The exit code of a build's step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Docker's words.
    pub message: String,
}

impl Progress {
    /// Makes a line that has only a status.
    pub fn status(status: impl Into<String>) -> Self {
        Self { status: Some(status.into()), ..Self::default() }
    }

    /// Makes a line of text for people.
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: Some(text.into()), ..Self::default() }
    }
}

/// Bytes done and bytes in all; both absent is Docker's `{}`, which tells clients to draw no bar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProgressDetail {
    /// Bytes done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Bytes in all, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// Registry credentials of one request (`X-Registry-Auth`).
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
    /// `base64(user:password)`, an older form.
    pub auth: String,
    /// The registry that the credentials are for.
    pub serveraddress: String,
    /// An OAuth2 refresh token, used instead of a password.
    pub identitytoken: String,
    /// A bearer token to be sent as it is.
    pub registrytoken: String,
}

/// Secrets stay out of logs.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

/// `POST /images/create?fromImage=…`.
#[derive(Debug, Clone, PartialEq)]
pub struct PullImage {
    /// `name`, `name:tag` or `name@digest`, as the client wrote it.
    pub reference: String,
    /// All tags are wanted: the request named none (API rule: `tag` empty and no tag in `fromImage`).
    pub all_tags: bool,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
    /// Credentials; `None` when the client sent none.
    pub auth: Option<Auth>,
}

/// `POST /images/{name}/push`.
#[derive(Debug, Clone, PartialEq)]
pub struct PushImage {
    /// `name:tag`, or `name` for every tag of it.
    pub reference: String,
    /// `os[/arch[/variant]]` that it must be for.
    pub platform: Option<String>,
    /// Credentials; `None` when the client sent none.
    pub auth: Option<Auth>,
}

/// `GET /distribution/{name}/manifest`, Skiff's own: what a registry has under a name, byte for byte.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RemoteManifest {
    /// What `GET /distribution/{name}/json` answers.
    pub description: serde_json::Value,
    /// The manifest.
    pub bytes: Vec<u8>,
    /// Whether it is a list of others.
    pub is_list: bool,
}

/// `POST /distribution/{name}/manifest`, Skiff's own: a list of manifests that was made by hand.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PushList {
    /// Where to.
    pub name: String,
    /// The list.
    pub list: Vec<u8>,
    /// References of its members.
    pub members: Vec<String>,
    /// Credentials; `None` when the client sent none.
    pub auth: Option<Auth>,
}

/// What pushing a list has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushedList {
    /// The list's digest.
    pub digest: String,
    /// Where its members are now, and their digests.
    pub members: Vec<(String, String)>,
}

/// `POST /images/create?fromSrc=…`: a root file system as a tar stream.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportImage {
    /// Where the tar is, when it is not the request's body.
    pub url: Option<String>,
    /// `name[:tag]`; `None` imports without a name.
    pub reference: Option<String>,
    /// The image's comment.
    pub message: String,
    /// Dockerfile lines to apply (`CMD …`, `ENV …`).
    pub changes: Vec<String>,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
}

/// An image, described.
#[derive(Debug, Clone, Default)]
pub struct ImageDetails {
    /// What the model has fields for.
    pub model: ImageInspect,
    /// The image that it was made of here, or nothing.
    pub parent: String,
    /// The version of Docker that made it, or nothing.
    pub docker_version: String,
}

/// `GET /images/search`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SearchImages {
    /// Words, or `host[:port]/words`.
    pub term: String,
    /// At most so many; 0 for the usual number.
    pub limit: i64,
    /// Any of `is-automated is-official stars`.
    pub filters: Filters,
    /// Credentials; `None` when the client sent none.
    pub auth: Option<Auth>,
}

/// A repository that a search has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SearchResult {
    /// Stars.
    pub star_count: i64,
    /// Whether it is one of Docker's own.
    pub is_official: bool,
    /// Its name.
    pub name: String,
    /// Said of no repository any more.
    pub is_automated: bool,
    /// What it says of itself.
    pub description: String,
}

/// `GET /images/json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListImages {
    /// Intermediate images too.
    pub all: bool,
    /// `shared_size` must be computed.
    pub shared_size: bool,
    /// Any of `before dangling label label! reference since until`.
    pub filters: Filters,
}

/// `DELETE /images/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoveImage {
    /// Remove even if stopped containers use it or several tags exist.
    pub force: bool,
    /// Keep untagged parents.
    pub no_prune: bool,
    /// `os[/arch[/variant]]` that it must be for.
    pub platform: Option<String>,
}

/// The image store.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// Pulls from a registry.
    async fn pull_image(&self, request: PullImage) -> Result<ProgressStream>;

    /// Pushes to a registry.
    async fn push_image(&self, request: PushImage) -> Result<ProgressStream>;

    /// Asks the registry that the credentials name whether it takes them; returns a token to keep instead of the
    /// password, or nothing.
    async fn check_credentials(&self, auth: Auth) -> Result<String>;

    /// Describes what a registry has under a name, as `GET /distribution/{name}/json` answers.
    async fn describe_remote_image(&self, name: &str, auth: Option<Auth>) -> Result<serde_json::Value>;

    /// Fetches what a registry has under a name.
    async fn remote_manifest(&self, name: &str, auth: Option<Auth>) -> Result<RemoteManifest>;

    /// Pushes a list of manifests, and brings its members to where it goes.
    async fn push_manifest_list(&self, list: PushList) -> Result<PushedList>;

    /// Makes an image of a root file system; the last line's status is its id (`sha256:…`).
    async fn import_image(&self, request: ImportImage, tar: BodyReader) -> Result<ProgressStream>;

    /// Searches a registry's index.
    async fn search_images(&self, request: SearchImages) -> Result<Vec<SearchResult>>;

    /// Loads the images of a `docker save` or OCI layout archive; `quiet` leaves out the layers' progress, `platform`
    /// (`os[/arch[/variant]]`) what is for another one.
    async fn load_images(
        &self,
        archive: BodyReader,
        quiet: bool,
        platform: Option<String>,
    ) -> Result<ProgressStream>;

    /// Saves images, by names and ids, as one archive; each must be for `platform` if there is one.
    async fn save_images(&self, names: Vec<String>, platform: Option<String>) -> Result<ByteStream>;

    /// Lists images, newest first.
    async fn list_images(&self, options: ListImages) -> Result<Vec<ImageSummary>>;

    /// Describes an image, by name, id or unique prefix of an id.
    async fn inspect_image(&self, name: &str, platform: Option<&str>) -> Result<ImageDetails>;

    /// Lists an image's layers and steps, newest first.
    async fn image_history(
        &self,
        name: &str,
        platform: Option<&str>,
    ) -> Result<Vec<ImageHistoryResponseItem>>;

    /// Gives an image one more name (`repository` without tag; an empty `tag` means `latest`).
    async fn tag_image(&self, name: &str, repository: &str, tag: &str) -> Result<()>;

    /// Removes a name, and the image with its last one.
    async fn remove_image(&self, name: &str, options: RemoveImage) -> Result<Vec<ImageDeleteResponseItem>>;

    /// Removes unused images; filters are any of `dangling label label! until`.
    async fn prune_images(&self, filters: Filters) -> Result<ImagePruneResponse>;
}
