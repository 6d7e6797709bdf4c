//! What is written down about a running guest, so that a later process finds it again.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Accelerator, Endpoint, Identity, Key};

/// A guest's process and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) process: Identity,
    pub(crate) accelerator: Option<Accelerator>,
    pub(crate) accelerator_note: Option<String>,
    pub(crate) monitor: Option<Endpoint>,
    pub(crate) console: Option<Endpoint>,
    pub(crate) link: Endpoint,
    /// What a saved state of it would depend on; none where it cannot be saved.
    #[serde(default)]
    pub(crate) key: Option<Key>,
    /// Set until a restored guest goes on: one that stands still is thrown away then.
    #[serde(default)]
    pub(crate) waking: bool,
}

impl Record {
    /// Reads the record; a missing or unreadable one counts as none.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Writes the record, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let staging = path.with_extension("new");
        std::fs::write(&staging, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(staging, path)
    }
}

/// Removes a file that need not exist.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "file is left behind");
    }
}
