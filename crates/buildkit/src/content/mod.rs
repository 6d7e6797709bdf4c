//! `containerd.services.content.v1.Content`: blobs by their digests, served and asked for.
//!
//! Served are the blobs of the build history (`buildx history inspect attachment`, `--metadata-file`). Asked for are those
//! of a client: OCI layouts that it offers as contexts, and caches in its directories.

pub(crate) mod messages;
mod service;
mod store;

pub(crate) use service::ContentServer;
pub(crate) use store::ClientStore;
