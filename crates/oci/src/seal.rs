//! Keeping the program's file out of its payload's reach (CVE-2019-5736).
//!
//! Whatever clones into a container can be made to execute itself there: a command of `#!/proc/self/exe` is enough. Then
//! `/proc/PID/exe` is a way to the file on the host, for writing, too. So the program runs from a mount of its own file
//! that is read-only and attached nowhere: nobody can make it writable, since nobody's namespace has it.

use std::convert::Infallible;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, open};
use rustix::mount::{OpenTreeFlags, open_tree};
use skiff_linux_sys::mount::{MountAttr, Scope, set_attributes};

const PROGRAM: &str = "/proc/self/exe";
/// `MOUNT_ATTR_RDONLY` (linux/mount.h).
const READ_ONLY: u64 = 1;

/// Starts the program anew from a read-only mount, unless it runs from one. Without the privilege to mount it stays as it
/// is: then it cannot write to its file, and no more can a container of the same user.
///
/// `name` is what `ps` and `pgrep` show of it then.
///
/// To be called before anything else is done: nothing but arguments, environment and descriptors survives.
pub fn ensure(name: &CStr) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if is_sealed().unwrap_or(true) {
        // The kernel named the process after the descriptor that it was started from. Best effort: the name is for people.
        let _ = rustix::thread::set_name(name);
        return;
    }
    let Err(error) = restart();
    eprintln!("skiff: the program's own file can't be protected from containers: {error}");
}

fn is_sealed() -> io::Result<bool> {
    let file = open(PROGRAM, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn restart() -> io::Result<Infallible> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, PROGRAM, flags)?;
    set_attributes(mount.as_fd(), Scope::Single, &MountAttr::new(READ_ONLY, 0, 0))?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).exec())
}
