//! `info`, `version` and `system df`.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard_stubs::models::{
    Commit, ContainerSummary, FirewallInfo, ImageSummary, IndexInfo, LocalNodeState, PluginsInfo,
    RegistryServiceConfig, Runtime, SwarmInfo, SystemInfo, SystemInfoCgroupDriverEnum,
    SystemInfoCgroupVersionEnum, SystemVersion, SystemVersionComponents, SystemVersionPlatform, Volume,
};

use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::images::ListImages;
use crate::options::ListContainers;
use crate::state::Status;

/// The Docker release whose API version is served: tools refuse engines that look older than they support.
pub(crate) const DOCKER_VERSION: &str = "28.3.0";

/// Which parts of the disk usage are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsageKinds {
    /// Containers.
    pub containers: bool,
    /// Images.
    pub images: bool,
    /// Volumes.
    pub volumes: bool,
}

/// What lies on the data disk.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Bytes of all image layers, shared ones once.
    pub layers_size: i64,
    /// Images.
    pub images: Option<Vec<ImageSummary>>,
    /// Containers, with sizes.
    pub containers: Option<Vec<ContainerSummary>>,
    /// Volumes, with usage data.
    pub volumes: Option<Vec<Volume>>,
}

impl Engine {
    /// The engine's id, which stays the same over restarts.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.facts.id
    }

    /// What `host-gateway` stands for in containers, where there is such an address.
    #[must_use]
    pub fn host_gateway(&self) -> Option<IpAddr> {
        self.0.networks.host_gateway()
    }

    /// The engine's version; the API's is the server's to add.
    pub async fn version(&self) -> Result<SystemVersion> {
        let own = &self.0.config.version;
        Ok(SystemVersion {
            platform: Some(SystemVersionPlatform { name: format!("Skiff {own}") }),
            components: Some(vec![SystemVersionComponents {
                name: "Engine".to_owned(),
                version: self.docker_version(),
                details: None,
            }]),
            version: Some(self.docker_version()),
            git_commit: Some(String::new()),
            go_version: Some(String::new()),
            os: Some("linux".to_owned()),
            arch: Some(architecture().to_owned()),
            kernel_version: Some(kernel()),
            experimental: Some(false),
            build_time: Some(String::new()),
            ..SystemVersion::default()
        })
    }

    /// What clients compare with the Docker version that they need, with our own behind the plus sign, which
    /// semantic versioning keeps out of comparisons.
    fn docker_version(&self) -> String {
        format!("{DOCKER_VERSION}+skiff.{}", self.0.config.version)
    }

    /// The engine's state and abilities.
    pub async fn info(&self) -> Result<SystemInfo> {
        let inner = &self.0;
        let records: Vec<_> = inner.registry.all().iter().map(|container| container.record()).collect();
        let count = |test: fn(Status) -> bool| {
            Some(records.iter().filter(|record| test(record.state.status)).count() as i64)
        };
        let limits = Some(inner.limits);
        let strings = |list: &[&str]| Some(list.iter().map(|&item| item.to_owned()).collect::<Vec<_>>());
        let hub = IndexInfo {
            name: Some("docker.io".to_owned()),
            mirrors: Some(inner.config.registry_mirrors.clone()),
            secure: Some(true),
            official: Some(true),
        };
        let proxies = inner.config.images.proxies().await;
        let mut warnings = Vec::new();
        if !inner.limits {
            warnings.push("WARNING: No cgroup v2 controllers: containers run without limits".to_owned());
        }
        if inner.networks.default_network().unavailable().is_some() {
            warnings.push("WARNING: the default bridge network is not available".to_owned());
        }
        Ok(SystemInfo {
            id: Some(inner.facts.id.clone()),
            containers: Some(records.len() as i64),
            containers_running: count(|status| matches!(status, Status::Running | Status::Restarting)),
            containers_paused: count(|status| status == Status::Paused),
            containers_stopped: count(|status| {
                matches!(status, Status::Created | Status::Exited | Status::Dead)
            }),
            images: Some(inner.config.images.list().len() as i64),
            driver: Some("overlay2".to_owned()),
            driver_status: Some(vec![
                vec!["Supports d_type".to_owned(), "true".to_owned()],
                vec!["Native Overlay Diff".to_owned(), "true".to_owned()],
            ]),
            docker_root_dir: Some(inner.config.root.display().to_string()),
            plugins: Some(PluginsInfo {
                volume: strings(&["local"]),
                network: strings(match inner.networks.shares_interfaces {
                    true => &["bridge", "host", "ipvlan", "macvlan", "null"],
                    false => &["bridge", "host", "null"],
                }),
                authorization: None,
                log: strings(&crate::log::options::DRIVERS),
            }),
            memory_limit: limits,
            swap_limit: limits,
            cpu_cfs_period: limits,
            cpu_cfs_quota: limits,
            cpu_shares: limits,
            cpu_set: limits,
            pids_limit: limits,
            oom_kill_disable: Some(false),
            ipv4_forwarding: Some(inner.networks.default_subnet().is_some()),
            debug: Some(false),
            nfd: Some(std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i64)),
            n_goroutines: Some(tokio::runtime::Handle::current().metrics().num_alive_tasks() as i64),
            system_time: Some(clock::rfc3339(Some(clock::now_ns()))),
            logging_driver: Some("json-file".to_owned()),
            cgroup_driver: Some(if inner.limits {
                SystemInfoCgroupDriverEnum::CGROUPFS
            } else {
                SystemInfoCgroupDriverEnum::NONE
            }),
            cgroup_version: Some(SystemInfoCgroupVersionEnum::_2),
            n_events_listener: Some(inner.events.listeners() as i64),
            kernel_version: Some(kernel()),
            operating_system: Some(operating_system("PRETTY_NAME")),
            os_version: Some(operating_system("VERSION_ID")),
            os_type: Some("linux".to_owned()),
            // As `uname -m` says it, unlike everywhere else in the API.
            architecture: Some(std::env::consts::ARCH.to_owned()),
            ncpu: Some(std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as i64)),
            mem_total: Some(total_memory_kib() as i64 * 1024),
            index_server_address: Some("https://index.docker.io/v1/".to_owned()),
            registry_config: Some(RegistryServiceConfig {
                insecure_registry_cidrs: strings(&["::1/128", "127.0.0.0/8"]),
                index_configs: Some(HashMap::from([("docker.io".to_owned(), hub)])),
                mirrors: Some(inner.config.registry_mirrors.clone()),
            }),
            http_proxy: Some(proxies.http),
            https_proxy: Some(proxies.https),
            no_proxy: Some(proxies.no),
            name: Some(inner.config.name.clone()),
            labels: Some(Vec::new()),
            firewall_backend: Some(FirewallInfo { driver: Some("nftables".to_owned()), info: None }),
            experimental_build: Some(false),
            server_version: Some(self.docker_version()),
            runtimes: Some(
                ["runc", "io.containerd.runc.v2"]
                    .map(|name| {
                        let path = Some("skiff-agent".to_owned());
                        (name.to_owned(), Runtime { path, ..Runtime::default() })
                    })
                    .into(),
            ),
            default_runtime: Some("runc".to_owned()),
            swarm: Some(SwarmInfo {
                node_id: Some(String::new()),
                node_addr: Some(String::new()),
                local_node_state: Some(LocalNodeState::INACTIVE),
                control_available: Some(false),
                error: Some(String::new()),
                ..SwarmInfo::default()
            }),
            // Containers outlive the engine's process: always.
            live_restore_enabled: Some(true),
            init_binary: Some(inner.config.init.as_ref().map_or("", |_| "docker-init").to_owned()),
            containerd_commit: Some(Commit { id: Some(String::new()) }),
            runc_commit: Some(Commit { id: Some(String::new()) }),
            init_commit: Some(Commit {
                id: Some(
                    inner.config.init.as_ref().map(|_| inner.config.version.clone()).unwrap_or_default(),
                ),
            }),
            security_options: strings(&["name=seccomp,profile=builtin", "name=cgroupns"]),
            product_license: Some(String::new()),
            warnings: Some(warnings),
            ..SystemInfo::default()
        })
    }

    /// Measures the data disk.
    ///
    /// # Errors
    /// When a list can't be made.
    pub async fn disk_usage(&self, kinds: DiskUsageKinds) -> Result<DiskUsage> {
        let mut usage = DiskUsage {
            layers_size: i64::try_from(self.0.config.images.disk_usage()).unwrap_or(i64::MAX),
            ..DiskUsage::default()
        };
        if kinds.images {
            let all = ListImages { all: true, shared_size: true, containers: true, ..ListImages::default() };
            usage.images = Some(self.list_images(all).await?);
        }
        if kinds.containers {
            let all = ListContainers { all: true, size: true, ..ListContainers::default() };
            usage.containers = Some(self.list_containers(all).await?);
        }
        if kinds.volumes {
            let engine = self.clone();
            usage.volumes = Some(blocking(move || Ok(engine.volumes_with_usage())).await?);
        }
        Ok(usage)
    }
}

/// The architecture in the words of image configurations.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn operating_system(field: &str) -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='));
    value.map_or_else(|| "Linux".to_owned(), |value| value.trim_matches('"').to_owned())
}

/// The machine's memory.
pub(crate) fn total_memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
