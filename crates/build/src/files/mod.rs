//! Files: contexts as they arrive, views of them and of snapshots, and what file operations do.
//!
//! ```text
//! client ─► Receiver ─► Tree (names) + Store (contents by hash)     layers ─► overlay
//!                            └────────────── View ◄───────────────────────────┘
//!                                  select (wildcards, checksums) ─► copy ─► upper directory of the result
//! ```
//! Contexts and images are hostile. In a [`View`] every link is followed by us, inside; in a result every name is resolved
//! by the kernel with `RESOLVE_IN_ROOT`.

pub(crate) mod act;
pub(crate) mod copy;
mod glob;
mod receive;
mod select;
mod store;
mod subtract;
mod tree;
mod view;

pub(crate) use glob::matches;
pub(crate) use receive::Receiver;
pub(crate) use select::{Selection, checksum, stat_of};
pub(crate) use store::Store;
pub(crate) use subtract::subtract;
pub(crate) use tree::Tree;
pub(crate) use view::{Kind, Meta, View, fd_path, read_only_root};
