//! `update`: other limits for a container.

use std::path::PathBuf;

use anyhow::{Context, bail};
use oci_spec::runtime::LinuxResources;
use skiff_runtime::Cgroup;

use super::state::{Status, Store};

/// What `update` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// File with the resources as the configuration would have them; "-" is standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Bytes of memory
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Bytes of memory and swap together
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Bytes of memory that are protected
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<i64>,
    /// Weight of its share of the processors
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Microseconds of processor time in a period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Microseconds of a period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Microseconds of processor time that may be saved up
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// Processors
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Number of processes
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Weight of its share of input and output
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Name of the container
    id: String,
}

/// Runs the command.
pub fn run(store: &Store, options: &Options) -> anyhow::Result<()> {
    let entry = store.find(&options.id)?;
    entry.lock()?;
    let mut record = entry.read()?;
    if matches!(entry.status(&record), Status::Stopped | Status::Creating) {
        bail!("container not running");
    }
    let path = record.cgroup.as_deref().context("the container has no cgroup: it cannot be limited")?;
    let resources = wanted(options)?;
    let cgroup = Cgroup::open(path)?;
    if resources.devices().is_none() || without_devices(&resources) != LinuxResources::default() {
        let parent = path.parent().context("the cgroup has no parent")?;
        if !Cgroup::limits(parent) {
            bail!("limits cannot be set: this machine's cgroup v2 hierarchy has no controllers");
        }
        cgroup.apply(&without_devices(&resources))?;
    }
    if let Some(rules) = resources.devices() {
        cgroup.filter_devices(rules)?;
        if let Some(linux) = record.spec.linux_mut() {
            let mut all = linux.resources().clone().unwrap_or_default();
            all.set_devices(Some(rules.clone()));
            linux.set_resources(Some(all));
        }
        entry.write(&record)?;
    }
    Ok(())
}

fn without_devices(resources: &LinuxResources) -> LinuxResources {
    let mut rest = resources.clone();
    rest.set_devices(None);
    rest
}

fn wanted(options: &Options) -> anyhow::Result<LinuxResources> {
    if let Some(file) = &options.resources {
        let text = match file.to_str() {
            Some("-") => std::io::read_to_string(std::io::stdin()).context("read standard input")?,
            _ => std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?,
        };
        return serde_json::from_str(&text).context("parse the resources");
    }
    let mut value = serde_json::json!({});
    let mut set = |section: &str, field: &str, given: Option<serde_json::Value>| {
        if let Some(given) = given {
            value[section][field] = given;
        }
    };
    set("memory", "limit", options.memory.map(Into::into));
    set("memory", "swap", options.memory_swap.map(Into::into));
    set("memory", "reservation", options.memory_reservation.map(Into::into));
    set("cpu", "shares", options.cpu_share.map(Into::into));
    set("cpu", "quota", options.cpu_quota.map(Into::into));
    set("cpu", "period", options.cpu_period.map(Into::into));
    set("cpu", "burst", options.cpu_burst.map(Into::into));
    set("cpu", "cpus", options.cpuset_cpus.clone().map(Into::into));
    set("cpu", "mems", options.cpuset_mems.clone().map(Into::into));
    set("pids", "limit", options.pids_limit.map(Into::into));
    set("blockIO", "weight", options.blkio_weight.map(Into::into));
    Ok(serde_json::from_value(value)?)
}
