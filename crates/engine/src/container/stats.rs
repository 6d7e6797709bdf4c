//! `stats`: measurements from the container's cgroup and network; zeros where the machine has no cgroup v2.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard_stubs::models::{
    ContainerBlkioStatEntry, ContainerBlkioStats, ContainerCpuStats, ContainerCpuUsage, ContainerMemoryStats,
    ContainerNetworkStats, ContainerPidsStats, ContainerStatsResponse, ContainerStorageStats,
    ContainerThrottlingData,
};
use futures_util::stream::{self, StreamExt};

use super::Container;
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::options::{StatsOptions, StatsStream};
use crate::system::total_memory_kib;

/// The pause between two measurements.
const PERIOD: Duration = Duration::from_secs(1);

/// One look at a container.
#[derive(Debug, Clone, Default)]
struct Sample {
    at: Option<u64>,
    cpu: Option<ContainerCpuStats>,
    memory: Option<ContainerMemoryStats>,
    pids: Option<ContainerPidsStats>,
    block: Option<ContainerBlkioStats>,
    networks: Option<HashMap<String, ContainerNetworkStats>>,
}

impl Engine {
    /// Measures a container, once or every second until it is removed or the stream is dropped.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn container_stats(&self, id: &str, options: StatsOptions) -> Result<StatsStream> {
        let container = self.container(id)?;
        let first = if options.stream || options.one_shot {
            Sample::default()
        } else {
            let first = sample(&container).await?;
            if first.at.is_some() {
                tokio::time::sleep(PERIOD).await;
            }
            first
        };
        if !options.stream {
            let now = sample(&container).await?;
            let model = model(&container, &now, &first);
            return Ok(stream::iter([Ok(model)]).boxed());
        }
        let ticks = tokio::time::interval(PERIOD);
        Ok(stream::unfold((container, first, ticks), |(container, previous, mut ticks)| async move {
            ticks.tick().await;
            if container.removed() {
                return None;
            }
            match sample(&container).await {
                Ok(now) => {
                    let model = model(&container, &now, &previous);
                    Some((Ok(model), (container, now, ticks)))
                }
                Err(error) => Some((Err(error), (container, previous, ticks))),
            }
        })
        .boxed())
    }
}

async fn sample(container: &Arc<Container>) -> Result<Sample> {
    let Ok((pid, _)) = container.process() else { return Ok(Sample::default()) };
    let cgroup = container.cgroup();
    blocking(move || {
        let mut sample = Sample { at: Some(clock::now_ns()), networks: networks(pid), ..Sample::default() };
        let cpu = cgroup.as_ref().map(|cgroup| cpu(cgroup.path()));
        sample.cpu = Some(cpu.unwrap_or_else(|| ContainerCpuStats {
            cpu_usage: Some(ContainerCpuUsage { total_usage: Some(0), ..ContainerCpuUsage::default() }),
            system_cpu_usage: Some(system_cpu()),
            online_cpus: Some(online_cpus()),
            ..ContainerCpuStats::default()
        }));
        if let Some(cgroup) = cgroup {
            sample.memory = Some(memory(cgroup.path()));
            sample.pids = Some(ContainerPidsStats {
                current: number(cgroup.path(), "pids.current"),
                limit: number(cgroup.path(), "pids.max"),
            });
            sample.block = Some(block(cgroup.path()));
        }
        Ok(sample)
    })
    .await
}

fn model(container: &Container, now: &Sample, previous: &Sample) -> ContainerStatsResponse {
    let record = container.record();
    ContainerStatsResponse {
        id: Some(record.id.clone()),
        name: Some(format!("/{}", record.name)),
        os_type: Some("linux".to_owned()),
        read: Some(clock::rfc3339(now.at)),
        preread: Some(clock::rfc3339(previous.at)),
        cpu_stats: Some(now.cpu.clone().unwrap_or_default()),
        precpu_stats: Some(previous.cpu.clone().unwrap_or_default()),
        memory_stats: Some(now.memory.clone().unwrap_or_default()),
        pids_stats: Some(now.pids.clone().unwrap_or_default()),
        blkio_stats: Some(now.block.clone().unwrap_or_default()),
        networks: now.networks.clone(),
        num_procs: Some(0),
        storage_stats: Some(ContainerStorageStats::default()),
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
        .filter(|(name, _)| name != "lo")
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
        assert_eq!(table("a 1\nb x\nc 3\n"), HashMap::from([("a".to_owned(), 1), ("c".to_owned(), 3)]));
    }
}
