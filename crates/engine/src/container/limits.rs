//! Whether limits make sense, in Docker's words where they do not.

use bollard_stubs::models::HostConfig;

use crate::error::{Error, Result};

const LEAST_MEMORY: i64 = 6 << 20;

/// When limits are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// With a creation: they must be whole.
    Create,
    /// Later: they are completed by those that are set already.
    Update,
}

/// Checks the limits of a host configuration.
pub fn check(host: &HostConfig, occasion: Occasion) -> Result<()> {
    check_memory(host, occasion)?;
    check_cpu(host)?;
    let refuse = |wrong: bool, why: &str| if wrong { Err(Error::invalid(why)) } else { Ok(()) };
    refuse(
        host.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)),
        "Range of blkio weight is from 10 to 1000",
    )?;
    for (wanted, what) in [(host.io_maximum_bandwidth, "bandwidth"), (host.io_maximum_iops, "IOPs")] {
        refuse(
            wanted.unwrap_or(0) != 0,
            &format!("Invalid QoS settings: linux does not support configuration of maximum {what}"),
        )?;
    }
    let (period, runtime) = (host.cpu_realtime_period.unwrap_or(0), host.cpu_realtime_runtime.unwrap_or(0));
    refuse(
        period != 0 && runtime != 0 && runtime > period,
        "cpu real-time runtime cannot be higher than cpu real-time period",
    )?;
    refuse(host.shm_size.is_some_and(|size| size < 0), "SHM size can not be less than 0")?;
    match host.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        Some(score) => {
            Err(Error::invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]")))
        }
        None => Ok(()),
    }
}

/// Takes out what no kernel with cgroup v2 can do, and says so in Docker's words.
pub fn discarded(host: &mut HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    // -1 is how clients say nothing.
    if host
        .memory_swappiness
        .take_if(|swappiness| (-1..=100).contains(swappiness))
        .is_some_and(|value| value >= 0)
    {
        warnings.push(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory \
             swappiness discarded."
                .to_owned(),
        );
    }
    if host.oom_kill_disable.take() == Some(true) {
        warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned());
    }
    if host.cpu_percent.take().is_some_and(|percent| percent > 0) {
        warnings.push("linux does not support CPU percent. Percent discarded.".to_owned());
    }
    warnings
}

fn check_memory(host: &HostConfig, occasion: Occasion) -> Result<()> {
    let (memory, swap) = (host.memory.unwrap_or(0), host.memory_swap.unwrap_or(0));
    let reservation = host.memory_reservation.unwrap_or(0);
    let refuse = |wrong: bool, why: &str| if wrong { Err(Error::invalid(why)) } else { Ok(()) };
    refuse(memory != 0 && memory < LEAST_MEMORY, "Minimum memory limit allowed is 6MB")?;
    refuse(
        memory > 0 && swap > 0 && swap < memory,
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    )?;
    refuse(
        memory == 0 && swap > 0 && occasion == Occasion::Create,
        "You should always set the Memory limit when using Memoryswap limit, see usage",
    )?;
    if let Some(swappiness) = host.memory_swappiness.filter(|value| !(-1..=100).contains(value)) {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    refuse(reservation > 0 && reservation < LEAST_MEMORY, "Minimum memory reservation allowed is 6MB")?;
    refuse(
        memory > 0 && memory < reservation,
        "Minimum memory limit can not be less than memory reservation limit, see usage",
    )
}

fn check_cpu(host: &HostConfig) -> Result<()> {
    let (nano, period, quota) =
        (host.nano_cpus.unwrap_or(0), host.cpu_period.unwrap_or(0), host.cpu_quota.unwrap_or(0));
    let refuse = |wrong: bool, why: &str| if wrong { Err(Error::invalid(why)) } else { Ok(()) };
    refuse(nano > 0 && period > 0, "Conflicting options: Nano CPUs and CPU Period cannot both be set")?;
    refuse(nano > 0 && quota > 0, "Conflicting options: Nano CPUs and CPU Quota cannot both be set")?;
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as i64);
    if nano < 0 || nano > cpus * 1_000_000_000 {
        return Err(Error::invalid(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    refuse(host.cpu_shares.unwrap_or(0) < 0, "shares: invalid argument")?;
    refuse(
        period != 0 && !(1000..=1_000_000).contains(&period),
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
    )?;
    refuse(quota > 0 && quota < 1000, "CPU cfs quota can not be less than 1ms (i.e. 1000)")?;
    check_set(host.cpuset_cpus.as_deref(), "cpu", "cpus", "CPUs")?;
    check_set(host.cpuset_mems.as_deref(), "node", "mems", "memory nodes")
}

/// Checks a list like `0-2,4` against what the machine has.
fn check_set(wanted: Option<&str>, kind: &str, option: &str, what: &str) -> Result<()> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(()) };
    let asked = numbers(wanted).ok_or_else(|| {
        Error::invalid(format!("Invalid value {wanted} for cpuset {option}: invalid format: {wanted}"))
    })?;
    let path = format!("/sys/devices/system/{kind}/online");
    let online = std::fs::read_to_string(path).unwrap_or_else(|_| "0".to_owned());
    let online = online.trim();
    let have = numbers(online).unwrap_or_default();
    if asked.iter().all(|number| have.contains(number)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Requested {what} are not available - requested {wanted}, available: {online}"
    )))
}

/// The numbers of a list like `0-2,4`; `None` when it is none.
fn numbers(list: &str) -> Option<Vec<u32>> {
    const MOST: u32 = 8192;
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(host: HostConfig) -> String {
        check(&host, Occasion::Create).unwrap_err().message
    }

    #[test]
    fn limits_that_make_no_sense_are_refused_in_dockers_words() {
        let none = HostConfig::default;
        assert_eq!(
            refusal(HostConfig { memory: Some(1024), ..none() }),
            "Minimum memory limit allowed is 6MB"
        );
        assert_eq!(
            refusal(HostConfig { memory: Some(8 << 20), memory_swap: Some(7 << 20), ..none() }),
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        );
        assert_eq!(
            refusal(HostConfig { memory_swappiness: Some(101), ..none() }),
            "Invalid value: 101, valid memory swappiness range is 0-100"
        );
        assert_eq!(
            refusal(HostConfig { cpu_quota: Some(5), ..none() }),
            "CPU cfs quota can not be less than 1ms (i.e. 1000)"
        );
        assert_eq!(
            refusal(HostConfig { cpuset_cpus: Some("x".to_owned()), ..none() }),
            "Invalid value x for cpuset cpus: invalid format: x"
        );
        assert!(
            refusal(HostConfig { cpuset_cpus: Some("0-4000".to_owned()), ..none() })
                .starts_with("Requested CPUs are not available - requested 0-4000, available: 0")
        );
        assert_eq!(
            refusal(HostConfig { blkio_weight: Some(5), ..none() }),
            "Range of blkio weight is from 10 to 1000"
        );
    }

    #[test]
    fn what_cgroup_v2_cannot_do_is_discarded_with_a_warning() {
        let mut host = HostConfig {
            memory_swappiness: Some(10),
            oom_kill_disable: Some(true),
            cpu_percent: Some(5),
            ..HostConfig::default()
        };
        assert_eq!(discarded(&mut host).len(), 3);
        assert_eq!(host, HostConfig::default());
        let mut quiet = HostConfig {
            memory_swappiness: Some(-1),
            oom_kill_disable: Some(false),
            ..HostConfig::default()
        };
        assert!(discarded(&mut quiet).is_empty());
    }

    #[test]
    fn an_update_may_name_the_swap_alone() {
        let swap = HostConfig { memory_swap: Some(64 << 20), ..HostConfig::default() };
        check(&swap, Occasion::Update).unwrap();
        assert!(refusal(swap).starts_with("You should always set the Memory limit"));
    }

    proptest! {
        #[test]
        fn any_list_is_read_or_refused(text in "[0-9,-]{0,12}") {
            let _ = numbers(&text);
        }
    }
}
