//! Resources of the spec as files of cgroup v2 (runc's `libcontainer/cgroups/fs2` is the model for conversions).

use crate::error::Error;
use oci_spec::runtime::{LinuxResources, LinuxThrottleDevice};

/// Files that a machine may lack without harm.
pub(super) fn is_optional(file: &str) -> bool {
    file.ends_with(".rsvd.max")
        || matches!(file, "memory.swap.max" | "io.weight" | "io.bfq.weight" | "cpu.idle" | "cpu.max.burst")
}

/// Controllers that only these resources need.
pub(super) fn rare_controllers(resources: &LinuxResources) -> Vec<&'static str> {
    let unified =
        |prefix: &str| resources.unified().iter().flatten().any(|(file, _)| file.starts_with(prefix));
    let pages = resources.hugepage_limits().as_ref().is_some_and(|list| !list.is_empty());
    let rdma = resources.rdma().as_ref().is_some_and(|map| !map.is_empty());
    [
        ("hugetlb", pages || unified("hugetlb.")),
        ("rdma", rdma || unified("rdma.")),
        ("misc", unified("misc.")),
    ]
    .into_iter()
    .filter_map(|(name, wanted)| wanted.then_some(name))
    .collect()
}

/// Refuses what no file can stand for.
pub(super) fn check(resources: &LinuxResources) -> Result<(), Error> {
    for name in resources.unified().iter().flatten().map(|(name, _)| name) {
        if name.contains('/') || !name.contains('.') {
            return Err(Error::Spec {
                what: format!("linux.resources.unified: \"{name}\" is no file of a cgroup"),
            });
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        if size.is_empty() || !size.chars().all(|c| c.is_ascii_alphanumeric()) {
            let what = format!("linux.resources.hugepageLimits: \"{size}\" is no page size");
            return Err(Error::Spec { what });
        }
    }
    Ok(())
}

/// The files to write and what to write, in order.
pub(super) fn settings(resources: &LinuxResources) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut set = |file: &str, value: String| settings.push((file.to_owned(), value));
    if let Some(memory) = resources.memory() {
        if let Some(swap) = swap(memory.limit(), memory.swap()) {
            set("memory.swap.max", swap);
        }
        if let Some(limit) = memory.limit().filter(|&limit| limit != 0) {
            set("memory.max", number(limit));
        }
        if let Some(low) = memory.reservation().filter(|&low| low != 0) {
            set("memory.low", number(low));
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
            set("cpu.weight", weight(shares).to_string());
        }
        let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
        if quota != 0 || period != 0 {
            let quota = if quota > 0 { quota.to_string() } else { "max".into() };
            let period = if period > 0 { period } else { 100_000 };
            set("cpu.max", format!("{quota} {period}"));
        }
        if let Some(burst) = cpu.burst() {
            set("cpu.max.burst", burst.to_string());
        }
        if let Some(idle) = cpu.idle() {
            set("cpu.idle", idle.to_string());
        }
        if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
            set("cpuset.cpus", cpus.clone());
        }
        if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
            set("cpuset.mems", mems.clone());
        }
    }
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        if limit != 0 {
            set("pids.max", number(limit));
        }
    }
    if let Some(io) = resources.block_io() {
        if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
            set("io.weight", io_weight(weight).to_string());
        }
        for device in io.weight_device().iter().flatten() {
            if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
                let (major, minor) = (device.major(), device.minor());
                set("io.weight", format!("{major}:{minor} {}", io_weight(weight)));
            }
        }
        for (key, list) in [
            ("rbps", io.throttle_read_bps_device()),
            ("wbps", io.throttle_write_bps_device()),
            ("riops", io.throttle_read_iops_device()),
            ("wiops", io.throttle_write_iops_device()),
        ] {
            for device in list.iter().flatten() {
                set("io.max", throttle(key, device));
            }
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        // Reserved pages count too, or a container could take them all without touching one.
        for file in ["max", "rsvd.max"] {
            set(&format!("hugetlb.{}.{file}", limit.page_size()), number(limit.limit()));
        }
    }
    let mut rdma: Vec<_> = resources.rdma().iter().flatten().collect();
    rdma.sort_by_key(|(device, _)| *device);
    for (device, limit) in rdma {
        let part = |name: &str, limit: Option<u32>| limit.map(|limit| format!(" {name}={limit}"));
        let parts = [part("hca_handle", limit.hca_handles()), part("hca_object", limit.hca_objects())];
        set("rdma.max", format!("{device}{}", parts.into_iter().flatten().collect::<String>()));
    }
    for (file, value) in resources.unified().iter().flatten() {
        // Names come from users: nothing but a file of this directory can be meant.
        if !file.contains('/') {
            set(file, value.clone());
        }
    }
    settings
}

/// Block weights go from 10 to 1000, those of v2 from 1 to 10000.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

fn throttle(key: &str, device: &LinuxThrottleDevice) -> String {
    format!("{}:{} {key}={}", device.major(), device.minor(), device.rate())
}

fn number(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.to_string() }
}

/// The spec's swap counts memory and swap together, v2 counts swap alone.
fn swap(limit: Option<i64>, swap: Option<i64>) -> Option<String> {
    match (limit, swap) {
        (_, None | Some(0)) => None,
        (_, Some(swap)) if swap < 0 => Some("max".into()),
        (Some(limit), Some(swap)) if limit > 0 => Some(swap.saturating_sub(limit).max(0).to_string()),
        (_, Some(_)) => None,
    }
}

/// Shares of v1 (2 to 262144, default 1024) as a weight of v2 (1 to 10000).
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_limits_become_v2_files() {
        let json = r#"{"memory":{"limit":1048576,"swap":3145728,"reservation":65536},
            "cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1"},"pids":{"limit":100},
            "blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}]}}"#;
        let settings = settings(&serde_json::from_str(json).unwrap());
        let text: Vec<String> = settings.iter().map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(
            text,
            [
                "memory.swap.max=2097152",
                "memory.max=1048576",
                "memory.low=65536",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "cpuset.cpus=0-1",
                "pids.max=100",
                "io.weight=4950",
                "io.weight=8:0 1",
                "io.max=8:0 rbps=1000",
            ]
        );
    }

    #[test]
    fn rare_controllers_are_for_those_who_want_them() {
        let of = |json: &str| rare_controllers(&serde_json::from_str(json).unwrap());
        assert!(of(r#"{"memory":{"limit":1},"unified":{"memory.high":"1"}}"#).is_empty());
        assert_eq!(of(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#), ["hugetlb"]);
        assert_eq!(
            of(r#"{"rdma":{"mlx5_1":{"hcaHandles":3}},"unified":{"misc.max":"a 1"}}"#),
            ["rdma", "misc"]
        );
    }

    #[test]
    fn minus_one_is_no_limit() {
        let json = r#"{"memory":{"limit":-1,"swap":-1},"pids":{"limit":-1},"cpu":{"quota":-1}}"#;
        let settings = settings(&serde_json::from_str(json).unwrap());
        let values: Vec<&str> = settings.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["max", "max", "max 100000", "max"]);
    }

    #[test]
    fn unified_names_stay_in_the_directory() {
        let json = r#"{"unified":{"../memory.max":"1","memory.high":"2"}}"#;
        let settings = settings(&serde_json::from_str(json).unwrap());
        assert_eq!(settings, [("memory.high".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn weights_span_the_whole_range() {
        assert_eq!((weight(2), weight(1024), weight(262_144), weight(0)), (1, 39, 10_000, 1));
    }
}
