//! `delete`: removes what is left of a container.

use std::path::Path;

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use skiff_runtime::{Cgroup, run_hooks};

use super::state::{Entry, Record, Status, Store, document};
use super::{cgroups, processes};

/// How long a killed process may take to end.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// What `delete` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Kill it first if need be; one that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Name of the container
    id: String,
}

/// Runs the command.
pub fn run(store: &Store, options: &Options) -> anyhow::Result<()> {
    let Some(entry) = store.look_for(&options.id)? else {
        if options.force {
            return Ok(());
        }
        bail!("container does not exist: {}", options.id);
    };
    entry.lock()?;
    let Some(record) = entry.try_read()? else {
        // Its creator was killed before it had made anything else.
        return entry.remove();
    };
    let status = entry.status(&record);
    if !options.force && !matches!(status, Status::Stopped | Status::Created | Status::Creating) {
        bail!("cannot delete container {} that is not stopped: {status}", options.id);
    }
    remove(&entry, &record)
}

/// Ends whatever still runs, removes everything, and runs the hooks for that.
pub fn remove(entry: &Entry, record: &Record) -> anyhow::Result<()> {
    if let Some(pidfd) = record.process.as_ref().and_then(|process| process.pidfd()) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        unfreeze(record.cgroup.as_deref());
        // Without a process namespace of their own the others would live on.
        let _ = processes::signal_all(record, Signal::KILL.as_raw());
        let mut end = [PollFd::new(&pidfd, PollFlags::IN)];
        if poll(&mut end, Some(&PATIENCE)).context("wait for the container's end")? == 0 {
            bail!("container init still running");
        }
    }
    cgroups::remove(record)?;
    entry.remove()?;
    let hooks = record.spec.hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref());
    let state = document(record, 0, "stopped").to_string();
    run_hooks("poststop", hooks, state.as_bytes())?;
    Ok(())
}

/// A stopped process cannot act on a signal.
fn unfreeze(cgroup: Option<&Path>) {
    if let Some(cgroup) = cgroup.and_then(|path| Cgroup::open(path).ok())
        && cgroup.frozen().unwrap_or(false)
    {
        let _ = cgroup.freeze(false);
    }
}
