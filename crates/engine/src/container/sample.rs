//! One look at a container: at its cgroup and its network, or at its processes where it has no cgroup.

use std::collections::HashMap;
use std::path::Path;

use bollard_stubs::models::{
    ContainerBlkioStatEntry, ContainerBlkioStats, ContainerCpuStats, ContainerCpuUsage, ContainerMemoryStats,
    ContainerNetworkStats, ContainerPidsStats, ContainerThrottlingData,
};

use crate::clock;
use crate::process::{self, Process};
use crate::system::total_memory_kib;

/// One look at a container.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub at: Option<u64>,
    pub cpu: Option<ContainerCpuStats>,
    pub memory: Option<ContainerMemoryStats>,
    pub pids: Option<ContainerPidsStats>,
    pub block: Option<ContainerBlkioStats>,
    pub networks: Option<HashMap<String, ContainerNetworkStats>>,
}

impl Sample {
    /// Looks at the container whose first process is `pid`. Blocks.
    pub fn take(pid: i32, cgroup: Option<&Path>, own_network: bool) -> Self {
        let networks = if own_network { networks(pid) } else { None };
        let sample = Self { at: Some(clock::now_ns()), networks, ..Self::default() };
        match cgroup {
            Some(dir) => Self {
                cpu: Some(cpu(dir)),
                memory: Some(memory(dir)),
                pids: Some(ContainerPidsStats {
                    current: number(dir, "pids.current"),
                    limit: number(dir, "pids.max"),
                }),
                block: Some(block(dir)),
                ..sample
            },
            None => sample.of_processes(pid),
        }
    }

    /// What the processes' own counters tell. A process that has ended is counted with the parent that waited for it.
    fn of_processes(self, first: i32) -> Self {
        let (mut user, mut system, mut memory, mut tasks) = (0, 0, 0, 0);
        for pid in process::of_container(first) {
            let Some(process) = Process::read(pid) else { continue };
            user += process.user_ticks + process.waited_ticks.0;
            system += process.ticks - process.user_ticks + process.waited_ticks.1;
            tasks += process.threads;
            memory += process::own_memory(pid);
        }
        let nanoseconds = |ticks: u64| ticks * (1_000_000_000 / process::TICKS);
        Self {
            cpu: Some(ContainerCpuStats {
                cpu_usage: Some(ContainerCpuUsage {
                    total_usage: Some(nanoseconds(user + system)),
                    usage_in_usermode: Some(nanoseconds(user)),
                    usage_in_kernelmode: Some(nanoseconds(system)),
                    ..ContainerCpuUsage::default()
                }),
                system_cpu_usage: Some(system_cpu()),
                online_cpus: Some(online_cpus()),
                ..ContainerCpuStats::default()
            }),
            memory: Some(ContainerMemoryStats {
                usage: Some(memory),
                limit: Some(total_memory_kib() * 1024),
                // Clients take the files in memory off what is used; here none are counted.
                stats: Some(
                    [("anon", memory), ("file", 0), ("active_file", 0), ("inactive_file", 0)]
                        .map(|(name, bytes)| (name.to_owned(), bytes))
                        .into(),
                ),
                ..ContainerMemoryStats::default()
            }),
            pids: Some(ContainerPidsStats { current: Some(tasks), limit: None }),
            ..self
        }
    }
}

fn read(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// A file with one number; `max` is none.
fn number(dir: &Path, file: &str) -> Option<u64> {
    read(dir, file).trim().parse().ok()
}

/// A file of `key value` lines.
fn table(text: &str) -> HashMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn cpu(dir: &Path) -> ContainerCpuStats {
    let stat = table(&read(dir, "cpu.stat"));
    let nanoseconds = |key: &str| stat.get(key).map(|micro| micro * 1000);
    ContainerCpuStats {
        cpu_usage: Some(ContainerCpuUsage {
            total_usage: nanoseconds("usage_usec"),
            usage_in_kernelmode: nanoseconds("system_usec"),
            usage_in_usermode: nanoseconds("user_usec"),
            ..ContainerCpuUsage::default()
        }),
        system_cpu_usage: Some(system_cpu()),
        online_cpus: Some(online_cpus()),
        throttling_data: Some(ContainerThrottlingData {
            periods: Some(stat.get("nr_periods").copied().unwrap_or(0)),
            throttled_periods: Some(stat.get("nr_throttled").copied().unwrap_or(0)),
            throttled_time: Some(nanoseconds("throttled_usec").unwrap_or(0)),
        }),
    }
}

fn memory(dir: &Path) -> ContainerMemoryStats {
    ContainerMemoryStats {
        usage: number(dir, "memory.current"),
        limit: Some(number(dir, "memory.max").unwrap_or_else(|| total_memory_kib() * 1024)),
        stats: Some(table(&read(dir, "memory.stat"))),
        ..ContainerMemoryStats::default()
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …` per device.
fn block(dir: &Path) -> ContainerBlkioStats {
    let mut bytes = Vec::new();
    for line in read(dir, "io.stat").lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            let op = match key {
                "rbytes" => "read",
                "wbytes" => "write",
                _ => continue,
            };
            bytes.push(ContainerBlkioStatEntry {
                major: major.parse().ok(),
                minor: minor.parse().ok(),
                op: Some(op.to_owned()),
                value: value.parse().ok(),
            });
        }
    }
    ContainerBlkioStats { io_service_bytes_recursive: Some(bytes), ..ContainerBlkioStats::default() }
}

/// The counters of the container's interfaces, seen through its first process.
fn networks(pid: i32) -> Option<HashMap<String, ContainerNetworkStats>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let all: HashMap<_, _> = text
        .lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let counters: Vec<u64> =
                counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let at = |index: usize| counters.get(index).copied();
            Some((
                name.trim().to_owned(),
                ContainerNetworkStats {
                    rx_bytes: at(0),
                    rx_packets: at(1),
                    rx_errors: at(2),
                    rx_dropped: at(3),
                    tx_bytes: at(8),
                    tx_packets: at(9),
                    tx_errors: at(10),
                    tx_dropped: at(11),
                    ..ContainerNetworkStats::default()
                },
            ))
        })
        // The kernel makes tunnels and the like in every namespace by itself; they are nobody's network.
        .filter(|(name, _)| name.starts_with("eth"))
        .collect();
    (!all.is_empty()).then_some(all)
}

/// CPU time of the whole machine in nanoseconds (proc(5): the first line of `/proc/stat`, in hundredths).
fn system_cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or("");
    // Guest time is part of user time already.
    let ticks: u64 =
        line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks * 10_000_000
}

fn online_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_machine_is_measured() {
        assert!(system_cpu() > 0);
        let pid = i32::try_from(std::process::id()).unwrap();
        let sample = Sample::take(pid, None, true);
        assert!(sample.memory.unwrap().usage.unwrap() > 100_000);
        assert!(sample.pids.unwrap().current.unwrap() >= 1);
        assert!(sample.cpu.unwrap().online_cpus.unwrap() >= 1);
        assert_eq!(table("a 1\nb x\nc 3\n"), HashMap::from([("a".to_owned(), 1), ("c".to_owned(), 3)]));
    }
}
