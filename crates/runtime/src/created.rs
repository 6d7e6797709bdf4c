//! A process between its clone and its start.

use crate::error::{Error, ExecFailure};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use skiff_linux_sys::child::{Child, ExecuteFailure, Failure, Parent, Program, Spawn};
use std::os::fd::{AsFd, OwnedFd};

/// A process that is set up and waits just before `execve`. Dropping it kills the process.
#[derive(Debug)]
pub struct Created {
    /// The process id in the caller's pid namespace.
    pub pid: i32,
    /// The process's descriptor.
    pub pidfd: OwnedFd,
    /// The terminal's master, when a terminal was asked for.
    pub terminal: Option<OwnedFd>,
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

/// The child with what its errors mean; kills it unless it was let go.
#[derive(Debug)]
struct Pending {
    child: Child,
    program: Program,
    command: Command,
    parent: Parent,
    let_go: bool,
}

/// What the last step executes, for the text of its errors.
#[derive(Clone, Debug)]
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
    pub(crate) fn wait(
        child: Child,
        program: Program,
        command: Command,
        parent: Parent,
    ) -> Result<Self, Error> {
        let mut pending = Pending { child, program, command, parent, let_go: false };
        if let Err(failure) = pending.child.ready() {
            return Err(pending.explain(failure));
        }
        let pidfd = pending.child.pidfd().try_clone_to_owned().map_err(|source| Error::Channel { source })?;
        Ok(Self { pid: pending.child.pid(), pidfd, terminal: pending.child.take_terminal(), pending })
    }

    /// Lets the process execute its command and returns once it has, or with the reason why it could not.
    pub fn start(self) -> Result<Running, Error> {
        let Self { pid, pidfd, terminal, mut pending } = self;
        match pending.child.start() {
            Ok(()) => {
                pending.let_go = true;
                Ok(Running { pid, pidfd, terminal })
            }
            Err(failure) => Err(pending.explain(failure)),
        }
    }
}

impl Pending {
    fn explain(&self, failure: Failure) -> Error {
        match failure {
            Failure::Died => Error::Died,
            Failure::Channel(source) => Error::Channel { source },
            Failure::Step { index, source, .. } if index + 1 < self.program.len() => {
                Error::Setup { what: self.program.label(index).to_owned(), source }
            }
            Failure::Step { source, execute, .. } => {
                let in_path = !self.command.name.contains('/');
                let name = self.command.name.clone();
                let (path, reason) = match execute {
                    ExecuteFailure::Refused { candidate } => {
                        let path = self.command.candidates.get(candidate).cloned();
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
