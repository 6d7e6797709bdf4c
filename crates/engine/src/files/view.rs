//! A container's files as the container sees them, running or not.
//!
//! Containers are mounted in their own mount namespaces only. Of a running one the root is opened there, by a thread that
//! enters the namespace for that and ends. Of a stopped one the root and its volumes are mounted in a namespace made for
//! the purpose, which exists as long as its descriptor. Either way an engine that is killed leaves no mount behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use skiff_images::archive::{make_directories, open_inside};
use skiff_linux_sys::mount::{MountAttr, Scope, set_attributes};
use skiff_linux_sys::namespace::{Namespaces, join, leave};
use skiff_runtime::RootFs;
use tokio::sync::OwnedMutexGuard;

use crate::container::Container;
use crate::copy_up::merged;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::state::{MountKind, Record};

/// `MOUNT_ATTR_RDONLY` (linux/mount.h).
const READ_ONLY: u64 = 1;

/// How much of a container's files is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// With everything that is mounted in it.
    Everything,
    /// Image and changes alone.
    RootFs,
}

/// A container's root, held open. The fields are dropped in this order.
pub(super) struct View {
    pub root: OwnedFd,
    _namespace: Option<OwnedFd>,
    _volumes: Option<HeldVolumes>,
    /// A stopped container must not start while its root is mounted here.
    _operation: Option<OwnedMutexGuard<()>>,
}

struct HeldVolumes {
    engine: Engine,
    record: Arc<Record>,
}

impl Drop for HeldVolumes {
    fn drop(&mut self) {
        self.engine.release_mounts(&self.record);
    }
}

/// Something that is mounted in a stopped container's view.
struct Attachment {
    tree: OwnedFd,
    is_directory: bool,
    destination: String,
    writable: bool,
}

impl Engine {
    /// Opens a container's files.
    pub(super) async fn view(&self, container: &Arc<Container>, part: Part) -> Result<View> {
        if let Some(view) = running(container, part).await? {
            return Ok(view);
        }
        let operation = Arc::clone(&container.operation).lock_owned().await;
        if let Some(view) = running(container, part).await? {
            return Ok(view);
        }
        let record = container.record();
        if container.removed() {
            return Err(Error::not_found(format!("No such container: {}", container.id)));
        }
        let engine = self.clone();
        blocking(move || {
            let rootfs = engine.rootfs(&record)?;
            let failed = |error: io::Error| Error::internal("mount the container's files", &error);
            if part == Part::RootFs {
                let root = skiff_runtime::mount_rootfs(&rootfs)
                    .map_err(|error| Error::internal("mount the container's files", &error))?;
                return Ok(View { root, _namespace: None, _volumes: None, _operation: Some(operation) });
            }
            let parts = engine.prepare_mounts(&record);
            // From here on what was taken is given back, also by a failure.
            let volumes = HeldVolumes { engine: engine.clone(), record: Arc::clone(&record) };
            // Held until all is in its place: an image's tree ends with the descriptor that made it.
            let parts = parts?;
            let attachments = engine.mounted_in(&record, &parts)?;
            let (root, namespace) = on_own_thread(|| assemble(&rootfs, &attachments)).map_err(failed)?;
            Ok(View {
                root,
                _namespace: Some(namespace),
                _volumes: Some(volumes),
                _operation: Some(operation),
            })
        })
        .await
    }

    /// What a stopped container would have mounted, outer mounts first.
    fn mounted_in(
        &self,
        record: &Record,
        parts: &std::collections::HashMap<String, OwnedFd>,
    ) -> Result<Vec<Attachment>> {
        let mut found = Vec::new();
        let dir = self.network_files(record);
        for name in ["resolv.conf", "hostname", "hosts"] {
            let (source, destination) = (dir.join(name), format!("/etc/{name}"));
            if source.exists() && !record.mounts.iter().any(|mount| mount.destination == destination) {
                found.push(attachment(source, destination, true, false)?);
            }
        }
        let mut mounts: Vec<_> =
            record.mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs).collect();
        mounts.sort_by_key(|mount| mount.destination.split('/').count());
        for mount in mounts {
            let source = match parts.get(&mount.destination) {
                Some(part) => PathBuf::from(format!("/proc/self/fd/{}", part.as_raw_fd())),
                None => PathBuf::from(&mount.source),
            };
            found.push(attachment(source, mount.destination.clone(), mount.writable, mount.recursive)?);
        }
        Ok(found)
    }
}

/// An image's files, or a part of them, as a tree that can be mounted.
pub(crate) fn image_tree(lower: &[PathBuf], part: Option<&str>) -> Result<OwnedFd> {
    let part = part.unwrap_or(".");
    let failed = |error: io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno @ (Errno::NOENT | Errno::NOTDIR)) => Error::invalid(format!(
            "cannot access path {part} of the image: {}",
            crate::volumes::words_of(errno)
        )),
        Some(Errno::XDEV | Errno::LOOP) => Error::invalid("path concatenation escapes the base directory"),
        _ => Error::internal("mount the image's files", &error),
    };
    // Only what is mounted in one's own namespace can be cloned: in a new one it is, for a moment.
    on_own_thread(|| {
        leave(Namespaces::MOUNT)?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let tree = merged(lower)?;
        if let [place, _, ..] = lower {
            move_mount(&tree, c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        }
        let stay = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let node = openat2(&tree, part, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), stay)?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(open_tree(&node, c"", flags)?)
    })
    .map_err(failed)
}

/// The shared memory of a running container as a tree that can be mounted elsewhere: it can be cloned only where it is.
pub(crate) fn shared_memory_of(process: BorrowedFd<'_>) -> Result<OwnedFd> {
    on_own_thread(|| {
        leave(Namespaces::MOUNT)?;
        join(process, Namespaces::MOUNT)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(open_tree(CWD, c"/dev/shm", flags)?)
    })
    .map_err(|error| Error::internal("open the other container's shared memory", &error))
}

fn attachment(source: PathBuf, destination: String, writable: bool, recursive: bool) -> Result<Attachment> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let failed = |errno: Errno| Error::file("mount", &source, &errno.into());
    let tree = skiff_runtime::clone_tree(&source, flags).map_err(failed)?;
    let status = rustix::fs::fstat(&tree).map_err(failed)?;
    let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    Ok(Attachment { tree, is_directory, destination, writable })
}

/// Opens the root of a running container; `None` when it does not run.
async fn running(container: &Arc<Container>, part: Part) -> Result<Option<View>> {
    let Ok((_, pidfd)) = container.process() else { return Ok(None) };
    let opened = blocking(move || {
        Ok(on_own_thread(|| {
            // A thread that shares its root and working directory with others cannot change its namespace.
            leave(Namespaces::MOUNT)?;
            join(pidfd.as_fd(), Namespaces::MOUNT)?;
            Ok(match part {
                Part::Everything => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    rustix::fs::open(c"/", flags, Mode::empty())?
                }
                Part::RootFs => {
                    open_tree(CWD, c"/", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?
                }
            })
        }))
    })
    .await?;
    match opened {
        Ok(root) => Ok(Some(View { root, _namespace: None, _volumes: None, _operation: None })),
        // It has exited this instant.
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(Error::internal("open the container's files", &error)),
    }
}

/// Mounts the root and everything in it in a new namespace. Runs on a thread of its own.
fn assemble(rootfs: &RootFs, attachments: &[Attachment]) -> io::Result<(OwnedFd, OwnedFd)> {
    let root = skiff_runtime::mount_rootfs(rootfs).map_err(io::Error::other)?;
    leave(Namespaces::MOUNT)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let place = match rootfs {
        RootFs::Overlay { upper, .. } => upper,
        RootFs::Dir(path) => path,
    };
    move_mount(&root, c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    for attachment in attachments {
        let target = mount_point(&root, attachment)?;
        if !attachment.writable {
            set_attributes(attachment.tree.as_fd(), Scope::Tree, &MountAttr::new(READ_ONLY, 0, 0))?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&attachment.tree, c"", &target, c"", flags)?;
    }
    let namespace = File::open("/proc/thread-self/ns/mnt")?;
    Ok((root, namespace.into()))
}

/// Finds a mount point, or makes it.
fn mount_point(root: &OwnedFd, attachment: &Attachment) -> io::Result<OwnedFd> {
    let path = attachment.destination.as_bytes();
    match open_inside(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return Ok(other?),
    }
    if attachment.is_directory {
        return Ok(make_directories(root, path)?);
    }
    let at = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let parent = make_directories(root, &path[..at])?;
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(rustix::fs::openat(&parent, &path[at + 1..], flags, Mode::from_raw_mode(0o644))?);
    Ok(open_inside(root, path, OFlags::PATH)?)
}

/// Runs work that changes what its thread sees on a thread that ends with it.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}
