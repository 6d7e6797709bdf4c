//! Networks.

use bollard_stubs::models::{EndpointSettings, NetworkCreateRequest};
use http::StatusCode;
use serde::Deserialize;

use super::{Answer, Call, page_not_found};
use crate::backend::InspectNetwork;
use crate::body;
use crate::error::{ApiError, Result};
use crate::shape;

const LIST_FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Connect {
    container: String,
    endpoint_config: Option<EndpointSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Disconnect {
    container: String,
    force: Option<bool>,
}

pub(super) async fn route(mut call: Call, path: &[&str]) -> Result<Answer> {
    match (call.method.as_str(), path) {
        // Clients differ on the slash at the end.
        ("GET", [] | [""]) => {
            let networks = call.backend.list_networks(call.query.filters(LIST_FILTERS)?).await?;
            Ok(body::json(StatusCode::OK, &shape::network_list(networks, call.version)?)?.into())
        }
        ("GET", [id]) => {
            let options = InspectNetwork {
                verbose: call.query.flag("verbose"),
                scope: call.query.filled("scope").map(str::to_owned),
            };
            let network = call.backend.inspect_network(id, options).await?;
            Ok(body::json(StatusCode::OK, &shape::network(network, call.version)?)?.into())
        }
        ("POST", ["create"]) => {
            let backend = call.backend.clone();
            let request: NetworkCreateRequest = call.json().await?;
            let created = backend.create_network(request).await?;
            Ok(body::json(StatusCode::CREATED, &created)?.into())
        }
        ("POST", ["prune"]) => {
            let filters = call.query.filters(PRUNE_FILTERS)?;
            let report = call.backend.prune_networks(filters).await?;
            Ok(body::json(StatusCode::OK, &shape::network_prune(report)?)?.into())
        }
        ("POST", [id, "connect"]) => {
            let request: Connect = call.take_optional_json().await?;
            let container = named(&request.container)?;
            call.backend.connect_network(id, container, request.endpoint_config).await?;
            Ok(body::empty(StatusCode::OK).into())
        }
        ("POST", [id, "disconnect"]) => {
            let request: Disconnect = call.take_optional_json().await?;
            let (container, force) = (named(&request.container)?, request.force.unwrap_or(false));
            call.backend.disconnect_network(id, container, force).await?;
            Ok(body::empty(StatusCode::OK).into())
        }
        ("DELETE", [id]) => {
            call.backend.remove_network(id).await?;
            Ok(body::empty(StatusCode::NO_CONTENT).into())
        }
        _ => Err(page_not_found()),
    }
}

fn named(container: &str) -> Result<&str> {
    if container.is_empty() {
        return Err(ApiError::bad_request("invalid container name or ID: value is empty"));
    }
    Ok(container)
}
