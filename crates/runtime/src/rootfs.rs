//! The root file system, as a mount that is attached nowhere.

use crate::error::Error;
use oci_spec::runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
};
use skiff_linux_sys::child::PresentRoot;
use skiff_linux_sys::namespace::{Namespaces, leave};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What a container sees as `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootFs {
    /// A directory.
    Dir(PathBuf),
    /// Read-only layers with a writable one on top, joined by overlayfs.
    Overlay {
        /// The layers, topmost first.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// An empty directory on the file system of `upper` for overlayfs itself.
        work: PathBuf,
    },
}

/// What the spec says of the propagation of the root (`linux.rootfsPropagation`), as `MS_*` flags.
pub(crate) fn propagation(spec: &Spec) -> Result<Option<u64>, Error> {
    let word = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or("");
    Ok(Some(match word {
        "" => return Ok(None),
        "shared" => libc::MS_SHARED,
        "rshared" => libc::MS_SHARED | libc::MS_REC,
        "slave" => libc::MS_SLAVE,
        "rslave" => libc::MS_SLAVE | libc::MS_REC,
        "private" => libc::MS_PRIVATE,
        "rprivate" => libc::MS_PRIVATE | libc::MS_REC,
        "unbindable" => libc::MS_UNBINDABLE,
        "runbindable" => libc::MS_UNBINDABLE | libc::MS_REC,
        word => {
            return Err(Error::Spec { what: format!("linux.rootfsPropagation: \"{word}\" is not known") });
        }
    }))
}

/// The longest text that fsconfig(2) takes, less the terminator.
const LONGEST_TEXT: usize = 255;

/// Mounts a root file system without attaching it: it lives as long as the descriptor, or where it is moved to.
///
/// # Errors
/// When a layer is missing or the kernel does not join them.
pub fn mount_rootfs(rootfs: &RootFs) -> Result<OwnedFd, Error> {
    match rootfs {
        RootFs::Dir(path) => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE;
            let tree = rustix::mount::open_tree(CWD, path, flags);
            tree.map_err(|error| Error::RootFs { what: path.display().to_string(), source: error.into() })
        }
        RootFs::Overlay { lower, upper, work } => overlay(lower, upper, work),
    }
}

fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, Error> {
    let failed = |what: &str, source: io::Error| Error::RootFs { what: what.to_owned(), source };
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|error| failed("overlay", error.into()))?;
    let set = |key: &str, path: &Path| -> Result<(), Error> {
        let named = Named::new(path).map_err(|source| failed(&path.display().to_string(), source))?;
        rustix::mount::fsconfig_set_string(&context, key, named.path.as_path())
            .map_err(|error| failed(&format!("{key} {}", path.display()), error.into()))
    };
    rustix::mount::fsconfig_set_string(&context, "source", "overlay")
        .map_err(|error| failed("overlay", error.into()))?;
    for (index, layer) in lower.iter().enumerate() {
        match set("lowerdir+", layer) {
            Err(Error::RootFs { source, .. })
                if index == 0 && source.raw_os_error() == Some(libc::EINVAL) =>
            {
                return overlay_by_data(lower, upper, work);
            }
            other => other?,
        }
    }
    set("upperdir", upper)?;
    set("workdir", work)?;
    rustix::mount::fsconfig_create(&context).map_err(|error| failed("overlay", error.into()))?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|error| failed("overlay", error.into()))
}

/// A path in a form that overlayfs takes: itself, or a descriptor's link when it is too long or has separators in it.
struct Named {
    path: PathBuf,
    _fd: Option<OwnedFd>,
}

impl Named {
    fn new(path: &Path) -> io::Result<Self> {
        let text = path.as_os_str().as_encoded_bytes();
        if text.len() <= LONGEST_TEXT && !text.iter().any(|byte| b",:\\".contains(byte)) {
            return Ok(Self { path: path.to_owned(), _fd: None });
        }
        Self::linked(path)
    }

    fn linked(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: format!("/proc/self/fd/{}", fd.as_raw_fd()).into(), _fd: Some(fd) })
    }
}

/// For kernels without `lowerdir+` (before 6.8): mount(2) with all layers in one page of text, which descriptor links
/// keep short, in a mount namespace that ends with the thread.
fn overlay_by_data(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, Error> {
    let mount = || -> io::Result<OwnedFd> {
        leave(Namespaces::MOUNT)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        let lower = lower.iter().map(|path| Named::linked(path)).collect::<io::Result<Vec<_>>>()?;
        let (upper_dir, work_dir) = (Named::linked(upper)?, Named::linked(work)?);
        let layers: Vec<String> = lower.iter().map(|named| named.path.display().to_string()).collect();
        let data = format!(
            "lowerdir={},upperdir={},workdir={}",
            layers.join(":"),
            upper_dir.path.display(),
            work_dir.path.display()
        );
        let data = CString::new(data).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount("overlay", upper, "overlay", MountFlags::empty(), data.as_c_str())?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(rustix::mount::open_tree(CWD, upper, flags)?)
    };
    let mounted = std::thread::scope(|scope| {
        scope.spawn(mount).join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    });
    mounted.map_err(|source| Error::RootFs { what: "overlay".into(), source })
}

/// Finds out, once, whether the process's root can be swapped by pivot_root(2).
pub(crate) fn present_root() -> PresentRoot {
    static PRESENT: OnceLock<PresentRoot> = OnceLock::new();
    *PRESENT.get_or_init(|| {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        present_root_of(&mounts)
    })
}

fn present_root_of(mountinfo: &str) -> PresentRoot {
    // proc_pid_mountinfo(5): id, parent id, device, root, mount point, …, "-", type. The first root mount has no parent.
    let mut roots = mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    let is_movable = |line: &str| {
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        let (id, parent) = (line.split(' ').next(), line.split(' ').nth(1));
        kind != Some("rootfs") && id != parent
    };
    if roots.any(is_movable) { PresentRoot::Movable } else { PresentRoot::Fixed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_movable_and_an_initramfs_is_not() {
        let disk =
            "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n25 22 0:5 / /dev rw - devtmpfs devtmpfs rw\n";
        assert_eq!(present_root_of(disk), PresentRoot::Movable);
        let initramfs = "1 1 0:2 / / rw - rootfs rootfs rw\n25 1 0:5 / /dev rw - devtmpfs devtmpfs rw\n";
        assert_eq!(present_root_of(initramfs), PresentRoot::Fixed);
        let chroot = "25 22 0:5 / /dev rw - devtmpfs devtmpfs rw\n";
        assert_eq!(present_root_of(chroot), PresentRoot::Fixed);
    }

    #[test]
    fn the_way_of_old_kernels_gives_the_same_root() {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> =
            (0..120).map(|n| dir.path().join(format!("{n}-{}", "x".repeat(100)))).collect();
        for layer in &layers {
            std::fs::create_dir(layer).unwrap();
            std::fs::write(layer.join("file"), layer.as_os_str().as_encoded_bytes()).unwrap();
        }
        let (upper, work) = (dir.path().join("up,per"), dir.path().join("work"));
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        let root = overlay_by_data(&layers, &upper, &work).unwrap();
        let file =
            rustix::fs::openat(&root, "file", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let text = io::read_to_string(std::fs::File::from(file)).unwrap();
        assert_eq!(text.as_bytes(), layers[0].as_os_str().as_encoded_bytes());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*upper.to_string_lossy()));
    }
}
