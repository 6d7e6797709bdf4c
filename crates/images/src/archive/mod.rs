//! Trees of files as tar streams, and back: what `docker cp`, `export` and `commit` move.
//!
//! ```text
//! tree ──► pack ──► writer ──► tar          tar ──► extract ──► tree
//! upper + lower ──► changes ──► pack
//! ```
//! The trees belong to containers, which may change them at any moment and mean it. Every path is resolved by the
//! kernel inside the tree's root (openat2(2)), what a name leads to is held open before it is looked at, and nothing but
//! regular files is ever opened for reading.

mod changes;
mod entries;
mod extract;
mod pack;
mod resolve;
mod writer;

pub use crate::layer::{Entry as TarEntry, Kind as TarKind};
pub use changes::{Change, ChangeKind, changes};
pub use entries::read_entries;
pub use extract::{Extract, Overwrite, extract, is_tar, make_directories};
pub use pack::{Mounts, Packer};
pub use resolve::{open_inside, resolve};
pub(crate) use writer::{Header, Writer};

/// Removes `name` in the directory `parent`, whatever it is, without following links; a missing one is fine.
///
/// # Errors
/// What the system answers.
pub fn remove_tree(parent: impl std::os::fd::AsFd, name: &[u8]) -> rustix::io::Result<()> {
    crate::tree::remove(parent, name)
}
