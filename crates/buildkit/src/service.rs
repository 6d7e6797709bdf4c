//! The builder behind its doors.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use bollard_buildkit_proto::pb;
use http::{Request, Response};
use http_body_util::BodyExt;
use skiff_build::Solver;
use tonic::body::Body;
use tonic::service::Routes;
use tower_service::Service;

use crate::bridge::Bridge;
use crate::builds::Builds;
use crate::content::ContentServer;
use crate::control::Control;
use crate::history::History;
use crate::session::{MESSAGE_LIMIT, Sessions};

/// The BuildKit whose protocol is spoken: clients derive from it what they may ask for.
const BUILDKIT_VERSION: &str = "v0.13.2";

/// What the doors are opened with.
#[derive(Clone)]
pub struct Config {
    /// Who builds.
    pub solver: Solver,
    /// The worker's id, which stays the same over restarts.
    pub worker: String,
    /// The address that `host-gateway` stands for, where there is one.
    pub host_gateway: Option<std::net::IpAddr>,
    /// The directory of the history of builds.
    pub history: std::path::PathBuf,
    /// Told of each image that a build has put into the store, by its id and its names.
    pub on_image: OnImage,
}

/// What is done when there is a new image.
pub type OnImage = Arc<dyn Fn(&str, &[String]) + Send + Sync>;

/// BuildKit's doors. Clones share one builder.
#[derive(Clone)]
pub struct BuildKit {
    pub(crate) inner: Arc<Inner>,
    routes: Routes,
}

pub(crate) struct Inner {
    pub solver: Solver,
    pub sessions: Sessions,
    pub builds: Builds,
    pub jobs: crate::classic::Named,
    pub history: History,
    pub on_image: OnImage,
    worker: String,
    pub host_gateway: Option<std::net::IpAddr>,
}

impl fmt::Debug for BuildKit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildKit").field("worker", &self.inner.worker).finish_non_exhaustive()
    }
}

impl BuildKit {
    /// Opens the doors.
    pub fn new(config: Config) -> Self {
        let inner = Arc::new(Inner {
            solver: config.solver,
            sessions: Sessions::default(),
            builds: Builds::default(),
            jobs: crate::classic::Named::default(),
            history: History::open(config.history),
            on_image: config.on_image,
            worker: config.worker,
            host_gateway: config.host_gateway,
        });
        let control = ControlServer::new(Control(inner.clone())).max_decoding_message_size(MESSAGE_LIMIT);
        let bridge = LlbBridgeServer::new(Bridge(inner.clone())).max_decoding_message_size(MESSAGE_LIMIT);
        let content = ContentServer(inner.history.clone());
        let routes = Routes::new(control).add_service(bridge).add_service(content);
        Self { inner, routes: routes.prepare() }
    }

    /// The sessions of clients, to add one to.
    pub fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    /// Answers one gRPC call. Dropping the future cancels it.
    pub async fn grpc<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.uri().path().starts_with("/opentelemetry.proto.collector.") {
            // Clients send traces of theirs to whoever collects them; nobody does.
            return tonic::Status::unavailable("trace collector not configured").into_http();
        }
        let request = request.map(|body| Body::new(body.map_err(Into::into)));
        match self.routes.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Inner {
    /// What images are for that say nothing else.
    pub fn platform(&self) -> String {
        let own = own_platform();
        format!("{}/{}", own.os, own.architecture)
    }

    /// The one worker. The label `snapshotter` tells clients that it exports archives and caches, and pushes by itself.
    pub fn worker(&self) -> WorkerRecord {
        let snapshotter = ("org.mobyproject.buildkit.worker.snapshotter".to_owned(), "overlayfs".to_owned());
        let mut labels = HashMap::from([snapshotter]);
        if let Some(address) = self.host_gateway {
            labels.insert(
                "org.mobyproject.buildkit.worker.moby.host-gateway-ip".to_owned(),
                address.to_string(),
            );
        }
        WorkerRecord {
            id: self.worker.clone(),
            labels,
            platforms: vec![own_platform()],
            buildkit_version: Some(version()),
            ..WorkerRecord::default()
        }
    }
}

/// What we are to clients.
pub(crate) fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "github.com/moby/buildkit".to_owned(),
        version: BUILDKIT_VERSION.to_owned(),
        revision: String::new(),
    }
}

fn own_platform() -> pb::Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    pb::Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), ..pb::Platform::default() }
}
