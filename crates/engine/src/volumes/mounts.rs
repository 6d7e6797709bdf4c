//! Volumes in use: which containers hold them mounted.
//!
//! A volume with options is mounted on its directory while at least one container runs with it, as with dockerd. Such
//! mounts outlive a killed engine; the next one counts the holders anew and takes away what nobody holds.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{UnmountFlags, unmount};

use super::Volumes;
use super::options::{mount_on, needs_mount};
use crate::error::{Error, Result};

/// The containers that hold a volume.
type Holders = Arc<Mutex<HashSet<String>>>;

/// The holders of every volume that is a mount.
#[derive(Debug, Default)]
pub(super) struct Held {
    by_volume: Mutex<HashMap<String, Holders>>,
    /// Whether the holders of the last engine's mounts are known: nothing is unmounted before.
    settled: AtomicBool,
}

impl Held {
    fn of(&self, volume: &str) -> Holders {
        let mut all = self.by_volume.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(volume.to_owned()).or_default())
    }
}

impl Volumes {
    /// Mounts a volume for a container, if it is a mount and not there already; `device` takes the place of the option of that
    /// name. Blocks.
    pub fn hold(&self, name: &str, container: &str, device: Option<&OwnedFd>) -> Result<()> {
        let record = self.get(name).ok_or_else(|| super::missing(name))?;
        if !needs_mount(&record.options) {
            return Ok(());
        }
        // Only those who want the same volume wait for a slow server.
        let holders = self.held.of(name);
        let mut holders = holders.lock().unwrap_or_else(PoisonError::into_inner);
        let data = self.data(name);
        if !is_mounted(&data) {
            let mut options = record.options.clone();
            if let Some(device) = device {
                options.insert("device".to_owned(), format!("/proc/self/fd/{}", device.as_raw_fd()));
            }
            mount_on(&data, &options)?;
        }
        holders.insert(container.to_owned());
        Ok(())
    }

    /// Takes back what [`hold`](Self::hold) did; the last holder's end unmounts the volume. Blocks.
    pub fn release(&self, name: &str, container: &str) {
        if !self.get(name).is_some_and(|record| needs_mount(&record.options)) {
            return;
        }
        let holders = self.held.of(name);
        let mut holders = holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.remove(container);
        if holders.is_empty()
            && self.held.settled.load(Ordering::Relaxed)
            && let Err(error) = self.unmount(name)
        {
            tracing::warn!(%error, volume = name, "volume stays mounted");
        }
    }

    /// After a restart: `running` are the containers that run, with their volumes.
    pub fn take_over<'a>(&self, running: impl Iterator<Item = (&'a str, &'a str)>) {
        for (container, name) in running {
            let holders = self.held.of(name);
            holders.lock().unwrap_or_else(PoisonError::into_inner).insert(container.to_owned());
        }
        self.held.settled.store(true, Ordering::Relaxed);
        for record in self.all() {
            // Releases for nobody: unmounts where there is no holder.
            self.release(&record.name, "");
        }
    }

    /// Takes the mount off a volume's directory, if there is one.
    pub(super) fn unmount(&self, name: &str) -> Result<()> {
        let data = self.data(name);
        while is_mounted(&data) {
            unmount(&data, UnmountFlags::DETACH)
                .map_err(|errno| Error::file("unmount", &data, &errno.into()))?;
        }
        Ok(())
    }
}

/// Whether something is mounted on a directory.
pub(super) fn is_mounted(dir: &Path) -> bool {
    let mount_of = |path: &Path| {
        statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID).map(|status| status.stx_mnt_id)
    };
    match (mount_of(dir), dir.parent().map(mount_of)) {
        (Ok(own), Some(Ok(parent))) => own != parent,
        // A server that does not answer is mounted all the same; what is not there is not.
        (Err(errno), _) => errno != rustix::io::Errno::NOENT,
        _ => false,
    }
}
