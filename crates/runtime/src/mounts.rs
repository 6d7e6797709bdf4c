//! The spec's mounts as steps.

mod copy_up;
mod options;

use crate::error::Error;
use crate::mapping::{Mapping, is_privileged};
use oci_spec::runtime::{Mount, Spec};
use options::Options;
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use skiff_linux_sys::child::{Kind, Links, Parameter, Program, Source, Step, Target, Tree};
use skiff_linux_sys::mount::{MountAttr, Scope};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Files below `/proc` that a bind mount may replace, as in runc.
const PROC_FILES: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
];

/// Makes a C string of text from a spec.
pub(crate) fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, Error> {
    CString::new(text).map_err(|error| Error::Spec {
        what: format!("\"{}\" contains a zero byte", String::from_utf8_lossy(&error.into_vec())),
    })
}

/// A directory below the root, made when missing.
pub(crate) fn directory(path: &CStr) -> Target {
    Target { path: path.to_owned(), kind: Kind::Directory, links: Links::Inside }
}

/// Whether the spec binds something of the host over `/dev`: then nothing is made in it.
pub(crate) fn device_directory_is_bound(spec: &Spec) -> bool {
    let is_bound = |mount: &Mount| {
        clean(mount.destination()) == Path::new("/dev")
            && Options::parse(mount).is_ok_and(|o| o.bind.is_some())
    };
    spec.mounts().iter().flatten().any(is_bound)
}

/// The mount options that have a meaning here, for `features`.
pub fn mount_options() -> Vec<&'static str> {
    options::known()
}

/// Adds a step for every mount of the spec, in its order.
///
/// `root` is the root file system as it is before anything is mounted in it, where this process may look into it.
pub(crate) fn push(spec: &Spec, root: Option<BorrowedFd<'_>>, program: &mut Program) -> Result<(), Error> {
    for mount in spec.mounts().iter().flatten() {
        let options = Options::parse(mount)?;
        let destination = clean(mount.destination());
        let kind = mount.typ().as_deref().unwrap_or_default();
        let source_name = mount.source().clone().unwrap_or_else(|| PathBuf::from(kind));
        let label = format!(
            "error mounting \"{}\" to rootfs at \"{}\"",
            source_name.display(),
            mount.destination().display()
        );
        let (source, target_kind) = if let Some(scope) = options.bind {
            check_bind_destination(&destination)?;
            bind(&source_name, scope, mapping(mount, &options, spec)?, program)?
        } else if kind == "cgroup" || kind == "cgroup2" {
            if !unified_cgroups() {
                // A controller of a mixed hierarchy would show, and let be changed, what belongs to the host.
                continue;
            }
            (new("cgroup2", &source_name, &options)?, Kind::Directory)
        } else if options.copy_up {
            let Some(root) = root.filter(|_| kind == "tmpfs") else {
                let what =
                    format!("mounts: \"tmpcopyup\" of {} needs a tmpfs and privilege", destination.display());
                return Err(Error::Spec { what });
            };
            let tree = copy_up::tmpfs(root, &destination, &options)?;
            let tree = program.keep(tree).map_err(|source| Error::Clone { source })?;
            (Source::Detached(Tree::Kept(tree)), Kind::Directory)
        } else {
            (new(kind, &source_name, &options)?, Kind::Directory)
        };
        let path = c_string(destination.as_os_str().as_bytes())?;
        // An image with a link in place of these would have them mounted where nothing masks them.
        let links = if kind == "proc" || kind == "sysfs" { Links::Refuse } else { Links::Inside };
        let target = Target { path, kind: target_kind, links };
        program.push(Step::Mount { source, target, changes: changes(&options) }, label);
    }
    Ok(())
}

/// The mapping that a bind mount's ids are shown through: its own, else the container's.
fn mapping(mount: &Mount, options: &Options, spec: &Spec) -> Result<Option<(Mapping, Scope)>, Error> {
    let own = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
    let Some(scope) = options.idmap.or(own.then_some(Scope::Single)) else { return Ok(None) };
    let list = |list: &Option<Vec<_>>| list.clone().unwrap_or_default();
    let mapping = match own {
        true => Mapping::new(list(mount.uid_mappings()), list(mount.gid_mappings()), "mounts.")?,
        false => Mapping::of(spec)?,
    };
    Ok(Some((mapping, scope)))
}

fn bind(
    path: &Path,
    scope: Scope,
    mapping: Option<(Mapping, Scope)>,
    program: &mut Program,
) -> Result<(Source, Kind), Error> {
    if !is_privileged() {
        let error = |source| Error::BindSource { path: path.to_owned(), source };
        if mapping.is_some() {
            return Err(Error::Spec {
                what: format!("mounts: \"idmap\" of {} needs privilege", path.display()),
            });
        }
        // The child makes it, in a namespace where it may. What is mounted below cannot be left out there.
        let kind =
            if std::fs::metadata(path).map_err(error)?.is_dir() { Kind::Directory } else { Kind::File };
        let path = c_string(path.as_os_str().as_bytes())?;
        return Ok((Source::Detached(Tree::Host { path, scope: Scope::Tree }), kind));
    }
    let flags = match scope {
        Scope::Single => OpenTreeFlags::empty(),
        Scope::Tree => OpenTreeFlags::AT_RECURSIVE,
    };
    let flags = flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let error = |source: Errno| Error::BindSource { path: path.to_owned(), source: source.into() };
    let tree = clone_tree(path, flags).map_err(error)?;
    let status = rustix::fs::statx(&tree, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE).map_err(error)?;
    let is_directory = u32::from(status.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
    if let Some((mapping, scope)) = mapping {
        let namespace = mapping.namespace()?;
        let attr = MountAttr::default().mapped_by(namespace.as_fd());
        skiff_linux_sys::mount::set_attributes(tree.as_fd(), scope, &attr)
            .map_err(|source| Error::BindSource { path: path.to_owned(), source })?;
    }
    let tree = program.keep(tree).map_err(|source| Error::Clone { source })?;
    Ok((Source::Detached(Tree::Kept(tree)), if is_directory { Kind::Directory } else { Kind::File }))
}

/// Clones what is mounted at a path. A descriptor's link may lead to a tree that is mounted nowhere, which kernels before
/// 6.15 don't clone: such a tree is taken itself.
///
/// # Errors
/// When there is nothing at the path, or it is not mounted in the caller's namespace.
pub fn clone_tree(path: &Path, flags: OpenTreeFlags) -> rustix::io::Result<OwnedFd> {
    let held = path.strip_prefix("/proc/self/fd").ok().and_then(Path::to_str);
    match (rustix::mount::open_tree(CWD, path, flags), held) {
        (Err(Errno::INVAL), Some(number)) => {
            let number: i32 = number.parse().map_err(|_| Errno::INVAL)?;
            let link = format!("/proc/self/fd/{number}");
            // Without the flag that makes a clone it is one more descriptor of the same tree.
            rustix::mount::open_tree(CWD, link, OpenTreeFlags::OPEN_TREE_CLOEXEC)
        }
        (other, _) => other,
    }
}

fn new(kind: &str, source: &Path, options: &Options) -> Result<Source, Error> {
    if kind.is_empty() {
        return Err(Error::Spec { what: format!("mount of {} has no type", source.display()) });
    }
    let mut parameters = vec![Parameter::Text(c"source".into(), c_string(source.as_os_str().as_bytes())?)];
    for (name, value) in &options.data {
        // Every devpts is an instance of its own; only old kernels knew the word.
        if kind == "devpts" && name == "newinstance" {
            continue;
        }
        let name = c_string(name.as_str())?;
        parameters.push(match value {
            None => Parameter::Flag(name),
            Some(value) => Parameter::Text(name, c_string(value.as_str())?),
        });
    }
    Ok(Source::New { kind: c_string(kind)?, parameters, attributes: options.attributes.set })
}

fn changes(options: &Options) -> Vec<(Scope, MountAttr)> {
    let mut changes = Vec::new();
    // What was made by the kernel here has its attributes from its making; what was made before has none yet.
    if (options.bind.is_some() || options.copy_up) && !options.attributes.is_empty() {
        changes.push((Scope::Single, options.attributes));
    }
    if !options.tree_attributes.is_empty() {
        changes.push((Scope::Tree, options.tree_attributes));
    }
    let (scope, propagation) = match options.propagation {
        Some(given) => given,
        // A clone of a shared mount is its peer until told otherwise.
        None => (Scope::Tree, libc::MS_PRIVATE),
    };
    if options.bind.is_some() || options.propagation.is_some() {
        changes.push((scope, MountAttr::new(0, 0, propagation)));
    }
    changes
}

fn check_bind_destination(destination: &Path) -> Result<(), Error> {
    let Ok(inside) = destination.strip_prefix("/proc") else { return Ok(()) };
    if PROC_FILES.iter().any(|allowed| Path::new(allowed) == inside) {
        return Ok(());
    }
    Err(Error::Spec {
        what: format!("\"{}\" cannot be mounted because it is inside /proc", destination.display()),
    })
}

/// Removes `.` and `..` from a destination; links are the child's business.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Whether the host has cgroup v2 and nothing else.
pub(crate) fn unified_cgroups() -> bool {
    /// `CGROUP2_SUPER_MAGIC` (linux/magic.h).
    const CGROUP2: u32 = 0x6367_7270;
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.f_type as u32 == CGROUP2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_cleaned_without_leaving_the_root() {
        assert_eq!(clean(Path::new("/a/../../b/./c")), Path::new("/b/c"));
        assert_eq!(clean(Path::new("data")), Path::new("/data"));
    }

    #[test]
    fn binds_below_proc_are_refused() {
        assert!(check_bind_destination(Path::new("/proc/uptime")).is_ok());
        assert!(check_bind_destination(Path::new("/processes")).is_ok());
        for path in ["/proc", "/proc/sys", "/proc/self/attr"] {
            assert!(check_bind_destination(Path::new(path)).is_err(), "{path}");
        }
    }
}
