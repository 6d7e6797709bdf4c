//! `POST /build?version=2`: a build whose request is an HTTP query, and whose progress is lines of JSON.
//!
//! The client names its build so that it can cancel it, and so that a second request can upload the context.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, Exporter};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use prost::Message;
use skiff_build::{Client, ContextSink, Contexts, Error, LocalRequest, Result};
use tokio::io::AsyncRead;
use tokio::sync::{oneshot, watch};

use crate::builds::Build;
use crate::service::BuildKit;
use crate::session::SessionClient;
use crate::solve::Request;

/// How long a build waits for its upload, and an upload for its build.
const WAIT: Duration = Duration::from_secs(5);

/// A tar of a context, or a Dockerfile, as it comes.
pub type Body = Box<dyn AsyncRead + Send + Unpin>;

/// What a build by HTTP asks for; every field as the query has it.
#[derive(Debug, Clone, Default)]
pub struct ClassicBuild {
    /// The client's name for it; `upload-request:ID` brings the context of the build ID.
    pub id: String,
    /// Its session.
    pub session: String,
    /// `client-session`, `upload-request`, an address, or nothing: then the body is the context.
    pub remote: String,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// The stage to build.
    pub target: String,
    /// Names for the image.
    pub tags: Vec<String>,
    /// Build arguments.
    pub build_args: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Images whose cache may be used.
    pub cache_from: Vec<String>,
    /// Nothing may come from the cache.
    pub no_cache: bool,
    /// Base images are asked for at the registry.
    pub pull: bool,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// `host`, `none`, `default` or nothing.
    pub network: String,
    /// `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Bytes of `/dev/shm`; 0 is the default.
    pub shm_size: i64,
    /// Bounds for steps: name, soft, hard.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Kind and attributes of each exporter; nothing: into the image store.
    pub outputs: Vec<(String, HashMap<String, String>)>,
}

/// A line of a build's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A status message, in base64 (`moby.buildkit.trace`).
    Trace(String),
    /// The image's id (`moby.image.id`).
    Image(String),
}

/// Lines in order; an error is the last. Dropping the stream cancels the build.
pub type Lines = Pin<Box<dyn Stream<Item = Result<Line>> + Send>>;

/// Builds by the names that their clients gave them.
#[derive(Default)]
pub(crate) struct Named {
    table: Arc<Mutex<HashMap<String, Entry>>>,
    entered: watch::Sender<u64>,
}

#[derive(Default)]
struct Entry {
    build: Option<Arc<Build>>,
    /// Where the build waits for its upload.
    upload: Option<oneshot::Sender<Body>>,
}

impl BuildKit {
    /// Begins a build, or brings the context of another one (the stream is empty then).
    ///
    /// # Errors
    /// For a request that makes no sense; for an upload that no build waits for.
    pub async fn build(&self, request: ClassicBuild, body: Body) -> Result<Lines> {
        if let Some(id) = request.id.strip_prefix("upload-request:") {
            self.inner.jobs.deliver(id, body).await?;
            return Ok(Box::pin(stream::empty()));
        }
        if request.outputs.len() > 1 {
            return Err(Error::invalid("multiple outputs not supported"));
        }
        let named = (!request.id.is_empty()).then(|| self.inner.jobs.enter(&request.id));
        let body = match request.remote.as_str() {
            "" => Some(body),
            "upload-request" => {
                let upload = named.as_ref().map(|named| named.expect_upload(&self.inner.jobs));
                let upload = upload.ok_or_else(|| Error::invalid("an upload needs a build ID"))?;
                let late = || Error::unavailable("timeout waiting for upload request");
                Some(tokio::time::timeout(WAIT, upload).await.ok().and_then(Result::ok).ok_or_else(late)?)
            }
            _ => None,
        };
        let session = SessionClient { sessions: self.sessions().clone(), id: request.session.clone() };
        let mut client = session.into_client();
        let mut translated = translate(&request, self.inner.host_gateway)?;
        // Who gave it a name that is nobody else's finds it in the history by that.
        if is_unique(&request.id) && self.inner.builds.find(&request.id).is_none() {
            translated.name.clone_from(&request.id);
        }
        if let Some(body) = body {
            let url = format!("http://buildkit-session/{}", translated.name);
            translated.attributes.insert("context".to_owned(), url.clone());
            client = with_body(client, url, body);
        }
        let stored = translated
            .exporters
            .iter()
            .any(|exporter| exporter.r#type == "moby" || exporter.r#type == "image");
        let refused = |status: tonic::Status| Error::failed(status.message());
        let prepared = self.inner.prepare(translated, Some(client)).map_err(refused)?;
        if let Some(named) = &named {
            named.begin(prepared.build());
        }
        let traces = prepared.status().listen();
        let traces = traces.map(|status| Ok(Line::Trace(STANDARD.encode(status.encode_to_vec()))));
        // The build runs as the lines are read, beside them: its end ends its progress, its outcome comes last.
        let (done, outcome) = oneshot::channel();
        let running = tokio::spawn(async move {
            let outcome = prepared.run().await;
            let _ = done.send(outcome);
        });
        let guard = AbortOnDrop(running);
        let last = async move {
            let _named = named;
            let outcome = outcome.await;
            drop(guard);
            match outcome {
                Ok(Ok(told)) if stored => match told.get("containerimage.digest") {
                    Some(id) => Some(Ok(Line::Image(id.clone()))),
                    None => Some(Err(Error::failed("missing image id"))),
                },
                Ok(Ok(_)) => None,
                Ok(Err(status)) => Some(Err(Error::failed(status.message()))),
                Err(_) => Some(Err(Error::Cancelled)),
            }
        };
        Ok(Box::pin(traces.chain(last.into_stream().filter_map(std::future::ready))))
    }

    /// Cancels a build by its client's name for it.
    pub fn cancel_build(&self, id: &str) {
        let table = self.inner.jobs.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(build) = table.get(id).and_then(|entry| entry.build.as_ref()) {
            build.cancel();
        }
    }
}

/// Ends a task that nobody waits for any more.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A name in use.
struct Name {
    table: Arc<Mutex<HashMap<String, Entry>>>,
    id: String,
}

impl Named {
    fn enter(&self, id: &str) -> Name {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_owned()).or_default();
        Name { table: self.table.clone(), id: id.to_owned() }
    }

    /// Hands an upload to the build that waits for it.
    async fn deliver(&self, id: &str, body: Body) -> Result<()> {
        let mut entered = self.entered.subscribe();
        let waiting = async {
            loop {
                let upload = {
                    let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
                    table.get_mut(id).and_then(|entry| entry.upload.take())
                };
                match upload {
                    Some(upload) => return Some(upload),
                    None => entered.changed().await.ok()?,
                }
            }
        };
        let upload = tokio::time::timeout(WAIT, waiting).await.ok().flatten();
        let upload = upload.ok_or_else(|| Error::not_found(format!("no build {id} waits for an upload")))?;
        let (body, read) = watched(body);
        upload.send(body).map_err(|_| Error::not_found(format!("build {id} has ended")))?;
        // The request is the body: it lasts until the build has read it.
        let _ = read.await;
        Ok(())
    }
}

impl Name {
    fn expect_upload(&self, named: &Named) -> oneshot::Receiver<Body> {
        let (send, receive) = oneshot::channel();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entry(self.id.clone()).or_default().upload = Some(send);
        drop(table);
        named.entered.send_modify(|count| *count += 1);
        receive
    }

    fn begin(&self, build: Arc<Build>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entry(self.id.clone()).or_default().build = Some(build);
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// A body that tells when it is dropped.
fn watched(body: Body) -> (Body, oneshot::Receiver<()>) {
    struct Watched {
        body: Body,
        _dropped: oneshot::Sender<()>,
    }
    impl AsyncRead for Watched {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            Pin::new(&mut self.body).poll_read(cx, buf)
        }
    }
    let (dropped, read) = oneshot::channel();
    (Box::new(Watched { body, _dropped: dropped }), read)
}

/// A client whose context is the body of its request.
fn with_body(client: Client, url: String, body: Body) -> Client {
    struct WithBody {
        session: Arc<dyn Contexts>,
        url: String,
        body: Mutex<Option<Body>>,
    }
    #[async_trait]
    impl Contexts for WithBody {
        async fn send(
            &self,
            request: &LocalRequest,
            sink: &mut dyn ContextSink,
            progress: &(dyn for<'a> Fn(&'a str, u64) + Send + Sync),
        ) -> Result<()> {
            self.session.send(request, sink, progress).await
        }

        async fn shared_key(&self, session: &str) -> String {
            self.session.shared_key(session).await
        }

        async fn upload(&self, url: &str) -> Result<Body> {
            if url != self.url {
                return self.session.upload(url).await;
            }
            let body = self.body.lock().unwrap_or_else(PoisonError::into_inner).take();
            body.ok_or_else(|| Error::not_found("the context was read already"))
        }
    }
    let contexts = Arc::new(WithBody { session: client.contexts.clone(), url, body: Mutex::new(Some(body)) });
    Client { contexts, ..client }
}

/// Whether a name was drawn by lot, as the docker command's are.
fn is_unique(name: &str) -> bool {
    (20..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes the query as a request of BuildKit's.
fn translate(request: &ClassicBuild, gateway: Option<IpAddr>) -> Result<Request> {
    let mut attributes = HashMap::new();
    let mut put = |name: &str, value: String| {
        attributes.insert(name.to_owned(), value);
    };
    if !request.target.is_empty() {
        put("target", request.target.clone());
    }
    if !matches!(request.dockerfile.as_str(), "" | ".") {
        put("filename", request.dockerfile.clone());
    }
    if !matches!(request.remote.as_str(), "" | "client-session" | "upload-request") {
        put("context", request.remote.clone());
    }
    put("cache-from", request.cache_from.join(","));
    for (name, value) in &request.build_args {
        put(&format!("build-arg:{name}"), value.clone());
    }
    for (name, value) in &request.labels {
        put(&format!("label:{name}"), value.clone());
    }
    if request.no_cache {
        put("no-cache", String::new());
    }
    put("image-resolve-mode", if request.pull { "pull" } else { "default" }.to_owned());
    if !request.platform.is_empty() {
        put("platform", request.platform.clone());
    }
    match request.network.as_str() {
        "" | "default" => {}
        network @ ("host" | "none") => put("force-network-mode", network.to_owned()),
        other => return Err(Error::invalid(format!("network mode \"{other}\" not supported by buildkit"))),
    }
    put("add-hosts", extra_hosts(&request.extra_hosts, gateway)?);
    if request.shm_size > 0 {
        put("shm-size", request.shm_size.to_string());
    }
    if !request.ulimits.is_empty() {
        let limits = request.ulimits.iter().map(|(name, soft, hard)| format!("{name}={soft}:{hard}"));
        put("ulimit", limits.collect::<Vec<_>>().join(","));
    }
    let (kind, mut attrs) =
        request.outputs.first().cloned().unwrap_or_else(|| ("moby".to_owned(), HashMap::new()));
    if matches!(kind.as_str(), "moby" | "image") && !request.tags.is_empty() {
        attrs.insert("name".to_owned(), request.tags.join(","));
    }
    let mut cache = CacheOptions::default();
    let inline = request.build_args.iter().find(|(name, _)| name == "BUILDKIT_INLINE_CACHE");
    if inline.is_some_and(|(_, value)| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")) {
        cache.exports.push(CacheOptionsEntry { r#type: "inline".to_owned(), attrs: HashMap::new() });
    }
    cache.imports = request
        .cache_from
        .iter()
        .filter(|reference| !reference.is_empty())
        .map(|reference| CacheOptionsEntry {
            r#type: "registry".to_owned(),
            attrs: HashMap::from([("ref".to_owned(), reference.clone())]),
        })
        .collect();
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Error::failed(error.to_string()))?;
    Ok(Request {
        name: hex::encode(random),
        session: request.session.clone(),
        frontend: "dockerfile.v0".to_owned(),
        attributes,
        exporters: vec![Exporter { r#type: kind, attrs }],
        cache,
        entitlements: if request.network == "host" { vec!["network.host".to_owned()] } else { Vec::new() },
        ..Request::default()
    })
}

/// `NAME:ADDRESS` to `NAME=ADDRESS`, as frontends read it; `host-gateway` stands for `gateway`.
fn extra_hosts(hosts: &[String], gateway: Option<IpAddr>) -> Result<String> {
    let mut text = String::new();
    for host in hosts {
        let invalid = || Error::invalid(format!("invalid host {host}"));
        let (name, address) = host.split_once([':', '=']).ok_or_else(invalid)?;
        let address = match address {
            "host-gateway" => {
                gateway.ok_or_else(|| Error::invalid("unable to derive the IP value for host-gateway"))?
            }
            address => {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                address.parse::<IpAddr>().map_err(|_| invalid())?
            }
        };
        if name.is_empty() {
            return Err(invalid());
        }
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}={address}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_what_buildx_would_have_asked() {
        let classic = ClassicBuild {
            remote: "client-session".to_owned(),
            target: "app".to_owned(),
            tags: vec!["a".to_owned(), "b:1".to_owned()],
            build_args: vec![("BUILDKIT_INLINE_CACHE".to_owned(), "1".to_owned())],
            labels: vec![("l".to_owned(), "v".to_owned())],
            network: "host".to_owned(),
            extra_hosts: ["db:10.0.0.1", "six:[::1]", "host:host-gateway"].map(str::to_owned).into(),
            ulimits: vec![("nofile".to_owned(), 1, 2)],
            ..ClassicBuild::default()
        };
        let request = translate(&classic, Some(IpAddr::from([172, 17, 0, 1]))).unwrap();
        let attribute = |name: &str| request.attributes.get(name).map(String::as_str);
        assert_eq!(attribute("target"), Some("app"));
        assert_eq!(attribute("context"), None);
        assert_eq!(attribute("label:l"), Some("v"));
        assert_eq!(attribute("add-hosts"), Some("db=10.0.0.1,six=::1,host=172.17.0.1"));
        assert_eq!(attribute("ulimit"), Some("nofile=1:2"));
        assert_eq!(attribute("force-network-mode"), Some("host"));
        assert_eq!(request.entitlements, ["network.host"]);
        assert_eq!(request.exporters[0].r#type, "moby");
        assert_eq!(request.exporters[0].attrs["name"], "a,b:1");
        assert_eq!(request.cache.exports[0].r#type, "inline");
    }

    #[test]
    fn what_buildkit_refuses_is_refused_in_its_words() {
        let network = ClassicBuild { network: "mine".to_owned(), ..ClassicBuild::default() };
        assert_eq!(
            translate(&network, None).unwrap_err().to_string(),
            "network mode \"mine\" not supported by buildkit"
        );
        for host in ["x", "x:y", ":1.2.3.4", "x:host-gateway"] {
            assert!(extra_hosts(&[host.to_owned()], None).is_err(), "{host}");
        }
    }
}
