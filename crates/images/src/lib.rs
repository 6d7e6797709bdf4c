//! Images: registry client, content store, layer applier.
//!
//! ```text
//! registry ──┐                     ┌─ layer (decompress, hash, apply) ─► layers/DIFFID
//! archive ───┼─► pull·load·import ─┤
//! rootfs ────┘                     └─ store (leases, commit, names) ──► images.redb, blobs/
//! ```
//! [`Store`] is the way in. It promises that a committed image survives a kill of the process or the machine at
//! any instant, and that nothing half-made is ever seen.
#![forbid(unsafe_code)]

pub mod archive;
mod blobs;
mod build;
mod changes;
mod chunks;
mod config;
mod derive;
mod digest;
mod error;
mod hashed;
mod image;
mod import;
pub mod layer;
mod load;
mod manifest;
mod platform;
mod progress;
mod pull;
mod push;
mod reference;
mod registry;
mod remote;
mod save;
mod store;
mod tree;

pub use blobs::Blobs;
pub use build::{NewBuilt, Tree};
pub use config::{Config, Timeouts};
pub use derive::{NewLayer, apply_changes};
pub use digest::{Digest, DigestError};
pub use error::{Code, Error};
pub use image::{HistoryEntry, Image};
pub use load::Loaded;
pub use platform::Platform;
pub use progress::{Progress, ProgressDetail, ProgressEvent, Silent};
pub use pull::Described;
pub use push::{BuiltFor, PackedLayer, Pushed, oci_manifest};
pub use reference::{DEFAULT_DOMAIN, ParseError, Reference, Target};
pub use registry::{
    Auth, Delegate, Delegated, Dial, Download, DownloadAnswer, Io, LoggedIn, ProxyDial, Reply, Search,
    SearchResult, Secret, TcpDial, Trust,
};
pub use remote::{PushedMember, RemoteManifest};
pub use save::Save;
pub use skiff_proxy::Variables as ProxyVariables;
pub use store::{Held, InUse, Kept, Parents, Removed, Store};
