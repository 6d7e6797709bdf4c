//! A new process as a prepared list of steps.
//!
//! ```text
//!  parent                                   child
//!  ──────                                   ─────
//!  Program: steps, descriptors, strings
//!  spawn() ───────── clone3 ──────────────► step 0, step 1, … raw system calls only
//!  Child::ready()  ◄── terminal (fd), ready ── Step::Ready: waits
//!  Child::start() ───────── go ───────────► the last steps, execve
//!                  ◄──── end of channel ────  (the channel is close-on-exec)
//!                  ◄── step, errno, detail ── or: a step failed, the child exits
//! ```
//!
//! The parent may have any number of threads. Whatever lock one of them holds at the moment of the clone stays held
//! in the child for ever, so the child must not allocate, log, panic or call the C library: the interpreter in `run`
//! reads the prepared steps and makes system calls by instruction. When the parent goes away before the start, the
//! child sees the end of the channel and exits.

mod identity;
mod mounts;
mod paths;
mod run;
mod spawn;
mod terminal;

/// The exit code of a child that was never let go, or could not execute its command: a number that hardly any program
/// uses, so that whoever finds only the code can tell.
pub const NEVER_RAN: i32 = 221;

pub use spawn::{Child, Failure, Parent, Spawn};

use crate::mount::{MountAttr, Scope};
use crate::namespace::Namespaces;
use crate::seccomp::Instruction;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// A descriptor that a [`Program`] keeps open for its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdRef(RawFd);

/// The steps of a child and everything they refer to.
#[derive(Debug, Default)]
pub struct Program {
    steps: Vec<Step>,
    labels: Vec<String>,
    fds: Vec<OwnedFd>,
}

impl Program {
    /// Starts an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step; the label says what it does in the error of a child that fails there.
    pub fn push(&mut self, step: Step, label: impl Into<String>) {
        self.steps.push(step);
        self.labels.push(label.into());
    }

    /// Keeps a descriptor open until the program is dropped, under a number that no standard stream uses.
    pub fn keep(&mut self, fd: OwnedFd) -> std::io::Result<FdRef> {
        let fd = if fd.as_raw_fd() < 3 { rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 3)? } else { fd };
        let reference = FdRef(fd.as_raw_fd());
        self.fds.push(fd);
        Ok(reference)
    }

    /// The label of step `index`.
    pub fn label(&self, index: usize) -> &str {
        self.labels.get(index).map_or("", String::as_str)
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// What a mount point or a created path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Anything else; created as an empty regular file.
    File,
}

/// What to do about symbolic links in a path inside the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Follow them as a process inside the root would: they cannot lead out of it.
    Inside,
    /// Fail with `ELOOP`.
    Refuse,
}

/// A path below the root where something is mounted; created when missing.
#[derive(Clone, Debug)]
pub struct Target {
    /// The path, absolute or not: always taken from the root.
    pub path: CString,
    /// What is created when it does not exist.
    pub kind: Kind,
    /// How links in it are treated.
    pub links: Links,
}

/// Whether the present root directory can be swapped by `pivot_root(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresentRoot {
    /// It is a mount on top of another one.
    Movable,
    /// It is an initramfs or no mount at all (chroot): a copy is put on top, and that one swapped.
    Fixed,
}

/// A parameter of a file system that is being created (`fsconfig(2)`).
#[derive(Clone, Debug)]
pub enum Parameter {
    /// A name alone.
    Flag(CString),
    /// A name with a text value.
    Text(CString, CString),
}

/// Where the mount of [`Step::Mount`] comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A mount that the parent made and did not attach.
    Detached(FdRef),
    /// A new file system, created in the child's own namespaces.
    New {
        /// The file system's type.
        kind: CString,
        /// Its parameters.
        parameters: Vec<Parameter>,
        /// `MOUNT_ATTR_*` of the new mount.
        attributes: u64,
    },
}

/// The terminal's size in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Whether `/dev/console` shows the terminal.
#[derive(Clone, Debug)]
pub enum Console {
    /// The terminal is mounted at this file.
    Mount {
        /// The file, usually `/dev/console`.
        target: Target,
    },
    /// It is left as it is.
    Leave,
}

/// One prepared operation of a child. Paths are taken from the root that [`Step::AttachRoot`] or
/// [`Step::CurrentRoot`] has set, unless their description says otherwise.
#[derive(Debug)]
pub enum Step {
    /// Joins namespaces through a namespace file or pidfd.
    Join {
        /// The namespace file or pidfd.
        fd: FdRef,
        /// Which of its namespaces.
        kinds: Namespaces,
    },
    /// Makes new namespaces; for those that cannot be made by the clone itself.
    Leave(Namespaces),
    /// Sets the host name of the UTS namespace.
    HostName(CString),
    /// Sets the domain name of the UTS namespace.
    DomainName(CString),
    /// Changes the propagation (`MS_*` flags) of every mount of the namespace.
    Propagation(u64),
    /// Mounts a detached mount over `/` and makes it the root that later steps refer to.
    AttachRoot {
        /// The detached mount.
        mount: FdRef,
        /// What kind of root the process has now.
        present: PresentRoot,
    },
    /// Takes the process's present root as the root that later steps refer to.
    CurrentRoot,
    /// Makes the attached root the root of the mount namespace and drops everything else.
    PivotRoot,
    /// Mounts something at a target.
    Mount {
        /// What to mount.
        source: Source,
        /// Where.
        target: Target,
        /// What to change on the mount before it is attached, in turn.
        changes: Vec<(Scope, MountAttr)>,
    },
    /// Makes a device node, or binds the host's node where nodes may not be made.
    Device {
        /// Its directory below the root, made when missing.
        directory: Target,
        /// Its name there.
        name: CString,
        /// The host's node for the fallback.
        host: CString,
        /// Type and permission bits.
        mode: u32,
        /// Device number in the kernel's encoding.
        number: u64,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Makes a symbolic link unless something is there already.
    Link {
        /// Its directory below the root, made when missing.
        directory: Target,
        /// Its name there.
        name: CString,
        /// What it points to.
        target: CString,
    },
    /// Hides a path: a directory behind an empty read-only one, anything else behind `/dev/null`. Missing is fine.
    Mask(CString),
    /// Makes a path and everything mounted below it read-only. Missing is fine.
    ReadOnly(CString),
    /// Makes the root mount itself read-only.
    ReadOnlyRoot,
    /// Creates a directory and its parents below the root.
    MakeDirectory(Target),
    /// Writes a file below the root that must exist, refusing links in its path.
    WriteFile {
        /// Path below the root.
        path: CString,
        /// What to write, with one system call.
        data: Vec<u8>,
    },
    /// Sets the process's `oom_score_adj` through the `/proc` that is mounted at the moment.
    OomScore(Vec<u8>),
    /// Sets one resource limit.
    Limit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// Sets the file creation mask.
    Umask(u32),
    /// Opens a terminal of the `devpts` below the root and passes its master to the parent.
    Terminal {
        /// Its first size.
        size: Option<WindowSize>,
        /// Whether to show it as `/dev/console`.
        console: Console,
    },
    /// Becomes a session leader; the terminal, if one was opened, becomes standard streams and controlling terminal.
    Session,
    /// Makes three descriptors the standard streams.
    Streams {
        /// Standard input.
        stdin: FdRef,
        /// Standard output.
        stdout: FdRef,
        /// Standard error.
        stderr: FdRef,
    },
    /// Gives the standard streams to a user, so that `/dev/stdout` can be opened again.
    OwnStreams(u32),
    /// Closes every descriptor except the standard streams and the channel.
    CloseAll,
    /// Changes to a directory and makes sure that it lies inside the root.
    ChangeDirectory(CString),
    /// Drops every capability from the bounding set that is not in the mask.
    BoundingSet(u64),
    /// Becomes a user, keeping all capabilities for the steps that follow.
    User {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
    /// Takes the final capability sets, as masks.
    Capabilities {
        /// Effective.
        effective: u64,
        /// Permitted.
        permitted: u64,
        /// Inheritable.
        inheritable: u64,
        /// Ambient.
        ambient: u64,
    },
    /// Gives up gaining privileges by `execve` for good.
    NoNewPrivileges,
    /// Installs a seccomp filter.
    Seccomp {
        /// The programme.
        filter: Arc<[Instruction]>,
        /// `SECCOMP_FILTER_FLAG_*`.
        flags: u32,
    },
    /// Reports that everything is set up, and waits for [`Child::start`].
    Ready,
    /// Resets signals and executes the first candidate that can be executed. Always the last step.
    Execute {
        /// Paths to try in turn.
        candidates: Vec<CString>,
        /// Arguments.
        arguments: Vec<CString>,
        /// Environment.
        environment: Vec<CString>,
    },
}

/// Why [`Step::Execute`] failed, beside the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecuteFailure {
    /// No candidate exists as an executable file; the errno is that of looking at the last one.
    NotFound,
    /// The file is a directory or lacks permission to execute.
    NotExecutable,
    /// The file is there and executable, and `execve` failed.
    Refused {
        /// Which of the candidates.
        candidate: usize,
    },
}
