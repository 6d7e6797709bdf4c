//! The graph: LLB, in BuildKit's own messages.
//!
//! A [`pb::Definition`] is a list of marshalled [`pb::Op`]s. Each names its inputs by digest and output number; the last
//! one has no operation and one input, which is the result. A digest is `sha256:` and the hash of the marshalled bytes as
//! they came: they are never marshalled anew.
//!
//! [`Builder`] makes definitions; [`Graph`] is a definition that was checked.

mod builder;
mod parse;

pub use bollard_buildkit_proto::pb;

pub use builder::{Builder, Output};
pub use parse::{Graph, Vertex};

/// The key of a vertex's name in [`pb::OpMetadata::description`], in place of the one that it would get.
pub const CUSTOM_NAME: &str = "llb.customname";

/// Returns the digest of a marshalled operation.
pub fn digest(bytes: &[u8]) -> String {
    skiff_images::Digest::of(bytes).to_string()
}
