//! The engine itself, and probes for what isn't offered.

use futures_util::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use super::{Answer, Call, page_not_found};
use crate::backend::{DiskUsageKinds, EventsOptions, UnixTime};
use crate::body;
use crate::error::{ApiError, Result};
use crate::shape;
use crate::version::ApiVersion;

const EVENT_FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

pub(super) async fn route(call: Call, path: &[&str]) -> Result<Answer> {
    match (call.method.as_str(), path) {
        ("GET" | "HEAD", ["_ping"]) => Ok(ping(&call.method).into()),
        ("GET", ["version"]) => {
            let version = call.backend.version().await?;
            Ok(body::json(StatusCode::OK, &shape::version(version)?)?.into())
        }
        ("GET", ["info"]) => {
            let info = call.backend.info().await?;
            Ok(body::json(StatusCode::OK, &shape::info(info, call.version)?)?.into())
        }
        ("GET", ["events"]) => events(call).await,
        ("GET", ["system", "df"]) => disk_usage(call).await,
        _ => Err(page_not_found()),
    }
}

/// Clients ask this first, and read the server's versions from its headers.
fn ping(method: &Method) -> Response<body::Body> {
    let text = if *method == Method::HEAD { "" } else { "OK" };
    let mut response = Response::new(body::full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    // 1 is the classic builder; 2 sends clients to BuildKit's endpoints.
    headers.insert(HeaderName::from_static("builder-version"), HeaderValue::from_static("2"));
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    response
}

async fn events(call: Call) -> Result<Answer> {
    // -1 is how old clients say "no time".
    let time = |name| -> Result<Option<UnixTime>> {
        Ok(call.query.time(name)?.filter(|time| *time != UnixTime { seconds: -1, nanoseconds: 0 }))
    };
    let options = EventsOptions {
        since: time("since")?,
        until: time("until")?,
        // As dockerd, which listens for ever with a filter that it does not know.
        filters: call.query.known_filters(EVENT_FILTERS)?,
    };
    if let (Some(since), Some(until)) = (options.since, options.until)
        && until < since
    {
        return Err(ApiError::bad_request(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            call.query.get("since").unwrap_or_default(),
            call.query.get("until").unwrap_or_default()
        )));
    }
    let events = call.backend.events(options).await?;
    let shaped = events.map(|event| event.and_then(shape::event));
    Ok(body::json_stream(shaped, |error| {
        tracing::warn!(%error, "event stream ended");
        None
    })
    .into())
}

async fn disk_usage(call: Call) -> Result<Answer> {
    let mut kinds = DiskUsageKinds { containers: true, images: true, volumes: true, build_cache: true };
    let mut wanted = call.query.all("type").peekable();
    if call.version >= ApiVersion::minor(42) && wanted.peek().is_some() {
        kinds = DiskUsageKinds { containers: false, images: false, volumes: false, build_cache: false };
        for kind in wanted {
            match kind {
                "container" => kinds.containers = true,
                "image" => kinds.images = true,
                "volume" => kinds.volumes = true,
                "build-cache" => kinds.build_cache = true,
                other => return Err(ApiError::bad_request(format!("unknown object type: {other}"))),
            }
        }
    }
    let usage = call.backend.disk_usage(kinds).await?;
    Ok(body::json(StatusCode::OK, &shape::disk_usage(usage, kinds, call.version)?)?.into())
}
