//! Processes started in a running container.

use bollard_stubs::models::{ExecConfig, ExecStartConfig};
use http::StatusCode;
use serde_json::json;

use super::containers::hijack;
use super::{Answer, Call, page_not_found};
use crate::backend::{StartExec, TerminalSize};
use crate::body;
use crate::error::{ApiError, Result};
use crate::hijack::detach;
use crate::shape;
use crate::version::ApiVersion;

/// `POST /containers/{id}/exec`.
pub(super) async fn create(call: Call, container: &str) -> Result<Answer> {
    if call.method != http::Method::POST || container.contains('/') {
        return Err(page_not_found());
    }
    let backend = call.backend.clone();
    let before_142 = call.version < ApiVersion::minor(42);
    let mut config: ExecConfig = call.json().await?;
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    if let Some(keys) = config.detach_keys.as_ref().filter(|keys| !keys.is_empty()) {
        detach::parse(keys).map_err(|error| {
            ApiError::bad_request(format!("Invalid detach keys ({keys}) provided: {error}"))
        })?;
    }
    if before_142 {
        config.console_size = None;
    }
    let id = backend.create_exec(container, config).await?;
    Ok(body::json(StatusCode::CREATED, &json!({ "Id": id }))?.into())
}

pub(super) async fn route(call: Call, path: &[&str]) -> Result<Answer> {
    match (call.method.as_str(), path) {
        ("GET", [id, "json"]) if !id.is_empty() => {
            let exec = call.backend.inspect_exec(id).await?;
            Ok(body::json(StatusCode::OK, &shape::exec(exec)?)?.into())
        }
        ("POST", [id, "resize"]) if !id.is_empty() => {
            call.backend.resize_exec(id, call.query.terminal_size()?).await?;
            Ok(body::empty(StatusCode::OK).into())
        }
        ("POST", [id, "start"]) if !id.is_empty() => start(call, id).await,
        _ => Err(page_not_found()),
    }
}

async fn start(mut call: Call, id: &str) -> Result<Answer> {
    let config: ExecStartConfig = call.take_optional_json().await?;
    let tty = config.tty.unwrap_or_default();
    let console_size = match config.console_size.as_deref() {
        None => None,
        Some(_) if call.version < ApiVersion::minor(42) => None,
        Some([height, width]) if tty => {
            let clamp = |size: &usize| u16::try_from(*size).unwrap_or(u16::MAX);
            Some(TerminalSize { height: clamp(height), width: clamp(width) }).filter(|size| size.height > 0)
        }
        Some(_) if !tty => {
            return Err(ApiError::bad_request("console size is only supported when TTY is enabled"));
        }
        Some(_) => return Err(ApiError::bad_request("invalid JSON: ConsoleSize must have two numbers")),
    };
    let options = StartExec { tty, console_size };
    if config.detach.unwrap_or_default() {
        call.backend.start_exec_detached(id, options).await?;
        return Ok(body::empty(StatusCode::OK).into());
    }
    let streams = call.backend.start_exec(id, options).await?;
    let mut hijack = hijack(&call, streams, None);
    // How output is framed is said at the start, whether the process has a terminal when it is made.
    hijack.multiplexed = !tty;
    hijack.announce_multiplexed &= !tty;
    Ok(Answer::Hijack(hijack))
}
