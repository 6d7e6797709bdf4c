//! What each path and method does.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LINK, LOCATION, RANGE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, BodyStream, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::answer::{self, Body, CONTENT_DIGEST};
use crate::auth::{self, Users};
use crate::error::{Refusal, Result};
use crate::manifest::{MAX_SIZE, Manifest, OCI_INDEX};
use crate::name::{self, Digest, Reference};
use crate::range::{self, Wanted};
use crate::store::{Store, Upload};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
/// How many names one answer may have.
const MAX_PAGE: usize = 10_000;
/// How long a client may say nothing in the middle of what it sends.
const STALL: Duration = Duration::from_secs(60);

/// What all requests share.
#[derive(Debug)]
pub struct State {
    /// The contents.
    pub store: Arc<Store>,
    /// Who may use it.
    pub users: Users,
    /// Whether nothing may be changed.
    pub read_only: bool,
}

/// Answers a request.
pub async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = match route(state, request).await {
        Ok(response) => response,
        Err(refusal) => answer::refusal(&refusal),
    };
    tracing::debug!(op = %method, path, status = response.status().as_u16(), "request answered");
    response
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    state: &Arc<State>,
    work: impl FnOnce(&State) -> Result<T> + Send + 'static,
) -> Result<T> {
    let state = Arc::clone(state);
    match tokio::task::spawn_blocking(move || work(&state)).await {
        Ok(result) => result,
        Err(error) => Err(Refusal::internal("work", &std::io::Error::other(error.to_string()))),
    }
}

async fn route(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>> {
    let credentials = auth::credentials(request.headers());
    if !blocking(&state, move |state| Ok(state.users.allow(credentials.as_ref()))).await? {
        return Err(Refusal::unauthorized());
    }
    let path = percent_encoding::percent_decode_str(request.uri().path())
        .decode_utf8()
        .map_err(|_| Refusal::not_found())?
        .into_owned();
    let Some(path) = path.strip_prefix("/v2") else { return Err(Refusal::not_found()) };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && state.read_only {
        return Err(Refusal::denied("this registry is read-only"));
    }
    if matches!(path, "" | "/") {
        return if reads {
            Ok(answer::json(StatusCode::OK, &json!({})))
        } else {
            Err(Refusal::unsupported())
        };
    }
    let path = path.strip_prefix('/').ok_or_else(Refusal::not_found)?;
    let query: HashMap<String, String> =
        form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let call = Call { state, query };
    if path == "_catalog" {
        return if reads { call.catalog().await } else { Err(Refusal::unsupported()) };
    }
    if let Some(name) = path.strip_suffix("/tags/list") {
        return if reads { call.tags(name).await } else { Err(Refusal::unsupported()) };
    }
    // A repository may be called like a part of a path; its own part is the last one.
    let parts = [
        ("/blobs/uploads/", Part::Upload),
        ("/manifests/", Part::Manifest),
        ("/blobs/", Part::Blob),
        ("/referrers/", Part::Referrers),
    ];
    let found = parts.iter().filter_map(|(part, kind)| {
        let at = path.rfind(part)?;
        let rest = &path[at + part.len()..];
        (!rest.contains('/')).then_some((at, *kind, rest))
    });
    let path_uploads = path.strip_suffix("/blobs/uploads").map(|name| (name.len(), Part::Upload, ""));
    let Some((at, kind, rest)) = path_uploads.or_else(|| found.min_by_key(|(_, kind, _)| *kind)) else {
        return Err(Refusal::not_found());
    };
    let name = name::repository(&path[..at])?.to_owned();
    match kind {
        Part::Upload => call.upload(name, rest.to_owned(), request).await,
        Part::Manifest => call.manifest(name, rest, request).await,
        Part::Blob => call.blob(name, rest, request).await,
        Part::Referrers if reads => call.referrers(name, rest).await,
        Part::Referrers => Err(Refusal::unsupported()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Upload,
    Manifest,
    Blob,
    Referrers,
}

struct Call {
    state: Arc<State>,
    query: HashMap<String, String>,
}

fn header<'a>(request: &'a Request<Incoming>, name: &HeaderName) -> Option<&'a str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

impl Call {
    async fn catalog(self) -> Result<Response<Body>> {
        let names = blocking(&self.state, |state| state.store.catalog()).await?;
        self.page("/v2/_catalog", names, |page| json!({ "repositories": page }))
    }

    async fn tags(self, name: &str) -> Result<Response<Body>> {
        let name = name::repository(name)?.to_owned();
        let wanted = name.clone();
        let tags = blocking(&self.state, move |state| {
            if !state.store.exists(&wanted) {
                return Err(Refusal::name_unknown(&wanted));
            }
            state.store.tags(&wanted)
        })
        .await?;
        self.page(&format!("/v2/{name}/tags/list"), tags, |page| json!({ "name": name, "tags": page }))
    }

    /// A part of a list: `n` names after `last`, with a link to what follows.
    fn page(
        &self,
        path: &str,
        mut names: Vec<String>,
        body: impl FnOnce(&[String]) -> Value,
    ) -> Result<Response<Body>> {
        names.sort();
        if let Some(last) = self.query.get("last") {
            names.retain(|name| name > last);
        }
        let most = match self.query.get("n") {
            None => MAX_PAGE,
            Some(number) => number.parse::<usize>().map_err(|_| Refusal {
                status: StatusCode::BAD_REQUEST,
                code: "PAGINATION_NUMBER_INVALID",
                message: "invalid number of results requested".to_owned(),
                detail: json!({ "n": number }),
            })?,
        };
        let more = names.len() > most.min(MAX_PAGE);
        names.truncate(most.min(MAX_PAGE));
        let response = answer::json(StatusCode::OK, &body(&names));
        Ok(match names.last().filter(|_| more) {
            Some(last) => {
                let last: String = form_urlencoded::byte_serialize(last.as_bytes()).collect();
                answer::with(response, LINK, &format!("<{path}?last={last}&n={most}>; rel=\"next\""))
            }
            None => response,
        })
    }

    async fn referrers(self, name: String, digest: &str) -> Result<Response<Body>> {
        let subject = Digest::parse(digest)?;
        let kind = self.query.get("artifactType").cloned();
        let filtered = kind.is_some();
        let mut list = blocking(&self.state, move |state| state.store.referrers(&name, &subject)).await?;
        if let Some(kind) = kind {
            list.retain(|one| one["artifactType"] == kind.as_str());
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list});
        let response = answer::bytes(StatusCode::OK, OCI_INDEX, index.to_string().into_bytes());
        Ok(if filtered { answer::with(response, OCI_FILTERS, "artifactType") } else { response })
    }

    async fn manifest(
        self,
        name: String,
        reference: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>> {
        let reference = Reference::parse(reference)?;
        match *request.method() {
            Method::GET | Method::HEAD => {
                let found =
                    blocking(&self.state, move |state| state.store.manifest(&name, &reference)).await?;
                let response = answer::bytes(StatusCode::OK, &found.media_type, found.bytes);
                Ok(answer::with(response, CONTENT_DIGEST, &found.digest.to_string()))
            }
            Method::PUT => {
                let content_type = header(&request, &CONTENT_TYPE).map(str::to_owned);
                let body = Limited::new(request.into_body(), MAX_SIZE).collect();
                let bytes = match tokio::time::timeout(STALL, body).await {
                    Ok(Ok(body)) => body.to_bytes(),
                    Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                        return Err(Refusal::size_invalid("a manifest has at most 4 MiB"));
                    }
                    _ => return Err(Refusal::manifest_invalid("its end was not sent")),
                };
                let manifest = Manifest::parse(&bytes, content_type.as_deref())?;
                let subject = manifest.subject.clone();
                let stored = name.clone();
                let digest = blocking(&self.state, move |state| {
                    state.store.put_manifest(&stored, &reference, &bytes, &manifest)
                })
                .await?;
                let mut response = answer::empty(StatusCode::CREATED);
                response = answer::with(response, LOCATION, &format!("/v2/{name}/manifests/{digest}"));
                response = answer::with(response, CONTENT_DIGEST, &digest.to_string());
                Ok(match subject {
                    Some(subject) => answer::with(response, OCI_SUBJECT, &subject.to_string()),
                    None => response,
                })
            }
            Method::DELETE => {
                blocking(&self.state, move |state| state.store.delete_manifest(&name, &reference)).await?;
                Ok(answer::empty(StatusCode::ACCEPTED))
            }
            _ => Err(Refusal::unsupported()),
        }
    }

    async fn blob(self, name: String, digest: &str, request: Request<Incoming>) -> Result<Response<Body>> {
        let digest = Digest::parse(digest)?;
        if *request.method() == Method::DELETE {
            blocking(&self.state, move |state| state.store.delete_blob(&name, &digest)).await?;
            return Ok(answer::empty(StatusCode::ACCEPTED));
        }
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return Err(Refusal::unsupported()),
        };
        let wanted = digest.clone();
        let size = blocking(&self.state, move |state| state.store.blob_size(&name, &wanted)).await?;
        let finish = |response: Response<Body>| {
            let response = answer::with(response, CONTENT_DIGEST, &digest.to_string());
            let response = answer::with(response, ACCEPT_RANGES, "bytes");
            answer::with(response, CONTENT_TYPE, "application/octet-stream")
        };
        if head {
            let response = answer::empty(StatusCode::OK);
            return Ok(finish(answer::with(response, CONTENT_LENGTH, &size.to_string())));
        }
        let (status, start, length) = match range::wanted(header(&request, &RANGE), size) {
            Wanted::All => (StatusCode::OK, 0, size),
            Wanted::Part { start, length } => (StatusCode::PARTIAL_CONTENT, start, length),
            Wanted::Nothing => {
                let response = answer::empty(StatusCode::RANGE_NOT_SATISFIABLE);
                return Ok(answer::with(response, CONTENT_RANGE, &format!("bytes */{size}")));
            }
        };
        let open = async {
            let mut file = tokio::fs::File::open(self.state.store.blob_path(&digest)).await?;
            if start > 0 {
                file.seek(SeekFrom::Start(start)).await?;
            }
            Ok(file)
        };
        let file = open.await.map_err(|error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Refusal::blob_unknown(),
            _ => Refusal::internal("open blob", &error),
        })?;
        let response = answer::file(status, file, length);
        Ok(finish(match status {
            StatusCode::PARTIAL_CONTENT => {
                answer::with(response, CONTENT_RANGE, &format!("bytes {start}-{}/{size}", start + length - 1))
            }
            _ => response,
        }))
    }

    async fn upload(self, name: String, id: String, request: Request<Incoming>) -> Result<Response<Body>> {
        let digest = self.query.get("digest").map(|text| Digest::parse(text)).transpose()?;
        match (request.method().clone(), id.is_empty()) {
            (Method::POST, true) => self.begin(name, digest, request).await,
            (Method::GET, false) => {
                let size = self.state.store.upload(&id)?.size()?;
                Ok(progress(StatusCode::NO_CONTENT, &name, &id, size))
            }
            (Method::PATCH, false) => {
                let upload = self.state.store.upload(&id)?;
                let size = append(&upload, request).await?;
                Ok(progress(StatusCode::ACCEPTED, &name, &id, size))
            }
            (Method::PUT, false) => {
                let Some(digest) = digest else {
                    return Err(Refusal::digest_invalid("the request has no digest"));
                };
                let upload = self.state.store.upload(&id)?;
                append(&upload, request).await?;
                self.finish(&name, upload, &digest).await
            }
            (Method::DELETE, false) => {
                self.state.store.upload(&id)?.cancel()?;
                Ok(answer::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(Refusal::unsupported()),
        }
    }

    async fn begin(
        self,
        name: String,
        digest: Option<Digest>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>> {
        if let (Some(mount), Some(from)) = (self.query.get("mount"), self.query.get("from")) {
            let mount = Digest::parse(mount)?;
            let from = name::repository(from)?.to_owned();
            let (to, wanted) = (name.clone(), mount.clone());
            if blocking(&self.state, move |state| state.store.mount(&to, &from, &wanted)).await? {
                return Ok(created(&name, &mount));
            }
        }
        let id = blocking(&self.state, |state| state.store.begin()).await?;
        match digest {
            None => Ok(progress(StatusCode::ACCEPTED, &name, &id, 0)),
            // All of it comes with the first request.
            Some(digest) => {
                let upload = self.state.store.upload(&id)?;
                if let Err(refusal) = append(&upload, request).await {
                    // Nobody can go on with it: its id was never told.
                    upload.cancel()?;
                    return Err(refusal);
                }
                self.finish(&name, upload, &digest).await
            }
        }
    }

    async fn finish(&self, name: &str, upload: Upload, digest: &Digest) -> Result<Response<Body>> {
        let found = hash(&upload, digest).await?;
        let (to, wanted) = (name.to_owned(), digest.clone());
        blocking(&self.state, move |state| state.store.finish(&to, &upload, &wanted, &found)).await?;
        Ok(created(name, digest))
    }
}

fn created(name: &str, digest: &Digest) -> Response<Body> {
    let response =
        answer::with(answer::empty(StatusCode::CREATED), LOCATION, &format!("/v2/{name}/blobs/{digest}"));
    answer::with(response, CONTENT_DIGEST, &digest.to_string())
}

fn progress(status: StatusCode, name: &str, id: &str, size: u64) -> Response<Body> {
    let response = answer::with(answer::empty(status), LOCATION, &format!("/v2/{name}/blobs/uploads/{id}"));
    let response = answer::with(response, RANGE, &format!("0-{}", size.saturating_sub(1)));
    answer::with(response, UPLOAD_ID, id)
}

/// Writes a request's body to the end of an upload; returns its size then.
async fn append(upload: &Upload, request: Request<Incoming>) -> Result<u64> {
    let internal = |error: std::io::Error| Refusal::internal("write upload", &error);
    let before = upload.size()?;
    let expected = match header(&request, &CONTENT_RANGE) {
        None => None,
        Some(range) => {
            let (start, length) = range::sent(range)?;
            if start != before {
                return Err(Refusal::range_invalid());
            }
            Some(length)
        }
    };
    let mut file = tokio::fs::OpenOptions::new().append(true).open(upload.path()).await.map_err(internal)?;
    let mut pieces = BodyStream::new(request.into_body());
    let mut written = 0;
    let result = loop {
        match tokio::time::timeout(STALL, pieces.next()).await {
            Err(_) => break Err(Refusal::upload_invalid("the client stopped sending")),
            Ok(None) => break Ok(()),
            Ok(Some(Err(_))) => {
                break Err(Refusal::upload_invalid("the connection ended before the content"));
            }
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                if let Err(error) = file.write_all(&data).await {
                    break Err(internal(error));
                }
                written += data.len() as u64;
            }
        }
    };
    file.flush().await.map_err(internal)?;
    let result = match (result, expected) {
        (Ok(()), Some(expected)) if expected != written => {
            Err(Refusal::upload_invalid("the content is not as long as its range"))
        }
        (result, _) => result,
    };
    if let Err(refusal) = result {
        // Half a piece would stand in the way of the piece when it is sent again.
        file.set_len(before).await.map_err(internal)?;
        return Err(refusal);
    }
    Ok(before + written)
}

async fn hash(upload: &Upload, wanted: &Digest) -> Result<Digest> {
    let read = async {
        let mut file = tokio::fs::File::open(upload.path()).await?;
        let mut hasher = wanted.algorithm.hasher();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).await? {
                0 => return Ok(hasher.finish()),
                length => hasher.update(&buffer[..length]),
            }
        }
    };
    read.await.map_err(|error: std::io::Error| Refusal::internal("read upload", &error))
}
