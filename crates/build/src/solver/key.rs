//! Keys: digests of an operation and of what it is given.

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::graph::{Vertex, pb};

/// Bumped when what operations do changes in a way that makes old results wrong.
const VERSION: &str = "1";

/// The key of an operation whose inputs are the given ones.
///
/// Inputs count by what they are, not by what made them. What can't change a result does not count: proxies, the
/// whereabouts of secrets, constraints.
pub(crate) fn of(vertex: &Vertex, inputs: &[String]) -> String {
    let mut op = vertex.op.clone();
    op.inputs.clear();
    op.constraints = None;
    if let Some(pb::op::Op::Exec(exec)) = &mut op.op {
        if let Some(meta) = &mut exec.meta {
            meta.proxy_env = None;
        }
        for mount in &mut exec.mounts {
            if let Some(cache) = &mut mount.cache_opt {
                cache.sharing = 0;
            }
            mount.result_id.clear();
        }
    }
    let mut hasher = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(VERSION.as_bytes());
    part(&op.encode_to_vec());
    for input in inputs {
        part(input.as_bytes());
    }
    hex::encode(hasher.finalize())
}

/// The key of one output.
pub(crate) fn output(key: &str, index: usize) -> String {
    format!("{key}.{index}")
}
