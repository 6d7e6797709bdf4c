//! BuildKit: gRPC, sessions, and builds by `POST /build?version=2`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{BodyReader, BuildUlimit, ProgressStream};
use crate::error::Result;

/// The body of a gRPC call, messages with their trailers.
pub type GrpcBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A byte stream both ways.
pub trait RawStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> RawStream for T {}

/// A connection that a client has upgraded.
pub type RawConnection = Box<dyn RawStream>;

/// Serves an upgraded connection to its end.
pub type TakeConnection = Box<dyn FnOnce(RawConnection) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// `POST /session`: what the client will serve on the connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionOffer {
    /// The session's id.
    pub id: String,
    /// What tells its directories apart from those of other clients.
    pub shared_key: String,
    /// The gRPC methods that it serves.
    pub methods: Vec<String>,
}

/// Where a build's result goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BuildOutput {
    /// `moby`, `image`, `local`, `tar`, `oci`, `docker`; `cacheonly` for nowhere.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Its attributes.
    pub attrs: Option<std::collections::BTreeMap<String, String>>,
}

/// `POST /build?version=2`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildKitBuild {
    /// The client's name for it, to cancel it by; `upload-request:ID` uploads the context of the build ID.
    pub id: String,
    /// The session that has contexts, secrets and logins.
    pub session: String,
    /// `client-session`, `upload-request`, an address, or nothing: then the body is the context.
    pub remote: String,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// The stage to build.
    pub target: String,
    /// Names for the image.
    pub tags: Vec<String>,
    /// Build arguments; those without a value are left out.
    pub build_args: Vec<(String, String)>,
    /// Labels for the image.
    pub labels: Vec<(String, String)>,
    /// Images whose cache may be used.
    pub cache_from: Vec<String>,
    /// Nothing may come from the cache.
    pub no_cache: bool,
    /// Whether nothing is wanted but the image's id.
    pub quiet: bool,
    /// Base images are asked for at the registry.
    pub pull: bool,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// `host`, `none`, or nothing.
    pub network: String,
    /// `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Bytes of `/dev/shm`; 0 is the default.
    pub shm_size: i64,
    /// Bounds for steps.
    pub ulimits: Vec<BuildUlimit>,
    /// Where the result goes; nothing: into the image store.
    pub outputs: Vec<BuildOutput>,
}

/// BuildKit's doors.
#[async_trait]
pub trait BuildKit: Send + Sync + 'static {
    /// Answers one gRPC call. Dropping the future cancels it.
    async fn grpc(&self, request: Request<GrpcBody>) -> Response<GrpcBody>;

    /// Agrees to a session, or refuses it before the connection is upgraded.
    fn open_session(&self, offer: SessionOffer) -> Result<TakeConnection>;

    /// Builds; dropping the stream cancels the build.
    async fn build(&self, request: BuildKitBuild, context: BodyReader) -> Result<ProgressStream>;

    /// Cancels a build by the name that its client gave it; unknown ones are none.
    async fn cancel_build(&self, id: &str) -> Result<()>;
}

impl fmt::Debug for dyn RawStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawStream")
    }
}
