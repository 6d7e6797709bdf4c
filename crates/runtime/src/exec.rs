//! A further process in a running container.

use crate::cgroup::Cgroup;
use crate::created::{Created, launch};
use crate::error::Error;
use crate::io::Io;
use crate::process;
use oci_spec::runtime::{Linux, Process};
use skiff_linux_sys::child::{Console, Parent, Program, Spawn, Step};
use skiff_linux_sys::namespace::Namespaces;
use std::os::fd::{AsFd, BorrowedFd};

/// What [`exec`] needs to know.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container's first process.
    pub target_pidfd: BorrowedFd<'a>,
    /// Its id, for messages.
    pub target_pid: i32,
    /// The process to run: user, command, capabilities and so on.
    pub process: &'a Process,
    /// The container's Linux section, of which the seccomp profile is used.
    pub linux: Option<&'a Linux>,
    /// Its streams.
    pub io: Io,
    /// The container's cgroup.
    pub cgroup: Option<&'a Cgroup>,
    /// Who reaps the process.
    pub parent: Parent,
}

/// Creates a process inside all namespaces of a running container.
///
/// # Errors
/// [`Error::Clone`] with `ESRCH` when the container has ended; otherwise as in [`create`](crate::create).
pub fn exec(exec: Exec<'_>) -> Result<Created, Error> {
    let mut program = Program::new();
    let clone_error = |source| Error::Clone { source };
    process::push_oom_score(exec.process, &mut program);
    let target =
        program.keep(exec.target_pidfd.try_clone_to_owned().map_err(clone_error)?).map_err(clone_error)?;
    let kinds =
        Namespaces::MOUNT | Namespaces::IPC | Namespaces::NETWORK | Namespaces::UTS | Namespaces::CGROUP;
    program.push(
        Step::Join { fd: target, kinds },
        format!("joining the namespaces of process {}", exec.target_pid),
    );
    program.push(Step::CurrentRoot, "opening the root directory");
    process::push_terminal(&exec.io, Console::Leave, &mut program);
    let command = process::push_tail(exec.process, exec.linux, exec.io, &mut program)?;
    let spawn = Spawn {
        program: &program,
        new: Namespaces::NONE,
        pid_namespace: Some(exec.target_pidfd),
        cgroup: exec.cgroup.map(AsFd::as_fd),
        parent: exec.parent,
    };
    let (child, command) = launch(spawn, command)?;
    Created::wait(child, program, command, exec.parent)
}
