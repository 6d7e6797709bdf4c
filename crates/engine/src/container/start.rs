//! `start`: from a record to a running process.
//!
//! The order matters for a kill at any point. Ports are bound first, so that a busy one fails the start before anything
//! runs. The child is cloned and waits before its execve; then the supervisor adopts it, with duplicates of its
//! descriptors; only then does it run. An engine killed before that leaves a child whose start pipe closes, and which
//! ends by itself; killed after that, the next engine finds the child at the supervisor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_stubs::models::{PortBinding, PortMap};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use skiff_network::NetNs;
use skiff_runtime::user::Root;
use skiff_runtime::{Cgroup, Create, Created, Io, Parent, RootFs, Stdio};

use super::{Container, Run, validate};
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result, chain};
use crate::events::Kind;
use crate::images::image_error;
use crate::log::Ends;
use crate::publish::{PublishError, PublishRequest, PublishedPort};
use crate::spec::{self, Inputs, Share, files, resources};
use crate::state::{Endpoint, MountKind, Record, Status};

/// Why a start is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Somebody asked for it.
    User,
    /// The restart policy.
    Policy,
}

/// What a start has made so far; given back when it fails.
#[derive(Default)]
struct Made {
    endpoint: Option<Endpoint>,
    ports: Vec<Box<dyn PublishedPort>>,
    published: PortMap,
    cgroup: Option<Arc<Cgroup>>,
}

/// The engine's ends of a container's streams.
struct Streams {
    stdin: Option<OwnedFd>,
    ends: Option<(OwnedFd, OwnedFd)>,
}

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// `NotModified` when it runs already; whatever keeps it from running, after which nothing of it is left.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _operation = container.operation.lock().await;
        let record = container.record();
        if container.removed() {
            return Err(Error::not_found(format!("No such container: {id}")));
        }
        match record.state.status {
            Status::Paused => {
                return Err(Error::conflict("cannot start a paused container, try unpause instead"));
            }
            Status::Running => {
                return Err(Error::new(Code::NotModified, format!("container {id} is already running")));
            }
            Status::Dead => {
                return Err(Error::conflict("container is marked for removal and cannot be started"));
            }
            Status::Created | Status::Exited | Status::Restarting => {}
        }
        container.change(|record| {
            record.stopped_by_user = false;
            record.restart_count = 0;
        });
        self.start_locked(&container, Cause::User).await
    }

    /// Starts; the caller holds the container's operation lock.
    pub(crate) async fn start_locked(&self, container: &Arc<Container>, cause: Cause) -> Result<()> {
        let record = container.record();
        let mut made = Made::default();
        let mut result = self.connect(&record, &mut made).await;
        if result.is_ok() {
            let (engine, ours) = (self.clone(), Arc::clone(container));
            (made, result) = match tokio::task::spawn_blocking(move || {
                let result = engine.launch(&ours, &mut made, cause);
                (made, result)
            })
            .await
            {
                Ok(outcome) => outcome,
                Err(error) => return Err(Error::internal("start", &error)),
            };
        }
        if let Err(error) = &result {
            self.roll_back(container, made, error).await;
        }
        result
    }

    /// Takes an address and binds the published ports.
    async fn connect(&self, record: &Record, made: &mut Made) -> Result<()> {
        if record.host_config.network_mode.as_deref() != Some("bridge") {
            return Ok(());
        }
        let mut endpoint = self.0.network.allocate()?;
        let wanted = record.networking.endpoints_config.iter().flatten().map(|(_, wanted)| wanted);
        if let Some(mac) = wanted.filter_map(|wanted| wanted.mac_address.clone()).find(|mac| !mac.is_empty())
        {
            endpoint.mac = mac;
        }
        made.endpoint = Some(endpoint.clone());
        (made.ports, made.published) = self.publish(record, &endpoint).await?;
        Ok(())
    }

    /// Binds every published port of a container.
    pub(crate) async fn publish(
        &self,
        record: &Record,
        endpoint: &Endpoint,
    ) -> Result<(Vec<Box<dyn PublishedPort>>, PortMap)> {
        let (mut guards, mut published) = (Vec::new(), PortMap::new());
        let host = &record.host_config;
        let any = vec![PortBinding { host_ip: None, host_port: None }];
        for port in record.config.exposed_ports.iter().flatten() {
            let (number, protocol) = validate::parse_port(port)?;
            let key = format!("{number}/{}", protocol.name());
            let bindings = host.port_bindings.as_ref().and_then(|map| {
                map.get(&key).or_else(|| map.get(&number.to_string()).filter(|_| key.ends_with("/tcp")))
            });
            let bindings = match bindings {
                Some(Some(bindings)) if !bindings.is_empty() => bindings,
                Some(_) => &any,
                None if host.publish_all_ports == Some(true) => &any,
                None => continue,
            };
            for binding in bindings {
                let target = (endpoint.ip, number).into();
                let (guard, binding) = self.publish_one(record, endpoint, protocol, target, binding).await?;
                guards.push(guard);
                published.entry(key.clone()).or_default().get_or_insert_default().push(binding);
            }
        }
        Ok((guards, published))
    }

    async fn publish_one(
        &self,
        record: &Record,
        endpoint: &Endpoint,
        protocol: crate::publish::Protocol,
        target: std::net::SocketAddr,
        binding: &PortBinding,
    ) -> Result<(Box<dyn PublishedPort>, PortBinding)> {
        let ip = binding.host_ip.as_deref().filter(|ip| !ip.is_empty());
        let host_ip = ip.and_then(|ip| ip.parse().ok()).unwrap_or(self.0.config.publish_default_ip);
        let (first, last) = validate::parse_host_port(binding.host_port.as_deref().unwrap_or(""))?;
        let mut refusal = None;
        for host_port in first..=last {
            let request =
                PublishRequest { host_ip, host_port, protocol, container: record.name.clone(), target };
            match self.0.config.publisher.publish(request).await {
                Ok(guard) => {
                    let binding = PortBinding {
                        host_ip: Some(host_ip.to_string()),
                        host_port: Some(guard.host_port().to_string()),
                    };
                    return Ok((guard, binding));
                }
                Err(error) => refusal = Some((host_port, error)),
            }
        }
        let (port, error) = refusal.expect("a range has at least one port");
        let address = std::net::SocketAddr::new(host_ip, port);
        let reason = match &error {
            PublishError::AddressInUse { .. } if self.is_ours(&host_ip.to_string(), port) => {
                format!("Bind for {address} failed: port is already allocated")
            }
            PublishError::AddressInUse { message }
            | PublishError::PermissionDenied { message }
            | PublishError::Failed { message } => {
                let message = message.strip_prefix("bind: ").unwrap_or(message);
                format!("failed to bind host port for {address}:{target}/{}: {message}", protocol.name())
            }
        };
        Err(Error::new(
            Code::Internal,
            format!(
                "failed to set up container networking: driver failed programming external connectivity on endpoint \
                 {} ({}): {reason}",
                record.name, endpoint.id
            ),
        ))
    }

    /// Whether a container of ours has published this port.
    fn is_ours(&self, ip: &str, port: u16) -> bool {
        let port = port.to_string();
        self.0.registry.all().iter().any(|container| {
            container.record().ports.values().flatten().flatten().any(|binding| {
                binding.host_port.as_ref() == Some(&port)
                    && (binding.host_ip.as_deref() == Some(ip)
                        || ip == "0.0.0.0"
                        || binding.host_ip.as_deref() == Some("0.0.0.0"))
            })
        })
    }

    /// The part of a start that blocks.
    fn launch(&self, container: &Arc<Container>, made: &mut Made, cause: Cause) -> Result<()> {
        let mut record = container.record();
        if let Some(endpoint) = &made.endpoint {
            let (endpoint, ports) = (endpoint.clone(), made.published.clone());
            // Part of the record from now on: a restarted engine must find the address taken.
            record = container.change(|record| {
                record.endpoint = Some(endpoint);
                record.ports = ports;
            });
        }
        self.prepare_mounts(&record)?;
        self.write_files(&record, made.endpoint.as_ref())?;
        let netns = self.network_namespace(&record, made.endpoint.as_ref())?;
        made.cgroup = self.make_cgroup(&record)?;
        let rootfs = self.rootfs(&record)?;
        let dir = self.0.config.container(&record.id);
        let spec = spec::build(&Inputs {
            record: &record,
            dir: &dir,
            root: &Root::new(&rootfs),
            pid: self.share(record.host_config.pid_mode.as_deref(), "PID")?,
            ipc: self.share(record.host_config.ipc_mode.as_deref(), "IPC")?,
            uts: self.share(record.host_config.uts_mode.as_deref(), "UTS")?,
            host_network: record.host_config.network_mode.as_deref() == Some("host"),
            limits: made.cgroup.is_some(),
        })?;
        let (io, streams) = streams(&record)?;
        let created = skiff_runtime::create(Create {
            id: &record.id,
            spec: &spec,
            rootfs,
            io,
            cgroup: made.cgroup.as_deref(),
            netns: netns.as_ref().map(AsFd::as_fd),
            parent: Parent::CallersParent,
        })
        .map_err(|error| runtime_error(&error))?;
        self.run(container, made, created, streams, cause)
    }

    /// Hands the child over and lets it go.
    fn run(
        &self,
        container: &Arc<Container>,
        made: &mut Made,
        created: Created,
        streams: Streams,
        cause: Cause,
    ) -> Result<()> {
        let mut record = container.record();
        let pid = created.pid;
        let master = created.terminal.as_ref().map(OwnedFd::try_clone).transpose();
        let master = master.map_err(|error| Error::internal("keep the terminal", &error))?.map(Arc::new);
        let (first, second) = streams.ends.expect("both kinds of streams have two descriptors");
        {
            let mut kept: Vec<(&str, BorrowedFd<'_>)> = Vec::new();
            match &master {
                Some(master) => kept.extend([
                    ("terminal", master.as_fd()),
                    ("staging-read", first.as_fd()),
                    ("staging-write", second.as_fd()),
                ]),
                None => kept.extend([("stdout", first.as_fd()), ("stderr", second.as_fd())]),
            }
            // A stdin that closes with its first client must not be kept open by anybody else.
            if let Some(stdin) = streams.stdin.as_ref().filter(|_| record.config.stdin_once != Some(true)) {
                kept.push(("stdin", stdin.as_fd()));
            }
            self.0
                .config
                .supervisor
                .adopt(&record.id, pid, &kept)
                .map_err(|error| Error::internal("hand the container to the supervisor", &error))?;
        }
        let ends = match &master {
            None => Ends::Pipes { stdout: first, stderr: second },
            Some(master) => Ends::Terminal {
                master: master.try_clone().map_err(|error| Error::internal("keep the terminal", &error))?,
                staging_read: first,
                staging_write: second,
            },
        };
        let started = container
            .log
            .begin(ends, &self.0.pump)
            .map_err(|error| Error::file("open the log in", container.log.dir(), &error))
            .and_then(|()| created.start().map_err(|error| runtime_error(&error)));
        let running = match started {
            Ok(running) => running,
            Err(error) => {
                // Its exit, when it is reported, finds no entry and no run.
                if let Err(error) = self.0.config.supervisor.forget(&record.id) {
                    tracing::warn!(
                        error = chain(&error),
                        container = record.id,
                        "supervisor keeps a failed start"
                    );
                }
                return Err(error);
            }
        };
        *container.run() = Some(Run {
            pid,
            pidfd: Arc::new(running.pidfd),
            stdin: streams.stdin.map(Arc::new),
            master,
            cgroup: made.cgroup.take(),
            ports: std::mem::take(&mut made.ports),
        });
        record = container.change(|record| {
            let state = &mut record.state;
            state.status = Status::Running;
            state.pid = pid;
            state.started_at = Some(clock::now_ns());
            state.finished_at = None;
            state.exit_code = 0;
            state.error.clear();
            state.oom_killed = false;
            if cause == Cause::Policy {
                record.restart_count += 1;
            }
        });
        self.store_later(&record);
        if made.endpoint.is_some() {
            self.network_event(&record, "connect");
        }
        self.container_event(&record, "start", &[]);
        container.changes.send_modify(|change| {
            change.running = true;
            change.starts += 1;
            change.error.clear();
        });
        let engine = self.clone();
        self.0.runtime.spawn_blocking(move || engine.0.network.prepare());
        Ok(())
    }

    /// After a failed start: everything is given back, and the record says why.
    async fn roll_back(&self, container: &Arc<Container>, made: Made, error: &Error) {
        let (engine, container) = (self.clone(), Arc::clone(container));
        let (message, exit_code) = (error.message.clone(), exit_code_of(&error.message));
        let work = move || {
            container.log.cancel();
            drop(made.ports);
            if let Some(endpoint) = &made.endpoint {
                engine.0.network.release(endpoint);
            }
            if let Some(cgroup) = made.cgroup.and_then(Arc::into_inner)
                && let Err(error) = cgroup.remove()
            {
                tracing::warn!(error = chain(&error), "cgroup can't be removed");
            }
            let record = container.change(|record| {
                record.endpoint = None;
                record.ports.clear();
                let state = &mut record.state;
                state.exit_code = exit_code;
                state.error = message.clone();
                if state.status == Status::Restarting {
                    state.status = Status::Exited;
                }
            });
            engine.store_later(&record);
            container.changes.send_modify(|change| {
                change.running = false;
                change.failures += 1;
                change.exit_code = exit_code;
                change.error = message;
            });
            Ok(record)
        };
        match blocking(work).await {
            Ok(record) if record.host_config.auto_remove == Some(true) => {
                self.remove_after_exit(record.id.clone());
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "failed start can't be rolled back"),
        }
    }

    /// Makes missing sources of binds, as Docker does, and fills new volumes with what the image has there.
    fn prepare_mounts(&self, record: &Record) -> Result<()> {
        for mount in &record.mounts {
            let source = Path::new(&mount.source);
            match mount.kind {
                MountKind::Bind if !mount.strict && !source.exists() => {
                    std::fs::create_dir_all(source).map_err(|error| {
                        Error::new(
                            Code::Internal,
                            format!("error while creating mount source path '{}': {error}", mount.source),
                        )
                    })?;
                }
                MountKind::Volume => {
                    let name = mount.name.as_deref().unwrap_or("");
                    if self.0.volumes.get(name).is_none() {
                        return Err(Error::not_found(format!("get {name}: no such volume")));
                    }
                    if mount.copy {
                        let lower = self.lower(record)?;
                        crate::copy_up::copy_up(&lower, &mount.destination, source)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn lower(&self, record: &Record) -> Result<Vec<PathBuf>> {
        self.0.config.images.lower_dirs(&record.image_id).map_err(|error| image_error(&error))
    }

    pub(crate) fn rootfs(&self, record: &Record) -> Result<RootFs> {
        let dir = self.0.config.container(&record.id);
        Ok(RootFs::Overlay { lower: self.lower(record)?, upper: dir.join("upper"), work: dir.join("work") })
    }

    /// Writes the files that are bound into the container.
    fn write_files(&self, record: &Record, endpoint: Option<&Endpoint>) -> Result<()> {
        let (config, host) = (&record.config, &record.host_config);
        let mode = host.network_mode.as_deref().unwrap_or("");
        if mode.starts_with("container:") {
            return Ok(());
        }
        let dir = self.0.config.container(&record.id);
        let hostname = config.hostname.as_deref().unwrap_or("");
        let domain = config.domainname.as_deref().unwrap_or("");
        let inherited = std::fs::read_to_string(&self.0.config.resolv_conf).unwrap_or_default();
        let empty = Vec::new();
        let dns = files::Dns {
            servers: host.dns.as_ref().unwrap_or(&empty),
            search: host.dns_search.as_ref().unwrap_or(&empty),
            options: host.dns_options.as_ref().unwrap_or(&empty),
        };
        let own = endpoint.map(|endpoint| (endpoint.ip.into(), hostname, domain));
        let extra = host.extra_hosts.as_deref().unwrap_or_default();
        let gateway = self.0.network.gateway().map(Into::into);
        let hosts = if mode == "host" && extra.is_empty() {
            std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| files::hosts(None, &[], None))
        } else {
            files::hosts(own, extra, gateway)
        };
        let resolv = files::resolv_conf(&inherited, &dns, mode != "host", &self.0.config.fallback_dns);
        for (name, text) in [("hostname", format!("{hostname}\n")), ("hosts", hosts), ("resolv.conf", resolv)]
        {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|error| Error::file("write", &path, &error))?;
        }
        Ok(())
    }

    /// The network namespace to join; `None` is the engine's own.
    fn network_namespace(&self, record: &Record, endpoint: Option<&Endpoint>) -> Result<Option<NetNs>> {
        let failed =
            |error: skiff_network::Error| Error::internal("failed to set up container networking", &error);
        let mode = record.host_config.network_mode.as_deref().unwrap_or("");
        if mode == "host" {
            return Ok(None);
        }
        if let Some(other) = mode.strip_prefix("container:") {
            let (pid, _) = self.shared_process(other, "network namespace")?;
            return NetNs::of_pid(pid).map(Some).map_err(failed);
        }
        let netns = self.0.network.namespace().map_err(failed)?;
        if let Some(endpoint) = endpoint {
            self.0.network.attach(endpoint, netns.as_fd())?;
        }
        Ok(Some(netns))
    }

    fn share(&self, mode: Option<&str>, kind: &str) -> Result<Share> {
        match mode.unwrap_or("") {
            "host" => Ok(Share::Host),
            mode => match mode.strip_prefix("container:") {
                Some(other) => self.shared_process(other, kind).map(|(pid, _)| Share::Process(pid)),
                None => Ok(Share::Own),
            },
        }
    }

    fn shared_process(&self, other: &str, kind: &str) -> Result<(i32, Arc<OwnedFd>)> {
        let other = self.container(other)?;
        other.process().map_err(|_| {
            Error::conflict(format!(
                "cannot join {kind} of a non running container: container {} is {}",
                other.record().name,
                other.record().state.status.name()
            ))
        })
    }

    fn make_cgroup(&self, record: &Record) -> Result<Option<Arc<Cgroup>>> {
        let Some(parent) = self.0.config.cgroup_parent.as_deref().filter(|_| self.0.limits) else {
            return Ok(None);
        };
        let failed =
            |error: skiff_runtime::Error| Error::internal("failed to set up the container's cgroup", &error);
        let cgroup = Cgroup::create(parent, &record.id).map_err(failed)?;
        cgroup.apply(&resources::of(&record.host_config)).map_err(failed)?;
        Ok(Some(Arc::new(cgroup)))
    }

    pub(crate) fn network_event(&self, record: &Record, action: &str) {
        let mode = record.host_config.network_mode.clone().unwrap_or_default();
        let id = self.0.facts.networks.get(&mode).cloned().unwrap_or_default();
        let attributes = [("container", record.id.as_str()), ("name", &mode), ("type", &mode)];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        self.0.events.publish(Kind::Network, action, &id, attributes);
    }
}

/// Makes the container's streams: the child's part, and ours.
fn streams(record: &Record) -> Result<(Io, Streams)> {
    let failed = |errno: rustix::io::Errno| Error::internal("make pipes", &std::io::Error::from(errno));
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed);
    if record.config.tty == Some(true) {
        let (read, write) = pipe()?;
        // Docker's order: height, width.
        let size = match record.host_config.console_size.as_deref() {
            Some([height, width]) if *height > 0 && *width > 0 => {
                Some((u16::try_from(*width).unwrap_or(u16::MAX), u16::try_from(*height).unwrap_or(u16::MAX)))
            }
            _ => None,
        };
        return Ok((Io::Terminal { size }, Streams { stdin: None, ends: Some((read, write)) }));
    }
    let (stdin, ours) = if record.config.open_stdin == Some(true) {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        (null.map_err(failed)?, None)
    };
    let (stdout, stderr) = (pipe()?, pipe()?);
    let stdio = Stdio { stdin, stdout: stdout.1, stderr: stderr.1 };
    Ok((Io::Pipes(stdio), Streams { stdin: ours, ends: Some((stdout.0, stderr.0)) }))
}

/// The runtime's error in the words that dockerd puts around it.
pub(crate) fn runtime_error(error: &skiff_runtime::Error) -> Error {
    let code = match error.exit_code() {
        126 | 127 => Code::InvalidArgument,
        _ => Code::Internal,
    };
    Error::new(
        code,
        format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: {}: unknown",
            error.docker_text()
        ),
    )
}

/// The exit code that dockerd gives to a failed start; it looks at the text as well.
fn exit_code_of(message: &str) -> i32 {
    let has = |text: &str| message.contains(text);
    if has("executable file not found")
        || has("no such file or directory")
        || has("system cannot find the file")
    {
        127
    } else if has("permission denied") || has("is a directory") || has("exec format error") {
        126
    } else {
        128
    }
}
