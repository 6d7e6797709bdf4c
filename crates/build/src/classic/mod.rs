//! The classic builder: `POST /build` as clients without BuildKit know it.
//!
//! The context comes as one archive, progress goes out as text. Between them is the same frontend and the same solver as
//! for everybody else.

mod context;
mod progress;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use prost::Message as _;
use serde_json::{Value, json};
use skiff_images::Auth;
use tokio::io::AsyncRead;

pub(crate) use self::progress::Shown;
use self::progress::{Printer, Watcher};
use crate::client::{Client, Credentials, LocalRequest, NoClient};
use crate::dockerfile::{self, Plan, PlannedImage, StepNote};
use crate::error::{Code, Error, Result};
use crate::export::{self, ImageOptions};
use crate::frontend::{BuildResult, FrontendRequest, IMAGE_CONFIG_KEY, Refs};
use crate::graph::pb;
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
        /// The exit code of the step that failed, or 0.
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
        stores: Arc::new(NoClient),
    };
    let mut options = JobOptions::new(client, Arc::clone(&watcher) as _);
    options.entitlements = HashSet::from([Entitlement::NetworkHost]);
    options.limits = request.limits.clone();
    options.shm_size = (request.shm_size > 0).then_some(request.shm_size);
    options.network = Some(request.network.clone()).filter(|network| !network.is_empty());
    options.keep_bases = true;
    let cached = allow_cache(solver, &request, &mut options);
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
    let sources = dockerfile::JobSources::new(&job, &plan.inputs);
    let planned = match dockerfile::plan(&sources, &plan).await {
        Ok(Plan::Build(build)) if build.images.len() == 1 => build.images.into_iter().next(),
        Ok(_) => None,
        Err(error) => {
            let Some(cause) = sources.unresolved() else { return Err(in_own_words(error, &request)) };
            // Docker pulls a base image when its step's turn has come.
            if let Some(step) = error.location().and_then(progress::step).filter(|_| !request.quiet) {
                lines(Line::Text(step));
            }
            lines(Line::Failed { code: 0, message: cause.to_string() });
            return Ok(None);
        }
    };
    let planned = planned.ok_or_else(|| Error::invalid("the classic builder builds for one platform"))?;
    let mut steps = planned.steps.clone();
    let last = steps.last().and_then(|step| step.vertex.clone());
    // Labels of the client are instructions at the end.
    steps.extend(request.labels.iter().map(|(name, value)| StepNote {
        text: format!("LABEL {name}={value}"),
        vertex: last.clone(),
        global: false,
    }));
    if steps.last().is_some_and(|step| step.vertex.is_none() && is_from_scratch(&step.text)) {
        for (number, step) in steps.iter().enumerate().filter(|_| !request.quiet) {
            lines(Line::Text(format!("Step {}/{} : {}\n", number + 1, steps.len(), step.text)));
        }
        lines(Line::Text(" ---> \n".to_owned()));
        let message = "No image was generated. Is your Dockerfile empty?".to_owned();
        lines(Line::Failed { code: 0, message });
        return Ok(None);
    }
    let images = image_sources(&planned.definition);
    let image_id = |name: &str| {
        // An image without a manifest is pinned by its id.
        let (tagged, digest) = name.split_once('@').unwrap_or((name, name));
        [name, digest, tagged].iter().find_map(|name| solver.images().get(name).ok()).map(|image| image.id)
    };
    let printer = Printer {
        watcher: Arc::clone(&watcher),
        steps: &steps,
        quiet: request.quiet,
        lines: Arc::clone(&lines),
        shown: &solver.inner().shown,
        images: &images,
        image_id: &image_id,
        cached,
    };
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
            if !request.quiet {
                lines(Line::Text(format!(" ---> {}\n", short(&id))));
            }
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
        rewrite_times: false,
    };
    export::image(job, &result, options).await.map(|image| image.id)
}

/// Says what the build may take from the cache; returns whether that is anything.
///
/// With `cachefrom`, Docker's classic builder knows nothing but what is in those images, as far as they are here.
fn allow_cache(solver: &Solver, request: &Request, options: &mut JobOptions) -> bool {
    if request.cache_from.is_empty() {
        return !request.no_cache;
    }
    let mut images = Vec::new();
    for name in &request.cache_from {
        match solver.images().get(name) {
            Ok(image) => {
                images.push(image.layers);
                options.cache_imports.push(import(name));
            }
            Err(error) => {
                tracing::warn!(%error, image = name, "could not look up image for cache resolution")
            }
        }
    }
    let cached = !images.is_empty() && !request.no_cache;
    options.cache_within = Some(images);
    cached
}

/// An error before the first step in the words of the classic builder.
fn in_own_words(error: Error, request: &Request) -> Error {
    let name = match request.dockerfile.as_str() {
        "" => "Dockerfile",
        name => name,
    };
    let text = error.to_string();
    if text.starts_with("failed to read dockerfile:") && error.code() == Code::NotFound {
        return Error::failed(format!("Cannot locate specified Dockerfile: {name}"));
    }
    if text == "the Dockerfile cannot be empty" {
        return Error::failed(format!("the Dockerfile ({name}) cannot be empty"));
    }
    error
}

/// The names of the images of a definition, by vertex.
fn image_sources(definition: &pb::Definition) -> HashMap<String, String> {
    let named = |bytes: &Vec<u8>| {
        let op = pb::Op::decode(bytes.as_slice()).ok()?;
        let Some(pb::op::Op::Source(source)) = op.op else { return None };
        let name = source.identifier.strip_prefix("docker-image://")?.to_owned();
        Some((crate::graph::digest(bytes), name))
    };
    definition.def.iter().filter_map(named).collect()
}

fn is_from_scratch(text: &str) -> bool {
    let mut words = text.split_whitespace();
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("FROM")) && words.next() == Some("scratch")
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
