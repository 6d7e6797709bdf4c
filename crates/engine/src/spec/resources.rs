//! Limits, for machines that can set them.

use bollard_stubs::models::{HostConfig, ThrottleDevice};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use rustix::fs::{major, minor, stat};
use serde_json::{Value, json};

use crate::error::{Code, Error, Result};

/// Docker's period of the CPU scheduler, in microseconds.
const PERIOD: i64 = 100_000;

/// The limits that a host configuration asks for.
///
/// # Errors
/// When a device that is to be limited is not there.
pub fn of(host: &HostConfig) -> Result<LinuxResources> {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let mut resources = LinuxResources::default();

    let mut memory = LinuxMemory::default();
    memory.set_limit(set(host.memory)).set_reservation(set(host.memory_reservation));
    // As Docker: swap as much again as memory, unless told otherwise; -1 is without bound.
    let swap = match (set(host.memory), set(host.memory_swap)) {
        (Some(limit), None) => Some(limit.saturating_mul(2)),
        (_, swap) => swap,
    };
    memory.set_swap(swap);
    resources.set_memory(Some(memory));

    let mut cpu = LinuxCpu::default();
    if let Some(nano) = set(host.nano_cpus) {
        cpu.set_period(Some(PERIOD as u64));
        cpu.set_quota(Some(nano / 1000 * PERIOD / 1_000_000));
    } else {
        cpu.set_period(set(host.cpu_period).and_then(|period| u64::try_from(period).ok()));
        cpu.set_quota(set(host.cpu_quota));
    }
    cpu.set_shares(set(host.cpu_shares).and_then(|shares| u64::try_from(shares).ok()));
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    cpu.set_cpus(text(&host.cpuset_cpus)).set_mems(text(&host.cpuset_mems));
    resources.set_cpu(Some(cpu));

    if let Some(limit) = set(host.pids_limit) {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    resources.set_block_io(block_io(host)?);
    Ok(resources)
}

/// The limits of block devices, which the configuration names by paths and the kernel by numbers.
fn block_io(host: &HostConfig) -> Result<Option<LinuxBlockIo>> {
    let device = |path: Option<&str>| -> Result<Value> {
        let path = path.unwrap_or_default();
        let status = stat(path).map_err(|errno| {
            Error::new(Code::Internal, format!("stat {path}: {}", crate::volumes::words_of(errno)))
        })?;
        Ok(json!({ "major": major(status.st_rdev), "minor": minor(status.st_rdev) }))
    };
    let mut all = json!({});
    if let Some(weight) = host.blkio_weight.filter(|weight| *weight != 0) {
        all["weight"] = weight.into();
    }
    let mut weights = Vec::new();
    for wanted in host.blkio_weight_device.iter().flatten() {
        let mut entry = device(wanted.path.as_deref())?;
        entry["weight"] = wanted.weight.into();
        weights.push(entry);
    }
    let throttles = |wanted: &Option<Vec<ThrottleDevice>>| -> Result<Vec<Value>> {
        let entry = |wanted: &ThrottleDevice| {
            let mut entry = device(wanted.path.as_deref())?;
            entry["rate"] = wanted.rate.unwrap_or(0).into();
            Ok(entry)
        };
        wanted.iter().flatten().map(entry).collect()
    };
    for (key, list) in [
        ("weightDevice", weights),
        ("throttleReadBpsDevice", throttles(&host.blkio_device_read_bps)?),
        ("throttleWriteBpsDevice", throttles(&host.blkio_device_write_bps)?),
        ("throttleReadIOPSDevice", throttles(&host.blkio_device_read_iops)?),
        ("throttleWriteIOPSDevice", throttles(&host.blkio_device_write_iops)?),
    ] {
        if !list.is_empty() {
            all[key] = list.into();
        }
    }
    if all.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(None);
    }
    serde_json::from_value(all).map(Some).map_err(|error| Error::internal("describe block devices", &error))
}

/// What a machine without limits must say about the limits that were asked for, in Docker's words.
pub fn warnings(host: &HostConfig) -> Vec<String> {
    let set = |value: Option<i64>| value.is_some_and(|value| value > 0);
    let text = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let mut warnings = Vec::new();
    let mut warn = |wanted: bool, text: &str| {
        if wanted {
            warnings.push(text.to_owned());
        }
    };
    warn(
        set(host.memory),
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
    );
    warn(
        set(host.memory_reservation),
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
    );
    warn(
        set(host.nano_cpus) || set(host.cpu_period) || set(host.cpu_quota),
        "Your kernel does not support CPU CFS scheduler or the cgroup is not mounted. CPU limits discarded.",
    );
    warn(
        set(host.cpu_shares),
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
    );
    warn(
        text(&host.cpuset_cpus) || text(&host.cpuset_mems),
        "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
    );
    warn(
        set(host.pids_limit),
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    );
    warn(
        host.blkio_weight.is_some_and(|weight| weight > 0),
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    );
    warn(
        host.blkio_weight_device.as_ref().is_some_and(|list| !list.is_empty()),
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
    );
    for (wanted, what) in [
        (&host.blkio_device_read_bps, ("BPS Block I/O read", "BPS read")),
        (&host.blkio_device_write_bps, ("BPS Block I/O write", "BPS write")),
        (&host.blkio_device_read_iops, ("IOPS Block read", "IOPS read")),
        (&host.blkio_device_write_iops, ("IOPS Block write", "IOPS write")),
    ] {
        warn(
            wanted.as_ref().is_some_and(|list| !list.is_empty()),
            &format!(
                "Your kernel does not support {} limit or the cgroup is not mounted. Block I/O {} limit discarded.",
                what.0, what.1
            ),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_quota_and_memory_gets_as_much_swap() {
        let host = HostConfig {
            nano_cpus: Some(1_500_000_000),
            memory: Some(64 << 20),
            pids_limit: Some(100),
            ..HostConfig::default()
        };
        let resources = of(&host).unwrap();
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
        assert_eq!(resources.memory().as_ref().unwrap().swap(), Some(128 << 20));
        assert_eq!(resources.pids().as_ref().unwrap().limit(), 100);
        assert_eq!(warnings(&host).len(), 3);
        assert!(warnings(&HostConfig::default()).is_empty());
    }
}
