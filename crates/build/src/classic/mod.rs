//! The classic builder: `POST /build` as clients without BuildKit know it.
//!
//! The context comes as one archive, progress goes out as text. Between them is the same frontend and the same solver as
//! for everybody else.

mod context;
mod progress;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use skiff_images::Auth;
use tokio::io::AsyncRead;

use self::progress::{Printer, Watcher};
use crate::client::{Client, Credentials, LocalRequest, NoClient};
use crate::dockerfile::{self, Plan, PlannedImage};
use crate::error::{Error, Result};
use crate::export::{self, ImageOptions};
use crate::frontend::{BuildResult, FrontendRequest, IMAGE_CONFIG_KEY, Refs};
use crate::solver::{CacheImport, Entitlement, Job, JobOptions, Limits, Solver, context_key};

/// What a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Names for the image.
    pub tags: Vec<String>,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// Where the context comes from instead of the body: an address of an archive, a Dockerfile or a git repository.
    pub remote: String,
    /// The stage to build.
    pub target: String,
    /// Values of `ARG`s; `None`: the variable of that name that the builder has, which is none.
    pub build_args: BTreeMap<String, Option<String>>,
    /// Labels for the image.
    pub labels: BTreeMap<String, String>,
    /// Whether nothing is taken from the cache.
    pub no_cache: bool,
    /// Whether base images are asked for at their registries.
    pub pull: bool,
    /// Whether only the image's id is told.
    pub quiet: bool,
    /// The network of steps.
    pub network: String,
    /// `name:ip` lines for `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Size of `/dev/shm` in bytes; 0: 64 MiB.
    pub shm_size: u64,
    /// `name=soft:hard`.
    pub ulimits: Vec<String>,
    /// Limits of each step.
    pub limits: Limits,
    /// The parent of the steps' cgroups.
    pub cgroup_parent: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Images that may have results in them.
    pub cache_from: Vec<String>,
    /// Logins, by registry.
    pub logins: HashMap<String, Auth>,
}

/// A line of the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// Text for people, as it is.
    Text(String),
    /// A result for programs.
    Result(Value),
    /// The last line of a build that failed.
    Failed {
        /// The exit code of the step that failed, or 1.
        code: i32,
        /// Docker's words.
        message: String,
    },
}

/// Takes lines. Must neither block nor fail.
pub type Lines = Arc<dyn Fn(Line) + Send + Sync>;

/// Builds an image; returns its id. What goes wrong after the first line is told as [`Line::Failed`], with `None` as the
/// answer.
///
/// # Errors
/// What is wrong with the request, before anything was told.
pub async fn build(
    solver: &Solver,
    request: Request,
    body: Box<dyn AsyncRead + Send + Unpin>,
    lines: Lines,
) -> Result<Option<String>> {
    for tag in &request.tags {
        let reference = skiff_images::Reference::parse(tag).map_err(skiff_images::Error::from)?;
        if reference.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
    }
    let watcher = Arc::new(Watcher::default());
    let client = Client {
        credentials: Arc::new(Logins { logins: request.logins.clone() }),
        contexts: Arc::new(NoClient),
        secrets: Arc::new(NoClient),
        ssh: Arc::new(NoClient),
    };
    let mut options = JobOptions::new(client, Arc::clone(&watcher) as _);
    options.entitlements = HashSet::from([Entitlement::NetworkHost]);
    options.limits = request.limits.clone();
    options.shm_size = (request.shm_size > 0).then_some(request.shm_size);
    options.network = Some(request.network.clone()).filter(|network| !network.is_empty());
    options.keep_bases = true;
    options.cache_imports = request.cache_from.iter().map(|name| import(name)).collect();
    let mut attributes = attributes(&request);
    // A job from here on: what is received must not be swept away.
    let placeholder = solver.begin(options.clone());
    if request.remote.is_empty() {
        let key = context_key(&LocalRequest {
            name: "classic".to_owned(),
            shared_key: format!("{} {}", request.tags.join(" "), request.dockerfile),
            ..LocalRequest::default()
        });
        let tree = context::receive(solver, &key, body).await?;
        for name in ["context", "dockerfile"] {
            options.contexts.insert(name.to_owned(), Arc::clone(&tree));
        }
    } else {
        attributes.insert("context".to_owned(), request.remote.clone());
    }
    let job = solver.begin(options);
    drop(placeholder);
    let plan = FrontendRequest { attributes, inputs: BTreeMap::new() };
    let planned =
        match dockerfile::plan(&dockerfile::JobSources { job: &job, inputs: &plan.inputs }, &plan).await? {
            Plan::Build(build) if build.images.len() == 1 => build.images.into_iter().next(),
            _ => None,
        };
    let planned = planned.ok_or_else(|| Error::invalid("the classic builder builds for one platform"))?;
    let steps = planned.steps.clone();
    let printer = Printer::new(Arc::clone(&watcher), &steps, request.quiet, Arc::clone(&lines));
    let work = run(&job, planned, &request);
    let (built, ()) = tokio::join!(
        async {
            let built = work.await;
            watcher.end();
            built
        },
        printer.print()
    );
    match built {
        Ok(id) => {
            lines(Line::Result(json!({ "ID": id })));
            if request.quiet {
                lines(Line::Text(format!("{id}\n")));
                return Ok(Some(id));
            }
            lines(Line::Text(format!("Successfully built {}\n", short(&id))));
            for tag in &request.tags {
                let shown = skiff_images::Reference::parse(tag).map(|name| name.or_latest().familiar());
                lines(Line::Text(format!("Successfully tagged {}\n", shown.unwrap_or_else(|_| tag.clone()))));
            }
            Ok(Some(id))
        }
        Err(error) => {
            lines(printer.failure(&error));
            Ok(None)
        }
    }
}

async fn run(job: &Job, planned: PlannedImage, request: &Request) -> Result<String> {
    let reference = job.solve(planned.definition)?;
    reference.evaluate().await?;
    let metadata = BTreeMap::from([(IMAGE_CONFIG_KEY.to_owned(), planned.config)]);
    let result = BuildResult { refs: Refs::Single(reference), metadata };
    let epoch = request.build_args.get("SOURCE_DATE_EPOCH").cloned().flatten();
    let options = ImageOptions {
        names: request.tags.clone(),
        source_date_epoch: epoch.and_then(|text| text.trim().parse().ok()),
        inline_cache: request.build_args.contains_key("BUILDKIT_INLINE_CACHE"),
    };
    export::image(job, &result, options).await.map(|image| image.id)
}

fn import(name: &str) -> CacheImport {
    CacheImport {
        kind: "registry".to_owned(),
        attributes: BTreeMap::from([("ref".to_owned(), name.to_owned())]),
    }
}

/// The request in the words of the frontend.
fn attributes(request: &Request) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            attributes.insert(key.to_owned(), value.to_owned());
        }
    };
    put("filename", &request.dockerfile);
    put("target", &request.target);
    put("platform", &request.platform);
    put(
        "add-hosts",
        &request.extra_hosts.iter().map(|host| host.replacen(':', "=", 1)).collect::<Vec<_>>().join(","),
    );
    put("ulimit", &request.ulimits.join(","));
    put("cgroup-parent", &request.cgroup_parent);
    if request.pull {
        put("image-resolve-mode", "pull");
    }
    match request.network.as_str() {
        "host" | "none" => put("force-network-mode", &request.network),
        _ => {}
    }
    if request.no_cache {
        attributes.insert("no-cache".to_owned(), String::new());
    }
    for (name, value) in &request.build_args {
        if let Some(value) = value {
            attributes.insert(format!("build-arg:{name}"), value.clone());
        }
    }
    for (name, value) in &request.labels {
        attributes.insert(format!("label:{name}"), value.clone());
    }
    attributes
}

fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

/// The logins of a request (`X-Registry-Config`).
struct Logins {
    logins: HashMap<String, Auth>,
}

#[async_trait]
impl Credentials for Logins {
    async fn registry(&self, host: &str) -> Result<Option<Auth>> {
        let bare = |key: &str| {
            let key = key.split_once("://").map_or(key, |(_, rest)| rest);
            key.split('/').next().unwrap_or(key).to_owned()
        };
        let hub = ["docker.io", "index.docker.io", "registry-1.docker.io"];
        let same = |key: &String| {
            let key = bare(key);
            key == host || hub.contains(&key.as_str()) && hub.contains(&host)
        };
        Ok(self.logins.iter().find(|(key, _)| same(key)).map(|(_, auth)| auth.clone()))
    }
}
