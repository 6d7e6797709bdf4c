//! Volumes.

use bollard_stubs::models::VolumeCreateRequest;
use http::StatusCode;

use super::{Answer, Call, page_not_found};
use crate::body;
use crate::error::{ApiError, Result};
use crate::shape;
use crate::version::ApiVersion;

const LIST_FILTERS: &[&str] = &["dangling", "driver", "label", "name"];
const PRUNE_FILTERS: &[&str] = &["all", "label", "label!"];

pub(super) async fn route(mut call: Call, path: &[&str]) -> Result<Answer> {
    match (call.method.as_str(), path) {
        ("GET", [] | [""]) => {
            let list = call.backend.list_volumes(call.query.filters(LIST_FILTERS)?).await?;
            Ok(body::json(StatusCode::OK, &shape::volume_list(list)?)?.into())
        }
        ("POST", ["create"]) => {
            let request: VolumeCreateRequest = call.take_optional_json().await?;
            if request.cluster_volume_spec.is_some() && call.version >= ApiVersion::minor(42) {
                return Err(super::swarm::not_a_manager());
            }
            let volume = call.backend.create_volume(request).await?;
            Ok(body::json(StatusCode::CREATED, &shape::volume(volume)?)?.into())
        }
        ("POST", ["prune"]) => {
            let mut filters = call.query.filters(PRUNE_FILTERS)?;
            if call.version < ApiVersion::minor(42) && !filters.contains("all") {
                filters.add("all", "true");
            }
            let report = call.backend.prune_volumes(filters).await?;
            Ok(body::json(StatusCode::OK, &shape::volume_prune(report)?)?.into())
        }
        ("PUT", [_]) => Err(ApiError::unavailable(
            "volume update only valid for cluster volumes, but swarm is unavailable",
        )),
        // Skiff's own: a volume's files without a container around them.
        ("GET", [name, "files"]) => {
            let path = call.query.filled("path").unwrap_or("/");
            Ok(body::json(StatusCode::OK, &call.backend.volume_files(name, path).await?)?.into())
        }
        (_, [name, "archive"]) => super::archive::of_volume(call, name).await,
        ("GET", [name]) => {
            let volume = call.backend.inspect_volume(name).await?;
            Ok(body::json(StatusCode::OK, &shape::volume(volume)?)?.into())
        }
        ("DELETE", [name]) => {
            call.backend.remove_volume(name, call.query.flag("force")).await?;
            Ok(body::empty(StatusCode::NO_CONTENT).into())
        }
        _ => Err(page_not_found()),
    }
}
