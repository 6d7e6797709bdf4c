//! A further process in a running container.

use crate::cgroup::Cgroup;
use crate::created::{Created, Pending, launch};
use crate::error::Error;
use crate::io::Io;
use crate::process::{self, Tail};
use crate::{label, scheduling};
use oci_spec::runtime::{Linux, Process};
use skiff_linux_sys::child::{Console, Groups, Parent, Program, Spawn, Step};
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
    exec_with(exec, 0)
}

/// As [`exec`], with descriptors from 3 on that the command inherits; all of them must be open.
///
/// # Errors
/// As [`exec`].
pub fn exec_with(exec: Exec<'_>, inherited: u32) -> Result<Created, Error> {
    let mut program = Program::new();
    program.leave_inherited(inherited);
    let clone_error = |source| Error::Clone { source };
    label::push_open(exec.process, &mut program)?;
    process::push_oom_score(exec.process, &mut program);
    let target =
        program.keep(exec.target_pidfd.try_clone_to_owned().map_err(clone_error)?).map_err(clone_error)?;
    let mut kinds = KINDS.into_iter().fold(Namespaces::NONE, |all, (kind, _)| all | kind);
    // Joining the user namespace that one is in is an error, and so is a kind that the kernel lacks.
    let user = has_own(exec.target_pid, "user");
    if user {
        kinds = kinds | Namespaces::USER;
    }
    if has_own(exec.target_pid, "time") {
        kinds = kinds | Namespaces::TIME;
    }
    let wanted = exec.process.user().additional_gids().clone().unwrap_or_default();
    if !crate::mapping::owns_machine() {
        // Those that are the host's cannot be joined again without its privileges.
        for (kind, file) in KINDS {
            if !has_own(exec.target_pid, file) {
                kinds = kinds.without(kind);
            }
        }
    }
    let groups = match groups_are_fixed(exec.target_pid) {
        true if wanted.is_empty() => Groups::Keep,
        true => {
            let what = "process.user.additionalGids cannot be set in a user namespace made without privilege";
            return Err(Error::Spec { what: what.into() });
        }
        false => Groups::Set(wanted),
    };
    program.push(
        Step::Join { fd: target, kinds },
        format!("joining the namespaces of process {}", exec.target_pid),
    );
    program.push(Step::CurrentRoot, "opening the root directory");
    process::push_terminal(&exec.io, Console::Leave, &mut program);
    scheduling::push_affinity(exec.process, &mut program)?;
    let (process, linux) = (exec.process, exec.linux);
    let tail = Tail { process, linux, io: exec.io, groups, limits: !user, accept: None, hooks: None };
    let command = process::push_tail(tail, &mut program)?;
    let spawn = Spawn {
        program: &program,
        new: Namespaces::NONE,
        pid_namespace: Some(exec.target_pidfd),
        cgroup: exec.cgroup.map(AsFd::as_fd),
        parent: exec.parent,
    };
    let (child, command) = launch(spawn, command)?;
    let created = Pending::new(child, program, command, exec.parent).finish()?;
    if user {
        process::limit_from_outside(process, created.pid)?;
    }
    Ok(created)
}

/// The namespaces that every further process joins.
const KINDS: [(Namespaces, &str); 5] = [
    (Namespaces::MOUNT, "mnt"),
    (Namespaces::IPC, "ipc"),
    (Namespaces::NETWORK, "net"),
    (Namespaces::UTS, "uts"),
    (Namespaces::CGROUP, "cgroup"),
];

/// Whether a process is in another namespace of a kind than this one.
fn has_own(pid: i32, kind: &str) -> bool {
    let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let other = link(&pid.to_string());
    other.is_some() && other != link("self")
}

/// Whether the user namespace of a process lets nobody change supplementary groups (user_namespaces(7)).
fn groups_are_fixed(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/setgroups")).is_ok_and(|text| text.trim() == "deny")
}
