//! `run`: create, start and wait in one.

use std::os::fd::AsFd;

use anyhow::{Context, bail};
use rustix::process::{Signal, pidfd_send_signal};

use super::create::{Made, Shared, make, undo, write_pid};
use super::state::Store;
use super::{Global, delete, start, terminal};

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    shared: Shared,
    /// Don't wait for its end
    #[arg(short, long)]
    detach: bool,
    /// Leave what is recorded of it when it has ended
    #[arg(long)]
    keep: bool,
    /// Taken for the sake of callers: this process reaps its own child alone
    #[arg(long)]
    no_subreaper: bool,
    /// Name of the container
    id: String,
}

/// Runs the command; returns the exit code.
pub fn run(store: &Store, global: &Global, options: Options) -> anyhow::Result<u8> {
    let Made { entry, record, mut created } = make(store, global, &options.id, &options.shared)?;
    let socket = options.shared.console_socket.as_deref();
    let master = created.terminal.take();
    let forward = terminal::Forward::prepare(!options.detach)?;
    let pid = created.pid;
    let pidfd = created.pidfd.try_clone().context("keep the container's process")?;
    let started = (|| {
        match (&master, socket) {
            (Some(master), Some(socket)) => terminal::send(master.as_fd(), socket)?,
            (Some(_), None) if options.detach => {
                bail!("cannot allocate tty if the container is detached without setting console socket")
            }
            _ => {}
        }
        created.detach()?;
        if let Some(file) = &options.shared.pid_file {
            write_pid(file, pid)?;
        }
        let process = record.process.as_ref().context("the container has no process")?;
        start::start(&entry, &record, process)
    })();
    if let Err(error) = started {
        // It may wait to be started; whoever it is, it belongs to this process.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = terminal::reap(pid);
        undo(&entry, &record);
        return Err(error);
    }
    if options.detach {
        return Ok(0);
    }
    let code = forward.until_end(pid, pidfd.as_fd(), master.filter(|_| socket.is_none()))?;
    if !options.keep {
        entry.lock()?;
        delete::remove(&entry, &record)?;
    }
    Ok(code)
}
