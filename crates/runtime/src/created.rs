//! A process between its clone and its start.

use crate::error::{Error, ExecFailure};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};
use skiff_linux_sys::child::{Child, ExecuteFailure, Failure, Parent, Program, Spawn, start_at};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A process that is set up and waits just before `execve`. Dropping it kills the process.
#[derive(Debug)]
pub struct Created {
    /// The process id in the caller's pid namespace.
    pub pid: i32,
    /// The process's descriptor.
    pub pidfd: OwnedFd,
    /// The terminal's master, when a terminal was asked for.
    pub terminal: Option<OwnedFd>,
    /// The listener of its seccomp filter, until it is handed over.
    pub(crate) listener: Option<OwnedFd>,
    pending: Pending,
}

/// A process that runs its command.
#[derive(Debug)]
pub struct Running {
    /// The process id in the caller's pid namespace.
    pub pid: i32,
    /// The process's descriptor.
    pub pidfd: OwnedFd,
    /// The terminal's master, when a terminal was asked for.
    pub terminal: Option<OwnedFd>,
}

/// What the errors of a process's last steps mean, for whoever starts it after its creator has gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Later {
    /// The index of the first step that has a label here.
    first: usize,
    labels: Vec<String>,
    command: Command,
}

/// The child with what its errors mean; kills it unless it was let go.
#[derive(Debug)]
pub(crate) struct Pending {
    child: Child,
    program: Program,
    command: Command,
    parent: Parent,
    let_go: bool,
}

/// What the last step executes, for the text of its errors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The first argument.
    pub name: String,
    /// The paths that are tried.
    pub candidates: Vec<String>,
}

/// Clones a program and waits until it is set up.
pub(crate) fn launch(spawn: Spawn<'_>, command: Command) -> Result<(Child, Command), Error> {
    let child = spawn.spawn().map_err(|source| Error::Clone { source })?;
    Ok((child, command))
}

impl Created {
    /// Lets the process execute its command and returns once it has, or with the reason why it could not.
    pub fn start(self) -> Result<Running, Error> {
        let Self { pid, pidfd, terminal, mut pending, .. } = self;
        match pending.child.start() {
            Ok(()) => {
                pending.let_go = true;
                Ok(Running { pid, pidfd, terminal })
            }
            Err(failure) => Err(pending.explain(failure)),
        }
    }

    /// What the errors of the steps to come mean.
    pub fn later(&self) -> Later {
        let Pending { program, command, .. } = &self.pending;
        // Only what comes after the wait can still fail.
        let first = program.waits_at().unwrap_or(0);
        Later { first, labels: program.labels_from(first).to_vec(), command: command.clone() }
    }

    /// Leaves the process to itself: it waits at the socket that it was given, and is no longer killed with this.
    ///
    /// # Errors
    /// [`Error::Died`] when it has ended meanwhile.
    pub fn detach(self) -> Result<(), Error> {
        let Self { mut pending, .. } = self;
        pending.resume()?;
        pending.let_go = true;
        Ok(())
    }
}

/// Starts a process that was [detached](Created::detach), through a connection to its socket.
///
/// # Errors
/// As [`Created::start`].
pub fn start_detached(connection: BorrowedFd<'_>, later: &Later) -> Result<(), Error> {
    start_at(connection).map_err(|failure| {
        let label = |index: usize| index.checked_sub(later.first).and_then(|at| later.labels.get(at));
        let last = later.first + later.labels.len();
        let is_command = |index: usize| index + 1 >= last;
        explain(failure, |index| label(index).map_or("", String::as_str), is_command, &later.command)
    })
}

impl Pending {
    pub fn new(child: Child, program: Program, command: Command, parent: Parent) -> Self {
        Self { child, program, command, parent, let_go: false }
    }

    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Waits until the child pauses.
    pub fn reach(&mut self) -> Result<(), Error> {
        self.child.ready().map_err(|failure| self.explain(failure))
    }

    /// Lets the child go on to its next pause.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.child.resume().map_err(|failure| self.explain(failure))
    }

    /// Waits for the last pause, before the command.
    pub fn finish(mut self) -> Result<Created, Error> {
        self.reach()?;
        let pidfd = self.child.pidfd().try_clone_to_owned().map_err(|source| Error::Channel { source })?;
        let (terminal, listener) = (self.child.take_terminal(), self.child.take_listener());
        Ok(Created { pid: self.child.pid(), pidfd, terminal, listener, pending: self })
    }

    fn explain(&self, failure: Failure) -> Error {
        let program = &self.program;
        explain(failure, |index| program.label(index), |index| program.is_command(index), &self.command)
    }
}

fn explain<'a>(
    failure: Failure,
    label: impl Fn(usize) -> &'a str,
    is_command: impl Fn(usize) -> bool,
    command: &Command,
) -> Error {
    match failure {
        Failure::Died => Error::Died,
        Failure::Channel(source) => Error::Channel { source },
        Failure::Step { index, source, hook, .. } if !is_command(index) => {
            let source = hook.map_or(source, |code| io::Error::other(format!("exit status {code}")));
            Error::Setup { what: label(index).to_owned(), source }
        }
        Failure::Step { source, execute, .. } => {
            let in_path = !command.name.contains('/');
            let name = command.name.clone();
            let (path, reason) = match execute {
                ExecuteFailure::Refused { candidate } => {
                    let path = command.candidates.get(candidate).cloned();
                    (path.unwrap_or(name), ExecFailure::Refused)
                }
                _ if in_path => (name, ExecFailure::NotInPath),
                ExecuteFailure::NotFound => (name, ExecFailure::Missing),
                ExecuteFailure::NotExecutable => (name, ExecFailure::NotExecutable),
            };
            Error::Exec { path, reason, errno: source.raw_os_error().unwrap_or(0) }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.let_go {
            return;
        }
        let pidfd = self.child.pidfd();
        // Both calls fail only for a process that is gone already, which is what they are for.
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
        if self.parent == Parent::Caller {
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}
