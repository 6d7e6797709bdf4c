//! The flags of `run` and `create`, and the API's body made of them.

use std::collections::HashMap;

use bollard_stubs::models::{
    ContainerCreateBody, DeviceMapping, HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum,
    HostConfigLogConfig, Mount, ResourcesUlimits, RestartPolicy,
};
use clap::Args;

use super::devices::DeviceFlags;
use super::networks::NetworkFlags;
use crate::error::Error;
use crate::options::environment::{self, Bare};
use crate::options::health::Health;
use crate::options::trust::ContentTrust;
use crate::options::{bytes, device, mount, port, restart, ulimit, volume};
use crate::terminal::warn;

/// What is said to those who want to limit it.
pub const NO_KERNEL_MEMORY: &str = "WARNING: --kernel-memory has no effect: Linux has no such limit any more";

/// Options of a new container.
#[derive(Debug, Clone, Default, Args)]
pub struct ContainerFlags {
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_name = "list")]
    add_host: Vec<String>,
    /// Add an annotation to the container (passed through to the OCI runtime)
    #[arg(long, value_name = "map")]
    annotation: Vec<String>,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short = 'a', long, value_name = "list", value_parser = standard_stream)]
    pub attach: Vec<String>,
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "uint16")]
    blkio_weight: Option<u16>,
    /// Add Linux capabilities
    #[arg(long, value_name = "list")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "list")]
    cap_drop: Vec<String>,
    /// Optional parent cgroup for the container
    #[arg(long, value_name = "string")]
    cgroup_parent: Option<String>,
    /// Cgroup namespace to use (host|private)
    #[arg(long, value_name = "string", value_parser = ["host", "private"])]
    cgroupns: Option<String>,
    /// Write the container ID to the file
    #[arg(long, value_name = "string")]
    pub cidfile: Option<String>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "int")]
    cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "int")]
    cpu_quota: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long, value_name = "int")]
    cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "decimal", value_parser = bytes::parse_cpus)]
    cpus: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_mems: Option<String>,
    /// Add a host device to the container
    #[arg(long, value_name = "list", value_parser = device::parse)]
    device: Vec<DeviceMapping>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long, value_name = "list")]
    device_cgroup_rule: Vec<String>,
    #[command(flatten)]
    pub trust: ContentTrust,
    /// Set custom DNS servers
    #[arg(long, value_name = "list")]
    dns: Vec<String>,
    /// Set DNS options
    #[arg(long, alias = "dns-opt", value_name = "list")]
    dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "list")]
    dns_search: Vec<String>,
    /// Container NIS domain name
    #[arg(long, value_name = "string")]
    domainname: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "string")]
    entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short = 'e', long, value_name = "list")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "list")]
    expose: Vec<String>,
    /// Add additional groups to join
    #[arg(long, value_name = "list")]
    group_add: Vec<String>,
    #[command(flatten)]
    health: Health,
    /// Container host name
    #[arg(short = 'h', long, value_name = "string")]
    hostname: Option<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long)]
    pub interactive: bool,
    #[command(flatten)]
    networks: NetworkFlags,
    #[command(flatten)]
    devices: DeviceFlags,
    /// IPC mode to use
    #[arg(long, value_name = "string")]
    ipc: Option<String>,
    /// Container isolation technology
    #[arg(long, value_name = "string", value_parser = isolation)]
    isolation: Option<HostConfigIsolationEnum>,
    /// Kernel memory limit: without effect, as Linux has none any more
    #[arg(long, value_name = "bytes", value_parser = bytes::parse)]
    kernel_memory: Option<i64>,
    /// Set meta data on a container
    #[arg(short = 'l', long, value_name = "list")]
    label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long, value_name = "list")]
    label_file: Vec<String>,
    /// Logging driver for the container
    #[arg(long, value_name = "string")]
    log_driver: Option<String>,
    /// Log driver options
    #[arg(long, value_name = "list")]
    log_opt: Vec<String>,
    /// Memory limit
    #[arg(short = 'm', long, value_name = "bytes", value_parser = bytes::parse)]
    memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "bytes", value_parser = bytes::parse)]
    memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "bytes", value_parser = bytes::parse_swap)]
    memory_swap: Option<i64>,
    /// Attach a filesystem mount to the container
    #[arg(long, value_name = "mount", value_parser = mount::parse)]
    mount: Vec<Mount>,
    /// Assign a name to the container
    #[arg(long, value_name = "string")]
    pub name: Option<String>,
    /// Disable OOM Killer
    #[arg(long)]
    oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, value_name = "int")]
    oom_score_adj: Option<i64>,
    /// PID namespace to use
    #[arg(long, value_name = "string")]
    pid: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "int")]
    pids_limit: Option<i64>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    pub platform: Option<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    privileged: bool,
    /// Publish a container's port(s) to the host
    #[arg(short = 'p', long, value_name = "list")]
    publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Pull image before running ("always", "missing", "never")
    #[arg(long, value_name = "string", default_value = "missing")]
    pub pull: String,
    /// Suppress the pull output
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    read_only: bool,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "string", default_value = "no", value_parser = restart::parse)]
    restart: Option<RestartPolicy>,
    /// Automatically remove the container and its associated anonymous volumes when it exits
    #[arg(long)]
    pub rm: bool,
    /// Runtime to use for this container
    #[arg(long, value_name = "string")]
    runtime: Option<String>,
    /// Security Options
    #[arg(long, value_name = "list")]
    security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes", value_parser = bytes::parse)]
    shm_size: Option<i64>,
    /// Signal to stop the container
    #[arg(long, value_name = "string")]
    stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, value_name = "int")]
    stop_timeout: Option<i64>,
    /// Storage driver options for the container
    #[arg(long, value_name = "list")]
    storage_opt: Vec<String>,
    /// Sysctl options
    #[arg(long, value_name = "map")]
    sysctl: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "list")]
    tmpfs: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Ulimit options
    #[arg(long, value_name = "ulimit", value_parser = ulimit::parse)]
    ulimit: Vec<ResourcesUlimits>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short = 'u', long, value_name = "string")]
    user: Option<String>,
    /// User namespace to use
    #[arg(long, value_name = "string")]
    userns: Option<String>,
    /// UTS namespace to use
    #[arg(long, value_name = "string")]
    uts: Option<String>,
    /// Bind mount a volume
    #[arg(short = 'v', long, value_name = "list")]
    volume: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long, value_name = "string")]
    volume_driver: Option<String>,
    /// Mount volumes from the specified container(s)
    #[arg(long, value_name = "list")]
    volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(short = 'w', long, value_name = "string")]
    workdir: Option<String>,
}

fn isolation(text: &str) -> Result<HostConfigIsolationEnum, String> {
    text.parse().map_err(|_| format!("invalid isolation: {text}"))
}

fn standard_stream(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    match name.as_str() {
        "stdin" | "stdout" | "stderr" => Ok(name),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

fn some<T>(list: &[T]) -> Option<Vec<T>>
where
    T: Clone,
{
    (!list.is_empty()).then(|| list.to_vec())
}

fn some_map(list: &[String]) -> Option<HashMap<String, String>> {
    (!list.is_empty()).then(|| environment::map(list))
}

impl ContainerFlags {
    /// Tells whether a standard stream is attached: those named by `-a`, else output always and input with `-i`.
    pub fn attaches(&self, stream: &str) -> bool {
        if self.attach.is_empty() {
            return stream != "stdin" || self.interactive;
        }
        self.attach.iter().any(|name| name == stream)
    }

    /// Returns the API's body for a container of `words[0]` that runs the other words.
    pub fn body(&self, words: &[String], detached: bool) -> Result<ContainerCreateBody, Error> {
        let (image, command) = words.split_first().ok_or_else(|| Error::plain("no image given"))?;
        if !matches!(self.pull.as_str(), "always" | "missing" | "never") {
            return Err(Error::plain(format!(
                "invalid pull option: '{}': must be one of \"always\", \"missing\" or \"never\"",
                self.pull
            )));
        }
        if self.kernel_memory.is_some() {
            warn(NO_KERNEL_MEMORY);
        }
        let attach_stdin = !detached && self.attaches("stdin");
        let env = environment::collect(&self.env_file, &self.env, Bare::FromEnvironment)?;
        let labels = environment::collect(&self.label_file, &self.label, Bare::Keep)?;
        let mut ports = port::Bindings::new();
        for spec in &self.publish {
            port::publish(spec, &mut ports).map_err(Error::plain)?;
        }
        let mut exposed: Vec<String> = ports.keys().cloned().collect();
        for spec in &self.expose {
            exposed.extend(port::expose(spec).map_err(Error::plain)?);
        }
        exposed.sort();
        exposed.dedup();
        let (binds, volumes) = self.volumes()?;
        Ok(ContainerCreateBody {
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            user: self.user.clone(),
            attach_stdin: Some(attach_stdin),
            attach_stdout: Some(!detached && self.attaches("stdout")),
            attach_stderr: Some(!detached && self.attaches("stderr")),
            exposed_ports: some(&exposed),
            tty: Some(self.tty),
            open_stdin: Some(self.interactive),
            stdin_once: Some(attach_stdin && self.interactive),
            env: some(&env),
            cmd: some(command),
            healthcheck: self.health.config()?,
            image: Some(image.clone()),
            volumes: some(&volumes),
            working_dir: self.workdir.clone(),
            // An empty `--entrypoint` resets the image's.
            entrypoint: self.entrypoint.as_ref().map(|entry| vec![entry.clone()]),
            labels: some_map(&labels),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            host_config: Some(self.host_config(ports, binds)?),
            networking_config: self.networks.networking()?,
            ..Default::default()
        })
    }

    fn volumes(&self) -> Result<(Vec<String>, Vec<String>), Error> {
        let (mut binds, mut volumes) = (Vec::new(), Vec::new());
        for spec in &self.volume {
            let absolute = |path: &str| Ok(std::path::absolute(path)?.to_string_lossy().into_owned());
            match volume::parse(spec, absolute).map_err(Error::plain)? {
                volume::Volume::Anonymous(target) => volumes.push(target),
                volume::Volume::Bind(bind) => binds.push(bind),
            }
        }
        Ok((binds, volumes))
    }

    fn host_config(&self, ports: port::Bindings, binds: Vec<String>) -> Result<HostConfig, Error> {
        let (security, masked) = self.security()?;
        let tmpfs: HashMap<String, String> = self
            .tmpfs
            .iter()
            .map(|entry| entry.split_once(':').unwrap_or((entry, "")))
            .map(|(path, options)| (path.to_owned(), options.to_owned()))
            .collect();
        if self.rm && self.restart.as_ref().is_some_and(|policy| policy.name.is_some_and(|name| !is_no(name)))
        {
            return Err(Error::plain("conflicting options: cannot specify both --restart and --rm"));
        }
        let mut host = HostConfig {
            cpu_shares: self.cpu_shares,
            memory: self.memory,
            cgroup_parent: self.cgroup_parent.clone(),
            blkio_weight: self.blkio_weight,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            devices: some(&self.device),
            device_cgroup_rules: some(&self.device_cgroup_rule),
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            nano_cpus: self.cpus,
            oom_kill_disable: self.oom_kill_disable.then_some(true),
            init: self.init.then_some(true),
            pids_limit: self.pids_limit,
            ulimits: some(&self.ulimit),
            binds: some(&binds),
            container_id_file: self.cidfile.clone(),
            log_config: (self.log_driver.is_some() || !self.log_opt.is_empty()).then(|| {
                HostConfigLogConfig {
                    typ: Some(self.log_driver.clone().unwrap_or_default()),
                    config: some_map(&self.log_opt),
                }
            }),
            network_mode: Some(self.networks.mode()),
            links: self.networks.links(),
            port_bindings: (!ports.is_empty()).then_some(ports),
            restart_policy: self.restart.clone(),
            auto_remove: Some(self.rm),
            volume_driver: self.volume_driver.clone(),
            volumes_from: some(&self.volumes_from),
            mounts: some(&self.mount),
            console_size: crate::terminal::size()
                .filter(|_| self.tty)
                .map(|(columns, rows)| vec![usize::from(rows), usize::from(columns)]),
            annotations: some_map(&self.annotation),
            cap_add: some(&self.cap_add),
            cap_drop: some(&self.cap_drop),
            cgroupns_mode: self.cgroupns.as_deref().map(|mode| match mode {
                "host" => HostConfigCgroupnsModeEnum::HOST,
                _ => HostConfigCgroupnsModeEnum::PRIVATE,
            }),
            dns: some(&self.dns),
            dns_options: some(&self.dns_option),
            dns_search: some(&self.dns_search),
            extra_hosts: self.extra_hosts()?,
            group_add: some(&self.group_add),
            ipc_mode: self.ipc.clone(),
            oom_score_adj: self.oom_score_adj,
            pid_mode: self.pid.clone(),
            privileged: Some(self.privileged),
            publish_all_ports: Some(self.publish_all),
            readonly_rootfs: Some(self.read_only),
            security_opt: some(&security),
            storage_opt: some_map(&self.storage_opt),
            tmpfs: (!tmpfs.is_empty()).then_some(tmpfs),
            uts_mode: self.uts.clone(),
            userns_mode: self.userns.clone(),
            shm_size: self.shm_size,
            sysctls: some_map(&self.sysctl),
            runtime: self.runtime.clone(),
            masked_paths: masked.then(Vec::new),
            readonly_paths: masked.then(Vec::new),
            isolation: self.isolation,
            ..Default::default()
        };
        self.devices.apply(&mut host);
        Ok(host)
    }

    fn extra_hosts(&self) -> Result<Option<Vec<String>>, Error> {
        let mut all = Vec::new();
        for entry in &self.add_host {
            let (host, address) = entry
                .split_once('=')
                .or_else(|| entry.split_once(':'))
                .filter(|(host, _)| !host.is_empty())
                .ok_or_else(|| Error::plain(format!("bad format for add-host: {entry:?}")))?;
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
                return Err(Error::plain(format!("invalid IP address in add-host: {address:?}")));
            }
            all.push(format!("{host}:{bare}"));
        }
        Ok(some(&all))
    }

    /// Reads seccomp profiles, which travel as JSON, and takes `systempaths` out; returns whether the masked
    /// paths are to be emptied.
    fn security(&self) -> Result<(Vec<String>, bool), Error> {
        let mut unmasked = false;
        let mut all = Vec::new();
        for option in &self.security_opt {
            let (key, value) = match option.split_once(['=', ':']) {
                Some(pair) => pair,
                None if option == "no-new-privileges" => (option.as_str(), ""),
                None => return Err(Error::plain(format!("invalid --security-opt: {option:?}"))),
            };
            match (key, value) {
                ("systempaths", "unconfined") => unmasked = true,
                ("seccomp", "unconfined" | "builtin") => all.push(option.clone()),
                ("seccomp", path) => {
                    let text = std::fs::read_to_string(path).map_err(|error| {
                        Error::plain(format!("opening seccomp profile ({path}) failed: {error}"))
                    })?;
                    let profile: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
                        Error::plain(format!("compacting json for seccomp profile ({path}) failed: {error}"))
                    })?;
                    all.push(format!("seccomp={profile}"));
                }
                _ => all.push(option.clone()),
            }
        }
        Ok((all, unmasked))
    }
}

fn is_no(name: bollard_stubs::models::RestartPolicyNameEnum) -> bool {
    use bollard_stubs::models::RestartPolicyNameEnum as Name;
    matches!(name, Name::NO | Name::EMPTY)
}
