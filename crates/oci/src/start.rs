//! `start`: lets a container's command run.

use std::os::fd::AsFd;

use anyhow::bail;
use rustix::process::{Signal, pidfd_send_signal};
use skiff_runtime::{run_hooks, start_detached};

use super::state::{Entry, Process, Record, Status, Store, document};

/// What `start` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name of the container
    id: String,
}

/// Runs the command.
pub fn run(store: &Store, options: &Options) -> anyhow::Result<()> {
    let entry = store.find(&options.id)?;
    entry.lock()?;
    let record = entry.read()?;
    match (entry.status(&record), &record.process) {
        (Status::Created, Some(process)) => start(&entry, &record, process),
        (Status::Stopped, _) => bail!("cannot start a container that has stopped"),
        (Status::Running | Status::Paused, _) => bail!("cannot start an already running container"),
        (status, _) => bail!("cannot start a container in the {status} state"),
    }
}

/// Starts a container that waits.
pub fn start(entry: &Entry, record: &Record, process: &Process) -> anyhow::Result<()> {
    let connection = entry.connect()?;
    let started = start_detached(connection.as_fd(), &process.later);
    // Whatever came of it: nobody listens any more.
    entry.started();
    started?;
    let hooks = record.spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref());
    let state = document(record, process.pid, "running").to_string();
    if let Err(error) = run_hooks("poststart", hooks, state.as_bytes()) {
        // The spec wants the container stopped then.
        if let Some(pidfd) = process.pidfd() {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        return Err(error.into());
    }
    Ok(())
}
