//! Sources: where a build's files come from.

mod git;
mod http;
mod local;

use super::report::Reporter;
use super::value::Value;
use super::{Job, image, layout};
use crate::error::{Error, Result};
use crate::graph::{Vertex, pb};

pub(crate) use local::{Locals, key_of as context_key};

/// Loads a source; says whether it was here already.
pub(crate) async fn load(
    job: &Job,
    vertex: &Vertex,
    op: &pb::SourceOp,
    reporter: &Reporter,
) -> Result<(Value, bool)> {
    let (scheme, rest) = op
        .identifier
        .split_once("://")
        .ok_or_else(|| Error::invalid(format!("invalid source \"{}\"", op.identifier)))?;
    match scheme {
        "local" => local::load(job, rest, op, reporter).await,
        "docker-image" => image::load(job, rest, op, vertex.op.platform.as_ref()).await,
        "http" | "https" => http::load(job, op, reporter).await,
        "git" => git::load(job, rest, op, reporter).await,
        "oci-layout" => layout::load(job, rest, op, vertex.op.platform.as_ref()).await,
        _ => Err(Error::invalid(format!("unknown source scheme {scheme}"))),
    }
}
