//! What a container has changed of its image: `docker diff`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use skiff_images::archive::{Change, changes};

use crate::copy_up::merged;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::state::Record;

/// Made in every container before it starts; Docker has them in a layer of their own, below the changes.
const SCAFFOLD: &[&str] = &[
    "/.dockerenv",
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
    "/sys/fs",
    "/sys/fs/cgroup",
];

/// One path that is not as the image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerChange {
    /// The path.
    pub path: String,
    /// 0: changed, 1: new, 2: gone.
    pub kind: u8,
}

impl Engine {
    /// Lists what a container has changed, by path.
    ///
    /// # Errors
    /// When its files can't be read.
    pub async fn container_changes(&self, id: &str) -> Result<Vec<ContainerChange>> {
        let container = self.container(id)?;
        let engine = self.clone();
        blocking(move || {
            let (_, changes) = engine.changes_of(&container.record())?;
            let shown = |change: Change| ContainerChange {
                path: String::from_utf8_lossy(&change.path).into_owned(),
                kind: change.kind as u8,
            };
            Ok(changes.into_iter().map(shown).collect())
        })
        .await
    }

    /// Compares a container's layer with its image; returns the layer too.
    pub(super) fn changes_of(&self, record: &Record) -> Result<(OwnedFd, Vec<Change>)> {
        let failed = |error: std::io::Error| Error::internal("compare the container with its image", &error);
        let upper = self.0.config.container(&record.id).join("upper");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = openat(CWD, &upper, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let lower = merged(&self.lower(record)?).map_err(|errno| failed(errno.into()))?;
        let is_scaffold = |path: &[u8]| SCAFFOLD.iter().any(|known| known.as_bytes() == path);
        let changes = changes(upper.as_fd(), lower.as_fd(), &is_scaffold).map_err(failed)?;
        Ok((upper, changes))
    }
}
