//! A small registry that speaks the OCI distribution specification (1.1): what a team on a local network pushes to and
//! pulls from.
//!
//! ```text
//! connection (TLS or not) ─► auth ─► route ─► manifests, blobs, uploads, tags, referrers
//!                                                └─► store: blobs by digest, links by repository
//! ```
//! Everything is below one directory:
//!
//! | path | what |
//! |---|---|
//! | `blobs/sha256/HEX` | contents, manifests too |
//! | `repositories/NAME/_blobs/sha256-HEX` | what the repository may show; empty |
//! | `repositories/NAME/_manifests/sha256-HEX` | the media type of a manifest |
//! | `repositories/NAME/_tags/TAG` | a digest |
//! | `repositories/NAME/_referrers/sha256-HEX/sha256-HEX` | descriptors of what refers to a manifest |
//! | `uploads/ID` | what is being sent; swept at the start |
//!
//! A name's parts never begin with `_`, so links and repositories can't meet. Files appear whole: written aside, synced,
//! renamed. What nobody links to any more is deleted with its last link.
#![forbid(unsafe_code)]

mod answer;
mod auth;
mod bcrypt;
mod error;
mod manifest;
mod name;
mod range;
mod route;
mod server;
mod store;

pub use auth::{Users, UsersError};
pub use error::Error;
pub use server::{Options, Server, Tls};
