//! `ps`, `pause` and `resume`, and a signal to every process of a container.

use std::fs;
use std::os::fd::AsFd;

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use skiff_linux_sys::signal;
use skiff_runtime::Cgroup;

use super::list::Id;
use super::state::{Record, Status, Store};

/// What `ps` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How to show them
    #[arg(short, long, default_value = "table")]
    format: Format,
    /// Name of the container
    id: String,
    /// Arguments for ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    ps: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// As ps(1) does
    Table,
    /// As a list of numbers
    Json,
}

/// Shows the processes of a container.
pub fn list(store: &Store, options: &Options) -> anyhow::Result<()> {
    let record = store.find(&options.id)?.read()?;
    let pids = all(&record)?;
    if options.format == Format::Json {
        println!("{}", serde_json::to_string(&pids)?);
        return Ok(());
    }
    let arguments = if options.ps.is_empty() { vec!["-ef".to_owned()] } else { options.ps.clone() };
    let output = std::process::Command::new("ps").args(&arguments).output().context("run ps")?;
    if !output.status.success() {
        bail!("ps: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID").context("ps shows no PID")?;
    println!("{head}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(())
}

/// Pauses a container or lets it go on.
pub fn freeze(store: &Store, id: &Id, frozen: bool) -> anyhow::Result<()> {
    let entry = store.find(&id.id)?;
    entry.lock()?;
    let record = entry.read()?;
    match (entry.status(&record), frozen) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {}
        (_, true) => bail!("container not running"),
        (_, false) => bail!("container not paused"),
    }
    let path = record.cgroup.as_deref().context("the container has no cgroup: it cannot be paused")?;
    Ok(Cgroup::open(path)?.freeze(frozen)?)
}

/// The ids of all processes of a container.
pub fn all(record: &Record) -> anyhow::Result<Vec<i32>> {
    if let Some(cgroup) = record.cgroup.as_deref().and_then(|path| Cgroup::open(path).ok()) {
        return Ok(cgroup.procs_below()?);
    }
    // Those of its process namespace: whatever shares it belongs to the container.
    let Some(process) = record.process.as_ref().filter(|process| process.pidfd().is_some()) else {
        return Ok(Vec::new());
    };
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(&process.pid.to_string());
    if wanted.is_none() || wanted == namespace("self") {
        return Ok(vec![process.pid]);
    }
    let mut pids: Vec<i32> = fs::read_dir("/proc")
        .context("read /proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| namespace(&pid.to_string()) == wanted)
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Sends a signal to all processes of a container.
pub fn signal_all(record: &Record, number: i32) -> anyhow::Result<()> {
    for pid in all(record)? {
        let Some(pidfd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            continue;
        };
        match signal::send(pidfd.as_fd(), number) {
            Ok(()) => {}
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("send signal {number} to process {pid}"));
            }
        }
    }
    Ok(())
}
