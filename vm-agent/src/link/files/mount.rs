//! Mounting and unmounting.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

/// Longest read, as the server's longest write.
const MAX_READ: usize = 1 << 20;

/// Opens `/dev/fuse` and mounts what it serves at `target`.
pub fn make(share: &str, target: &Path) -> anyhow::Result<OwnedFd> {
    fs::create_dir_all(target).with_context(|| format!("create {}", target.display()))?;
    let device = rustix::fs::openat(
        CWD,
        "/dev/fuse",
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .context("open /dev/fuse")?;
    // Whoever is in a container may use it: permissions are the host's, and the daemon's user has them.
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={MAX_READ}",
        device.as_raw_fd()
    );
    let options = std::ffi::CString::new(options).context("mount options")?;
    // The host's setuid bits and devices mean nothing here.
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(share, target, "fuse.skiff", flags, options.as_c_str())
        .with_context(|| format!("mount {share} at {}", target.display()))?;
    Ok(device)
}

/// Shows a mount once more, read-only, beside itself. Containers get that one: their files are opened without a word to
/// the host, which would refuse only what is written then. The mount itself stays writable for the host's changes, which
/// are made once more on it.
pub fn read_only(target: &Path) -> anyhow::Result<PathBuf> {
    let shown = target.with_extension("ro");
    fs::create_dir_all(&shown).with_context(|| format!("create {}", shown.display()))?;
    mount_bind(target, &shown).with_context(|| format!("bind {}", target.display()))?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(&shown, flags, "").with_context(|| format!("make {} read-only", shown.display()))?;
    Ok(shown)
}

/// Takes away every mount below `directory`.
pub fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if let Err(error) = unmount(entry.path(), UnmountFlags::FORCE | UnmountFlags::DETACH)
            && error != rustix::io::Errno::INVAL
        {
            tracing::warn!(path = %entry.path().display(), %error, "old mount stays");
        }
    }
}
