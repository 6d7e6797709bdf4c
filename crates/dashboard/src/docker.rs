//! One request to the engine, and its answer.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::answer::{Body, Refusal, set};
use crate::guard;
use crate::upstream::{Purpose, Upstream, engine_away};

/// What the engine gets to see of a request. Cookies and keys are not among it.
const OF_REQUESTS: [HeaderName; 4] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    HeaderName::from_static("x-registry-auth"),
    HeaderName::from_static("x-registry-config"),
];
/// What the page gets to see of an answer. Cookies and redirections are not among it.
const OF_ANSWERS: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    HeaderName::from_static("api-version"),
    HeaderName::from_static("x-docker-container-path-stat"),
];

/// Copies the headers that may pass.
pub(crate) fn pass(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

/// Forwards a request whose path was `/docker` and `path`.
pub(crate) async fn forward(
    upstream: &Upstream,
    request: Request<Incoming>,
    path: &str,
) -> Result<Response<Body>, Refusal> {
    guard::path(path)?;
    let method = request.method().clone();
    if ![Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE].contains(&method) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "the engine knows no such method"));
    }
    let (parts, body) = request.into_parts();
    let body: Body = body.map_err(Into::into).boxed_unsync();
    let mut asked = new(&method, path, body)?;
    pass(&parts.headers, asked.headers_mut(), &OF_REQUESTS);
    let mut sender = upstream.engine(Purpose::of(&method, path)).await?;
    let response = sender.send_request(asked).await.map_err(engine_away)?;
    let (parts, body) = response.into_parts();
    let mut answer = Response::new(body.map_err(Into::into).boxed_unsync());
    *answer.status_mut() = parts.status;
    pass(&parts.headers, answer.headers_mut(), &OF_ANSWERS);
    // A file of a container is something to be saved, never a page.
    set(&mut answer, header::CONTENT_DISPOSITION, "attachment");
    Ok(answer)
}

/// Makes a request to the engine.
pub(crate) fn new(method: &Method, path: &str, body: Body) -> Result<Request<Body>, Refusal> {
    let wrong = |error: hyper::http::Error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string());
    let mut request = Request::builder().method(method).uri(path).body(body).map_err(wrong)?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("skiff"));
    Ok(request)
}
