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

mod hook;
mod identity;
mod mounts;
mod paths;
mod run;
mod schedule;
mod spawn;
mod terminal;

/// The exit code of a child that was never let go, or could not execute its command: a number that hardly any program
/// uses, so that whoever finds only the code can tell.
pub const NEVER_RAN: i32 = 221;

pub use schedule::SchedulerAttributes;
pub use spawn::{Child, Failure, Parent, Spawn, start_at};

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
    inherited: u32,
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

    /// Leaves the descriptors `3..3 + count`, which the caller's own parent has opened, to the child.
    ///
    /// All of them must be open, or a descriptor of the caller's own may have got one of the numbers.
    pub fn leave_inherited(&mut self, count: u32) {
        self.inherited = count;
    }

    /// Whether step `index` is about the command itself.
    pub fn is_command(&self, index: usize) -> bool {
        matches!(self.steps.get(index), Some(Step::FindCommand(_) | Step::Execute { .. }))
    }

    /// The index of the step after which nothing but the command and what belongs to it is left: the last wait.
    pub fn waits_at(&self) -> Option<usize> {
        self.steps.iter().rposition(|step| matches!(step, Step::Ready | Step::Accept(_)))
    }

    /// The labels of the steps from `first` on.
    pub fn labels_from(&self, first: usize) -> &[String] {
        self.labels.get(first..).unwrap_or_default()
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

/// A mount that is attached nowhere.
#[derive(Clone, Debug)]
pub enum Tree {
    /// The parent has made it.
    Kept(FdRef),
    /// The child makes it of what it finds at a path of the host, before the root has changed.
    Host {
        /// The path.
        path: CString,
        /// What is cloned.
        scope: Scope,
    },
}

/// Where the mount of [`Step::Mount`] comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A clone of a mount.
    Detached(Tree),
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

/// Supplementary groups.
#[derive(Clone, Debug)]
pub enum Groups {
    /// These and no others.
    Set(Vec<u32>),
    /// Those of the parent: a user namespace made without privilege may not change them (user_namespaces(7)).
    Keep,
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
    /// Goes on in a clone with new namespaces, a child of the same parent: the way to those that only a clone can get once
    /// a user namespace is joined. The parent learns of it in [`Child::ready`].
    Respawn(Namespaces),
    /// Sets the host name of the UTS namespace.
    HostName(CString),
    /// Sets the domain name of the UTS namespace.
    DomainName(CString),
    /// Changes the propagation (`MS_*` flags) of every mount of the namespace.
    Propagation(u64),
    /// Mounts a detached mount over `/` and makes it the root that later steps refer to.
    AttachRoot {
        /// The detached mount.
        mount: Tree,
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
    /// Sets a kernel parameter through a `/proc` of the child's own, which no mount of the container can have covered.
    Sysctl {
        /// Path below `/proc`.
        path: CString,
        /// What to write, with one system call.
        data: Vec<u8>,
    },
    /// Writes one of the process's own files through the `/proc` that is mounted at the moment: the host's, before the
    /// root changes.
    WriteOwn {
        /// The absolute path, below `/proc/self`.
        path: CString,
        /// What to write, with one system call.
        data: Vec<u8>,
    },
    /// Opens one of the process's own files as above, for [`Step::WriteLabel`].
    OpenLabel(CString),
    /// Writes the security label that the next `execve` brings to the file opened before.
    WriteLabel(Vec<u8>),
    /// Sets the execution domain (`personality(2)`).
    Personality(u64),
    /// Sets priority and class of input and output (`ioprio_set(2)`, the combined value).
    IoPriority(i32),
    /// Sets the scheduling policy (`sched_setattr(2)`).
    Scheduler(SchedulerAttributes),
    /// Sets the processors that may be used, as a bit mask in bytes, lowest first.
    Affinity(Vec<u64>),
    /// Sets the policy for memory of NUMA nodes (`set_mempolicy(2)`).
    MemoryPolicy {
        /// `MPOL_*` with its flags.
        mode: i32,
        /// Nodes as a bit mask, lowest first.
        nodes: Vec<u64>,
    },
    /// Runs a program and waits for it.
    Hook {
        /// The program.
        path: CString,
        /// Its arguments, the first being its name.
        arguments: Vec<CString>,
        /// Its environment.
        environment: Vec<CString>,
        /// A file that it reads from the start as its standard input.
        stdin: FdRef,
        /// How long it may take, in milliseconds; without one, for ever.
        timeout: Option<u32>,
    },
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
    /// Closes every descriptor except the standard streams, those inherited on purpose, the channel and these.
    CloseAll {
        /// What later steps need.
        keep: Vec<FdRef>,
    },
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
        groups: Groups,
    },
    /// Becomes root of the user namespace that the child was born in, whose ids the parent has mapped.
    BecomeRoot(Groups),
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
        /// Whether the filter's notifications go to a descriptor that the parent gets.
        listener: Listener,
    },
    /// Changes the propagation (`MS_*` flags) of the container's root mount.
    RootPropagation(u64),
    /// Fails as [`Step::Execute`] would when no candidate is an executable file, while somebody still waits for it.
    FindCommand(Vec<CString>),
    /// Reports that everything up to here is done, and waits for [`Child::resume`] or [`Child::start`].
    Ready,
    /// Leaves the parent and waits on a listening socket for whoever calls [`start_at`].
    Accept(FdRef),
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

/// Whether a seccomp filter has a listener (`seccomp_unotify(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// It has none.
    None,
    /// It has one, which is sent to the parent.
    Parent,
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

impl ExecuteFailure {
    fn from_detail(detail: u32) -> Self {
        match detail {
            0 => Self::NotFound,
            1 => Self::NotExecutable,
            candidate => Self::Refused { candidate: candidate as usize - 2 },
        }
    }

    fn detail(self) -> u32 {
        match self {
            Self::NotFound => 0,
            Self::NotExecutable => 1,
            Self::Refused { candidate } => 2u32.saturating_add(candidate as u32),
        }
    }
}
