//! Swarm and plugins: this engine is never part of one and has none, and says so as a dockerd without them does.

use http::{Method, StatusCode};
use serde_json::json;

use super::{Answer, Call, page_not_found};
use crate::body;
use crate::error::{ApiError, Result};

/// Below `/swarm`, `/nodes`, `/services`, `/tasks`, `/secrets` and `/configs`.
pub(super) fn route(method: &Method, path: &[&str]) -> Result<Answer> {
    match (method.as_str(), path) {
        ("POST", ["swarm", "leave"]) => Err(ApiError::unavailable("This node is not part of a swarm")),
        ("POST", ["swarm", "init" | "join"]) => {
            Err(ApiError::unavailable("This engine is a single node: it can't be part of a swarm"))
        }
        ("GET", ["swarm"] | ["swarm", "unlockkey"])
        | ("POST", ["swarm", "update" | "unlock"])
        | ("GET", ["nodes" | "services" | "tasks" | "secrets" | "configs"])
        | ("GET" | "DELETE", ["nodes" | "services" | "secrets" | "configs", _])
        | ("GET", ["tasks", _])
        | ("GET", ["services" | "tasks", _, "logs"])
        | ("POST", ["services" | "secrets" | "configs", "create"])
        | ("POST", ["nodes" | "services" | "secrets" | "configs", _, "update"]) => Err(not_a_manager()),
        _ => Err(page_not_found()),
    }
}

/// The refusal of what only a swarm's manager can do.
pub(super) fn not_a_manager() -> ApiError {
    ApiError::unavailable(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again.",
    )
}

/// Below `/plugins`.
pub(super) fn plugins(call: &Call, path: &[&str]) -> Result<Answer> {
    let unknown = |name: &[&str]| Err(ApiError::not_found(format!("plugin {:?} not found", name.join("/"))));
    match (call.method.as_str(), path) {
        ("GET", []) => {
            // Only to have them checked: there is nothing to be filtered.
            call.query.filters(&["capability", "enabled"])?;
            Ok(body::json(StatusCode::OK, &json!([]))?.into())
        }
        ("GET", ["privileges"]) | ("POST", ["pull" | "create"]) => {
            Err(ApiError::not_implemented("this engine has no plugins: they can't be installed"))
        }
        // Names contain slashes.
        ("GET", [name @ .., "json"])
        | ("POST", [name @ .., "enable" | "disable" | "push" | "set" | "upgrade"])
        | ("DELETE", name)
            if !name.is_empty() =>
        {
            unknown(name)
        }
        _ => Err(page_not_found()),
    }
}
