//! Swarm: this engine is never part of one, and says so as a dockerd outside a swarm does.

use http::Method;

use super::{Answer, page_not_found};
use crate::error::{ApiError, Result};

pub(super) fn route(method: &Method) -> Result<Answer> {
    if !matches!(*method, Method::GET | Method::POST | Method::DELETE) {
        return Err(page_not_found());
    }
    Err(ApiError::unavailable(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again.",
    ))
}
