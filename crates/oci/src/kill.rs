//! `kill`: a signal to a container's processes.

use std::os::fd::AsFd;

use anyhow::{Context, bail};
use skiff_linux_sys::signal;

use super::processes;
use super::signals;
use super::state::{Record, Status, Store};

const KILL: i32 = 9;

/// What `kill` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Signal all of its processes, not only the first; no error when there is none
    #[arg(short, long)]
    all: bool,
    /// Name of the container
    id: String,
    /// Name or number of the signal
    #[arg(default_value = "SIGTERM", value_parser = signals::parse)]
    signal: i32,
}

/// Runs the command.
pub fn run(store: &Store, options: &Options) -> anyhow::Result<()> {
    let entry = store.find(&options.id)?;
    let record = entry.read()?;
    let status = entry.status(&record);
    if options.all {
        return processes::signal_all(&record, options.signal);
    }
    if status == Status::Stopped || status == Status::Creating {
        bail!("container not running");
    }
    let process =
        record.process.as_ref().and_then(|process| process.pidfd()).context("container not running")?;
    signal::send(process.as_fd(), options.signal)
        .with_context(|| format!("send signal {} to the container", options.signal))?;
    // Nothing ends the others with the first one when they share somebody's process namespace.
    if options.signal == KILL && !has_own_processes(&record) {
        processes::signal_all(&record, KILL)?;
    }
    Ok(())
}

fn has_own_processes(record: &Record) -> bool {
    let list = record.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    list.into_iter()
        .flatten()
        .any(|entry| entry.typ() == oci_spec::runtime::LinuxNamespaceType::Pid && entry.path().is_none())
}
