//! The child's steps on mounts, devices and masks.
#![expect(unsafe_code, reason = "runs in a clone: raw system calls over prepared memory")]

use super::paths::{Opened, open_in_root, open_or_make, open_with};
use super::{Links, Parameter, PresentRoot, Source, Target, Tree};
use crate::mount::{MountAttr, Scope};
use crate::sys::{Errno, Result, call};
use std::ffi::CStr;

const EMPTY: &CStr = c"";
// linux/mount.h
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const OPEN_TREE_CLONE: i32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOUNT_ATTR_RDONLY: u64 = 1;
const NULL: usize = 0;

pub(super) fn set_propagation(flags: u64) -> Result<()> {
    change_propagation(flags | libc::MS_REC)
}

/// Changes the propagation of the mount at `/`; with `MS_REC`, of all below it too.
pub(super) fn change_propagation(flags: u64) -> Result<()> {
    // SAFETY: strings are constants; null source, type and data are what a change of propagation asks for.
    unsafe { call!(libc::SYS_mount, NULL, c"/", NULL, flags, NULL) }?;
    Ok(())
}

/// The descriptor of a detached mount, which stays open with the child.
pub(super) fn tree(tree: &Tree) -> Result<i32> {
    match tree {
        Tree::Kept(fd) => Ok(fd.0),
        Tree::Host { path, scope } => {
            let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | scope.flags();
            // SAFETY: the path lives in the prepared steps.
            unsafe { call!(libc::SYS_open_tree, libc::AT_FDCWD, path.as_c_str(), flags) }.map(|fd| fd as i32)
        }
    }
}

/// A `/proc` for the child alone, attached nowhere; where it may not make one, the container's.
pub(super) fn own_proc(root: i32) -> Result<i32> {
    let proc = match new_file_system(c"proc", &[], 0) {
        Err(Errno(libc::EPERM)) => {
            let proc = open_in_root(root, c"proc", libc::O_PATH | libc::O_DIRECTORY, Links::Refuse)?;
            is_proc(proc.0)?;
            proc
        }
        other => other?,
    };
    let fd = proc.0;
    std::mem::forget(proc);
    Ok(fd)
}

/// Fails unless `fd` lies on a proc file system.
fn is_proc(fd: i32) -> Result<()> {
    /// `PROC_SUPER_MAGIC` (linux/magic.h).
    const PROC: i64 = 0x9fa0;
    let mut seen = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel fills the structure, whose address it is given; all-zero bytes are a valid value of it.
    let seen = unsafe {
        call!(libc::SYS_fstatfs, fd, seen.as_mut_ptr())?;
        seen.assume_init()
    };
    if seen.f_type as i64 == PROC { Ok(()) } else { Err(Errno(libc::EXDEV)) }
}

/// Opens what lies on the mount itself: neither a link nor another mount on the way is followed.
pub(super) fn open_on_mount(mount: i32, path: &CStr, flags: i32) -> Result<Opened> {
    open_with(mount, path, flags, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV)
}

/// Mounts `mount` over the root directory; the descriptor then refers to the attached mount.
pub(super) fn attach_root(mount: i32, present: PresentRoot) -> Result<()> {
    if present == PresentRoot::Fixed {
        let copy = clone_tree(open_root()?.0, Scope::Tree)?;
        attach_over_root(copy.0)?;
        change_to(copy.0)?;
        // SAFETY: the string is a constant.
        unsafe { call!(libc::SYS_chroot, c".") }?;
    }
    attach_over_root(mount)
}

fn attach_over_root(mount: i32) -> Result<()> {
    // SAFETY: strings are constants.
    unsafe { call!(libc::SYS_move_mount, mount, EMPTY, libc::AT_FDCWD, c"/", MOVE_MOUNT_F_EMPTY_PATH) }?;
    Ok(())
}

fn attach(mount: i32, target: i32) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: strings are constants.
    match unsafe { call!(libc::SYS_move_mount, mount, EMPTY, target, EMPTY, flags) } {
        Ok(_) => Ok(()),
        // mount(2) has a better word for a directory over a file, and users know it.
        Err(Errno(libc::EINVAL)) if is_directory(&status(mount)?) != is_directory(&status(target)?) => {
            Err(Errno(libc::ENOTDIR))
        }
        Err(errno) => Err(errno),
    }
}

fn set_attributes(mount: i32, scope: Scope, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | scope.flags();
    // SAFETY: the structure lives across the call and has the size given.
    unsafe { call!(libc::SYS_mount_setattr, mount, EMPTY, flags, &raw const *attr, size_of::<MountAttr>()) }?;
    Ok(())
}

/// Clones the mount at a descriptor, from the directory or file that it refers to.
fn clone_tree(fd: i32, scope: Scope) -> Result<Opened> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | scope.flags();
    // SAFETY: strings are constants.
    unsafe { call!(libc::SYS_open_tree, fd, EMPTY, flags) }.map(|fd| Opened(fd as i32))
}

fn new_file_system(kind: &CStr, parameters: &[Parameter], attributes: u64) -> Result<Opened> {
    // SAFETY: the string lives in the prepared steps.
    let context = Opened(unsafe { call!(libc::SYS_fsopen, kind, FSOPEN_CLOEXEC) }? as i32);
    for parameter in parameters {
        match parameter {
            // SAFETY: the strings live in the prepared steps; a flag has no value.
            Parameter::Flag(name) => unsafe {
                call!(libc::SYS_fsconfig, context.0, FSCONFIG_SET_FLAG, name.as_c_str(), NULL, 0)
            },
            // SAFETY: the strings live in the prepared steps.
            Parameter::Text(name, value) => unsafe {
                call!(
                    libc::SYS_fsconfig,
                    context.0,
                    FSCONFIG_SET_STRING,
                    name.as_c_str(),
                    value.as_c_str(),
                    0
                )
            },
        }?;
    }
    // SAFETY: the command takes neither name nor value.
    unsafe { call!(libc::SYS_fsconfig, context.0, FSCONFIG_CMD_CREATE, NULL, NULL, 0) }?;
    // SAFETY: no memory is passed.
    unsafe { call!(libc::SYS_fsmount, context.0, FSMOUNT_CLOEXEC, attributes) }.map(|fd| Opened(fd as i32))
}

pub(super) fn mount(
    root: i32,
    source: &Source,
    target: &Target,
    changes: &[(Scope, MountAttr)],
) -> Result<()> {
    let new;
    let mount = match source {
        Source::Detached(Tree::Kept(fd)) => fd.0,
        Source::Detached(host) => {
            new = Opened(tree(host)?);
            new.0
        }
        Source::New { kind, parameters, attributes } => {
            new = new_file_system(kind, parameters, *attributes)?;
            new.0
        }
    };
    for (scope, attr) in changes {
        set_attributes(mount, *scope, attr)?;
    }
    attach(mount, open_or_make(root, target)?.0)
}

pub(super) struct Node<'a> {
    pub name: &'a CStr,
    pub host: &'a CStr,
    pub mode: u32,
    pub number: u64,
    pub uid: u32,
    pub gid: u32,
}

pub(super) fn device(root: i32, directory: &Target, node: &Node<'_>) -> Result<()> {
    let parent = open_or_make(root, directory)?;
    // SAFETY: the name lives in the prepared steps.
    match unsafe { call!(libc::SYS_mknodat, parent.0, node.name, node.mode, node.number) } {
        Ok(_) => {}
        Err(Errno(libc::EEXIST)) => return Ok(()),
        Err(Errno(libc::EPERM)) => return bind_device(parent.0, node),
        Err(errno) => return Err(errno),
    }
    if node.uid != 0 || node.gid != 0 {
        // SAFETY: as above.
        unsafe {
            call!(libc::SYS_fchownat, parent.0, node.name, node.uid, node.gid, libc::AT_SYMLINK_NOFOLLOW)
        }?;
    }
    Ok(())
}

/// Binds the host's node over an empty file, where nodes may not be made.
fn bind_device(parent: i32, node: &Node<'_>) -> Result<()> {
    // SAFETY: the strings live in the prepared steps.
    let host =
        unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, node.host, libc::O_PATH | libc::O_CLOEXEC, 0) };
    let host = Opened(host? as i32);
    let tree = clone_tree(host.0, Scope::Single)?;
    // SAFETY: as above.
    unsafe { call!(libc::SYS_mknodat, parent, node.name, libc::S_IFREG | 0o755, 0) }?;
    let place = open_in_root(parent, node.name, libc::O_PATH, Links::Refuse)?;
    attach(tree.0, place.0)
}

pub(super) fn link(root: i32, directory: &Target, name: &CStr, target: &CStr) -> Result<()> {
    let parent = open_or_make(root, directory)?;
    // SAFETY: the strings live in the prepared steps.
    match unsafe { call!(libc::SYS_symlinkat, target, parent.0, name) } {
        Ok(_) | Err(Errno(libc::EEXIST)) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// What `statx(2)` says of an open descriptor.
pub(super) fn status(fd: i32) -> Result<libc::statx> {
    let mut status = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the kernel fills the structure, whose address it is given; all-zero bytes are a valid value of it.
    unsafe {
        call!(libc::SYS_statx, fd, EMPTY, libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS, status.as_mut_ptr())?;
        Ok(status.assume_init())
    }
}

pub(super) fn is_directory(status: &libc::statx) -> bool {
    u32::from(status.stx_mode) & libc::S_IFMT == libc::S_IFDIR
}

/// Hides `path`. Must run before the pivot: the null device is the host's, which no image can have replaced.
pub(super) fn mask(root: i32, path: &CStr) -> Result<()> {
    let target = match open_in_root(root, path, libc::O_PATH, Links::Inside) {
        Ok(target) => target,
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if is_directory(&status(target.0)?) {
        return attach(new_file_system(c"tmpfs", &[], MOUNT_ATTR_RDONLY)?.0, target.0);
    }
    // SAFETY: the string is a constant.
    let null =
        unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null", libc::O_PATH | libc::O_CLOEXEC, 0) };
    let null = Opened(null? as i32);
    let seen = status(null.0)?;
    if (seen.stx_rdev_major, seen.stx_rdev_minor) != (1, 3) {
        return Err(Errno(libc::ENODEV));
    }
    attach(clone_tree(null.0, Scope::Single)?.0, target.0)
}

pub(super) fn read_only(root: i32, path: &CStr) -> Result<()> {
    let target = match open_in_root(root, path, libc::O_PATH, Links::Inside) {
        Ok(target) => target,
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let tree = clone_tree(target.0, Scope::Tree)?;
    set_attributes(tree.0, Scope::Tree, &MountAttr::new(MOUNT_ATTR_RDONLY, 0, 0))?;
    attach(tree.0, target.0)
}

pub(super) fn read_only_root(root: i32) -> Result<()> {
    set_attributes(root, Scope::Single, &MountAttr::new(MOUNT_ATTR_RDONLY, 0, 0))
}

fn change_to(directory: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    unsafe { call!(libc::SYS_fchdir, directory) }?;
    Ok(())
}

fn open_root() -> Result<Opened> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the string is a constant.
    unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, c"/", flags, 0) }.map(|fd| Opened(fd as i32))
}

/// Swaps the root mount for `root` and detaches the old one (`pivot_root(2)`, its note on `pivot_root(".", ".")`).
pub(super) fn pivot(root: i32) -> Result<()> {
    let old = open_root()?;
    change_to(root)?;
    // SAFETY: the strings are constants.
    unsafe { call!(libc::SYS_pivot_root, c".", c".") }?;
    change_to(old.0)?;
    // SAFETY: the string is a constant.
    unsafe { call!(libc::SYS_umount2, c".", libc::MNT_DETACH) }?;
    // SAFETY: the string is a constant.
    unsafe { call!(libc::SYS_chdir, c"/") }?;
    Ok(())
}

/// The directory that `/` is for this process, as the root of later steps.
pub(super) fn current_root() -> Result<i32> {
    let root = open_root()?;
    let fd = root.0;
    std::mem::forget(root);
    Ok(fd)
}

/// Binds the file behind `fd` over `target`.
pub(super) fn bind_over(root: i32, fd: i32, target: &Target) -> Result<()> {
    let tree = clone_tree(fd, Scope::Single)?;
    attach(tree.0, open_or_make(root, target)?.0)
}
