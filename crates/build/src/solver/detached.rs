//! Mounts that are attached nowhere, and parts of them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
};
use skiff_images::archive::open_inside;
use skiff_linux_sys::namespace::{Namespaces, leave};

/// Makes a file system in memory.
pub(crate) fn memory(size: u64) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "tmpfs")?;
    fsconfig_set_string(&context, "size", size.to_string())?;
    fsconfig_set_string(&context, "mode", "0755")?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Makes a mount of a part of a detached mount. Links are followed inside.
///
/// Kernels before 6.15 clone parts of attached mounts only: it is attached for a moment, to `above`, in a mount
/// namespace that ends with the thread.
pub(crate) fn subtree(mount: &OwnedFd, path: &str, above: &Path) -> io::Result<OwnedFd> {
    let part = || -> io::Result<OwnedFd> {
        leave(Namespaces::MOUNT)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        move_mount(mount, c"", CWD, above, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        let found = open_inside(mount, path.as_bytes(), OFlags::PATH)?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(open_tree(&found, c"", flags)?)
    };
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("subtree".to_owned()).spawn_scoped(scope, part)?;
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}
