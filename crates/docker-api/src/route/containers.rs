//! Containers.

use bollard_stubs::models::{ContainerWaitExitError, ContainerWaitResponse};
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use super::{Answer, Call, Hijack, archive, create, page_not_found};
use crate::backend::{
    AttachOptions, ListContainers, LogsOptions, RemoveContainer, StatsOptions, StopOptions, Tail,
    WaitCondition, WaitResult,
};
use crate::body::{self, BoxError};
use crate::error::{ApiError, Result};
use crate::go_json;
use crate::hijack::detach;
use crate::hijack::multiplex;
use crate::hijack::websocket::{Frames, Handshake};
use crate::shape;
use crate::version::ApiVersion;

const LIST_FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];

/// Since this version clients are told by the content type whether output is multiplexed.
const ANNOUNCES_FORMAT: ApiVersion = ApiVersion::minor(42);

pub(crate) const RAW_STREAM: HeaderValue = HeaderValue::from_static("application/vnd.docker.raw-stream");
pub(crate) const MULTIPLEXED_STREAM: HeaderValue =
    HeaderValue::from_static("application/vnd.docker.multiplexed-stream");

pub(super) async fn route(call: Call, path: &[&str]) -> Result<Answer> {
    match (call.method.as_str(), path) {
        ("GET", ["json"]) => list(call).await,
        ("POST", ["create"]) => create::create(call).await,
        ("POST", ["prune"]) => {
            let report = call.backend.prune_containers(call.query.filters(PRUNE_FILTERS)?).await?;
            Ok(body::json(StatusCode::OK, &shape::container_prune(report)?)?.into())
        }
        // A link is named by its container and its alias.
        ("DELETE", [id, alias @ ..])
            if !id.is_empty() && (alias.is_empty() || alias.len() == 1 && call.query.flag("link")) =>
        {
            let id = &[&[*id], alias].concat().join("/");
            let query = &call.query;
            let options = RemoveContainer {
                force: query.flag("force"),
                volumes: query.flag("v"),
                link: query.flag("link"),
            };
            call.backend.remove_container(id, options).await?;
            done()
        }
        ("GET" | "POST", [_, "checkpoints"]) | ("DELETE", [_, "checkpoints", _]) => {
            Err(ApiError::not_implemented(
                "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order \
                 to enable it.",
            ))
        }
        ("GET", [id, "attach", "ws"]) if !id.is_empty() => attach_websocket(call, id).await,
        (_, [id, operation]) if !id.is_empty() => one(call, id, operation).await,
        _ => Err(page_not_found()),
    }
}

/// Operations on one container.
async fn one(call: Call, id: &str, operation: &str) -> Result<Answer> {
    let backend = &call.backend;
    match (call.method.as_str(), operation) {
        ("GET", "json") => {
            let container = backend.inspect_container(id, call.query.flag("size")).await?;
            Ok(body::json(StatusCode::OK, &shape::container(container, call.version)?)?.into())
        }
        ("GET", "logs") => logs(call, id).await,
        ("GET", "stats") => stats(call, id).await,
        ("GET", "top") => {
            // dockerd's default; an empty value means the same.
            let arguments = call.query.filled("ps_args").unwrap_or("-ef");
            let processes = backend.top_container(id, arguments).await?;
            Ok(body::json(StatusCode::OK, &shape::top(processes)?)?.into())
        }
        ("POST", "start") => {
            if has_body(&call) {
                return Err(ApiError::bad_request(
                    "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
                ));
            }
            backend.start_container(id).await?;
            done()
        }
        ("POST", "stop") => {
            backend.stop_container(id, stop_options(&call)?).await?;
            done()
        }
        ("POST", "restart") => {
            backend.restart_container(id, stop_options(&call)?).await?;
            done()
        }
        ("POST", "kill") => {
            backend.kill_container(id, call.query.filled("signal")).await?;
            done()
        }
        ("POST", "pause") => {
            backend.pause_container(id).await?;
            done()
        }
        ("POST", "unpause") => {
            backend.unpause_container(id).await?;
            done()
        }
        ("POST", "rename") => {
            backend.rename_container(id, call.query.get("name").unwrap_or_default()).await?;
            done()
        }
        ("POST", "update") => update(call, id).await,
        ("POST", "resize") => {
            backend.resize_container(id, call.query.terminal_size()?).await?;
            Ok(body::empty(StatusCode::OK).into())
        }
        (_, "archive") => archive::route(call, id).await,
        ("GET", "changes") => archive::changes(call, id).await,
        ("GET", "export") => archive::export(call, id).await,
        ("POST", "wait") => wait(call, id).await,
        ("POST", "attach") => attach(call, id).await,
        _ => Err(page_not_found()),
    }
}

/// `POST /containers/{id}/update`.
async fn update(call: Call, id: &str) -> Result<Answer> {
    let (backend, version) = (call.backend.clone(), call.version);
    let mut document: serde_json::Value = call.json().await?;
    create::check_words(&mut document)?;
    if version < ApiVersion::minor(40)
        && let Some(fields) = document.as_object_mut()
    {
        // Their zero is "not set".
        fields.retain(|name, value| !name.eq_ignore_ascii_case("PidsLimit") || value.as_i64() != Some(0));
    }
    let update = go_json::from_value(document).map_err(|error| body::invalid_json(&error))?;
    let updated = backend.update_container(id, update).await?;
    Ok(body::json(StatusCode::OK, &serde_json::json!({ "Warnings": updated.warnings }))?.into())
}

fn done() -> Result<Answer> {
    Ok(body::empty(StatusCode::NO_CONTENT).into())
}

/// An empty JSON object is let through: some clients send one.
fn has_body(call: &Call) -> bool {
    let headers = &call.headers;
    match headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
    {
        Some(length) => length > 7,
        None => headers.contains_key(http::header::TRANSFER_ENCODING),
    }
}

async fn list(call: Call) -> Result<Answer> {
    let query = &call.query;
    let filters = query.filters(LIST_FILTERS)?;
    let limit =
        query.integer("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let options = ListContainers {
        all: query.flag("all") || limit.is_some(),
        limit,
        size: query.flag("size"),
        filters,
    };
    let containers = call.backend.list_containers(options).await?;
    Ok(body::json(StatusCode::OK, &shape::container_list(containers, call.version)?)?.into())
}

fn stop_options(call: &Call) -> Result<StopOptions> {
    let signal = call.query.filled("signal").filter(|_| call.version >= ApiVersion::minor(42));
    Ok(StopOptions { signal: signal.map(str::to_owned), timeout_seconds: call.query.integer("t")? })
}

async fn wait(call: Call, id: &str) -> Result<Answer> {
    let before_130 = call.version < ApiVersion::minor(30);
    let condition = match call.query.filled("condition").filter(|_| !before_130) {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(ApiError::bad_request(format!("invalid condition: {other:?}"))),
    };
    let result = call.backend.wait_container(id, condition).await?;
    if before_130 {
        return Ok(body::json(StatusCode::OK, &exit_status(result).await)?.into());
    }
    // The headers go out now: the client starts the container when it has them.
    let body = futures_util::stream::once(async move { Ok(exit_status(result).await) });
    Ok(body::json_stream(body, |_| None).into())
}

async fn exit_status(result: WaitResult) -> ContainerWaitResponse {
    result.await.unwrap_or_else(|error| ContainerWaitResponse {
        status_code: -1,
        error: Some(ContainerWaitExitError { message: Some(error.message) }),
    })
}

async fn logs(call: Call, id: &str) -> Result<Answer> {
    let query = &call.query;
    // "0" is how clients say "no limit".
    let time = |name| Ok(query.time(name)?.filter(|time| (time.seconds, time.nanoseconds) != (0, 0)));
    let options = LogsOptions {
        follow: query.flag("follow"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: time("since")?,
        until: time("until")?,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        tail: query.filled("tail").and_then(|lines| lines.parse().ok()).map_or(Tail::All, Tail::Lines),
    };
    if !options.stdout && !options.stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let logs = call.backend.container_logs(id, options).await?;
    let multiplexed = !logs.tty;
    let bytes = logs.output.flat_map(move |chunk| {
        let frames = match chunk {
            Ok(chunk) if multiplexed => multiplex::frames(chunk).map(Ok).collect(),
            Ok(chunk) => vec![Ok(chunk.bytes)],
            Err(error) => vec![Err(BoxError::from(error))],
        };
        futures_util::stream::iter(frames)
    });
    let mut response = Response::new(body::stream(bytes));
    let announce = multiplexed && call.version >= ANNOUNCES_FORMAT;
    response.headers_mut().insert(CONTENT_TYPE, if announce { MULTIPLEXED_STREAM } else { RAW_STREAM });
    Ok(response.into())
}

async fn stats(call: Call, id: &str) -> Result<Answer> {
    let options = StatsOptions {
        stream: call.query.flag_or("stream", true),
        one_shot: call.version >= ApiVersion::minor(41) && call.query.flag("one-shot"),
    };
    let measurements = call.backend.container_stats(id, options).await?;
    let shaped = measurements.map(|stats| stats.and_then(shape::stats));
    if options.stream {
        Ok(body::json_stream(shaped, |_| None).into())
    } else {
        Ok(body::json_lines(shaped.take(1), |_| None).await?.into())
    }
}

/// Reads the keys that detach.
fn detach_keys(call: &Call) -> Result<Option<String>> {
    let keys = call.query.filled("detachKeys").map(str::to_owned);
    if let Some(keys) = &keys {
        detach::parse(keys).map_err(|error| {
            ApiError::bad_request(format!("Invalid detach keys ({keys}) provided: {error}"))
        })?;
    }
    Ok(keys)
}

async fn attach(call: Call, id: &str) -> Result<Answer> {
    let query = &call.query;
    let keys = detach_keys(&call)?;
    let options = AttachOptions {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        detach_keys: keys.clone(),
    };
    let streams = call.backend.attach_container(id, options).await?;
    Ok(Answer::Hijack(hijack(&call, streams, keys)))
}

/// `GET /containers/{id}/attach/ws`: the streams on a WebSocket, all of them for clients from before 1.42.
async fn attach_websocket(call: Call, id: &str) -> Result<Answer> {
    let query = &call.query;
    let keys = detach_keys(&call)?;
    let stream = |name| call.version < ApiVersion::minor(42) || query.flag(name);
    let options = AttachOptions {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: stream("stdin"),
        stdout: stream("stdout"),
        stderr: stream("stderr"),
        detach_keys: keys.clone(),
    };
    let frames = if call.version < ApiVersion::minor(28) { Frames::Text } else { Frames::Binary };
    let handshake = Handshake::new(&call.headers, frames)?;
    let streams = call.backend.attach_container(id, options).await?;
    let hijack = hijack(&call, streams, keys);
    Ok(Answer::Hijack(Hijack { multiplexed: false, websocket: Some(handshake), ..hijack }))
}

/// Prepares the connection's end as HTTP.
pub(super) fn hijack(call: &Call, streams: crate::backend::AttachStreams, keys: Option<String>) -> Hijack {
    let keys = keys.or_else(|| streams.detach_keys.clone()).filter(|keys| !keys.is_empty());
    // The backend's own keys were checked when they were set; what cannot be read detaches nothing.
    let detach_keys =
        keys.map_or_else(|| detach::DEFAULT.to_vec(), |keys| detach::parse(&keys).unwrap_or_default());
    let announce_multiplexed = !streams.tty && call.wants_upgrade() && call.version >= ANNOUNCES_FORMAT;
    let (multiplexed, loses_early_output) = (!streams.tty, call.loses_early_output());
    Hijack { streams, detach_keys, multiplexed, announce_multiplexed, loses_early_output, websocket: None }
}
