//! `start`: from a record to a running process.
//!
//! The order matters for a kill at any point. Ports are bound first, so that a busy one fails the start before anything
//! runs. The child is cloned and waits before its execve; then the supervisor adopts it, with duplicates of its
//! descriptors; only then does it run. An engine killed before that leaves a child whose start pipe closes, and which
//! ends by itself; killed after that, the next engine finds the child at the supervisor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bollard_stubs::models::PortMap;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use skiff_runtime::user::Root;
use skiff_runtime::{Cgroup, Create, Created, Io, Parent, Stdio};

use super::{Container, Run};
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result, chain};
use crate::health::{Health, Plan};
use crate::log::Ends;
use crate::network::Resolver;
use crate::publish::PublishedPort;
use crate::spec::{self, Inputs};
use crate::state::{Endpoint, MountKind, Record, Status};

/// Why a start is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Somebody asked for it.
    User,
    /// The restart policy, after an exit.
    Policy,
    /// The restart policy, because the engine begins anew.
    Engine,
}

/// What a start has made so far; given back when it fails.
#[derive(Default)]
struct Made {
    endpoints: Vec<Endpoint>,
    resolver: Option<Resolver>,
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
            // A container that waits for its restart counts as running, as with dockerd.
            Status::Running | Status::Restarting => {
                return Err(Error::new(Code::NotModified, format!("container {id} is already running")));
            }
            Status::Dead => {
                return Err(Error::conflict("container is marked for removal and cannot be started"));
            }
            Status::Created | Status::Exited => {}
        }
        container.hasty.store(0, Ordering::Relaxed);
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

    /// Takes addresses and binds the published ports.
    async fn connect(&self, record: &Record, made: &mut Made) -> Result<()> {
        self.allocate_endpoints(record, &mut made.endpoints).await?;
        if let Some(targets) = self.targets(&made.endpoints) {
            (made.ports, made.published) = self.publish(record, &targets).await?;
        }
        Ok(())
    }

    /// The part of a start that blocks.
    fn launch(&self, container: &Arc<Container>, made: &mut Made, cause: Cause) -> Result<()> {
        let mut record = container.record();
        let ids = self.network_ids(&record)?;
        if !ids.is_empty() {
            let (endpoints, ports) = (made.endpoints.clone(), made.published.clone());
            // Part of the record from now on: a restarted engine must find the addresses taken.
            record = container.change(|record| {
                record.endpoints = endpoints;
                record.ports = ports;
                for (name, settings) in record.networking.endpoints_config.iter_mut().flatten() {
                    settings.network_id = ids.get(name).cloned();
                }
            });
        }
        if let Some(other) = self.network_owner(&record) {
            // Who shares a network has its names too, as with dockerd.
            let other = other.record();
            record = container.change(|record| {
                record.config.hostname.clone_from(&other.config.hostname);
                record.config.domainname.clone_from(&other.config.domainname);
            });
        }
        let mut parts = self.prepare_mounts(&record)?;
        let ipc = record.host_config.ipc_mode.as_deref().unwrap_or("");
        if let Some(other) = ipc.strip_prefix("container:")
            && !record.mounts.iter().any(|mount| mount.destination == "/dev/shm")
        {
            let (_, process) = self.shared_process(other, "IPC")?;
            parts.insert("/dev/shm".to_owned(), crate::files::shared_memory_of(process.as_fd())?);
        }
        self.write_files(&record)?;
        let netns = self.network_namespace(&record)?;
        if let Some(netns) = &netns
            && self.has_resolver(&record)
        {
            made.resolver = Some(Resolver::start(self, &record.id, netns)?);
        }
        drop(container.leaving.blocking_lock());
        made.cgroup = self.make_cgroup(&record)?;
        let rootfs = self.rootfs(&record)?;
        let dir = self.network_files(&record);
        let links = self.links(&record)?;
        let linked: Vec<String> = links.iter().flat_map(|link| link.environment(&record.name)).collect();
        let spec = spec::build(&Inputs {
            record: &record,
            linked: &linked,
            dir: &dir,
            parts: &parts,
            root: &Root::new(&rootfs),
            pid: self.share(record.host_config.pid_mode.as_deref(), "PID")?,
            ipc: self.share(record.host_config.ipc_mode.as_deref(), "IPC")?,
            uts: self.share(record.host_config.uts_mode.as_deref(), "UTS")?,
            host_network: record.host_config.network_mode.as_deref() == Some("host"),
            limits: self.0.limits,
            init: self.0.config.init.as_deref(),
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
            ports_lead_to: self.targets(&made.endpoints),
            next_interface: 0,
            resolver: made.resolver.take(),
        });
        record = container.change(|record| {
            let state = &mut record.state;
            record.before = None;
            state.status = Status::Running;
            state.pid = pid;
            state.started_at = Some(clock::now_ns());
            state.finished_at = None;
            state.exit_code = 0;
            state.error.clear();
            state.oom_killed = false;
            state.health = Plan::of(&record.config).map(|_| Health::begin(state.health.take()));
            match cause {
                Cause::User => {}
                Cause::Policy => record.restart_count += 1,
                // As with dockerd, whose start is a new life too.
                Cause::Engine => (record.restart_count, record.stopped_by_user) = (0, false),
            }
        });
        // Before the answer: an engine killed right after it must find the endpoint, or it would sweep the link of a
        // running container as a stale one.
        if let Err(error) = self.store(&record) {
            tracing::error!(%error, container = record.id, "start can't be recorded");
        }
        self.network_events(&record, &made.endpoints, "connect");
        self.mount_events(&record);
        self.container_event(&record, "start", &[]);
        container.changes.send_modify(|change| {
            change.running = true;
            change.starts += 1;
            change.error.clear();
        });
        self.monitor_health(container);
        let engine = self.clone();
        self.0.runtime.spawn_blocking(move || engine.0.networks.prepare());
        Ok(())
    }

    /// After a failed start: everything is given back, and the record says why.
    async fn roll_back(&self, container: &Arc<Container>, made: Made, error: &Error) {
        let (engine, container) = (self.clone(), Arc::clone(container));
        let (message, exit_code) = (error.message.clone(), exit_code_of(&error.message));
        let work = move || {
            container.log.cancel();
            drop((made.ports, made.resolver));
            engine.close_ports(&container.id);
            engine.release_mounts(&container.record());
            engine.release_endpoints(&made.endpoints);
            if let Some(cgroup) = made.cgroup
                && let Err(error) = cgroup.remove()
            {
                tracing::warn!(error = chain(&error), "cgroup can't be removed");
            }
            let record = container.change(|record| {
                record.endpoints.clear();
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

    /// Tells of the volumes that a container has mounted.
    fn mount_events(&self, record: &Record) {
        for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            let attributes = [
                ("container", record.id.as_str()),
                ("destination", &mount.destination),
                ("propagation", &mount.propagation),
                ("read/write", if mount.writable { "true" } else { "false" }),
            ];
            self.volume_event(mount.name.as_deref().unwrap_or(""), "mount", &attributes);
        }
    }

    /// Tells of the networks that a container comes on or leaves.
    pub(crate) fn network_events(&self, record: &Record, endpoints: &[Endpoint], action: &str) {
        for endpoint in endpoints {
            if let Ok(network) = self.network_of(endpoint) {
                self.network_event(&network, action, Some(&record.id));
            }
        }
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

/// What dockerd says before a runtime's own words. Clients look for parts of it, runc's name included.
pub(crate) const CREATE_FAILED: &str = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: ";

/// The runtime's error in the words that dockerd puts around it.
pub(crate) fn runtime_error(error: &skiff_runtime::Error) -> Error {
    let code = match error.exit_code() {
        126 | 127 => Code::InvalidArgument,
        _ => Code::Internal,
    };
    // What runc finds wrong with the specification, it says before there is a process.
    let before = match error {
        skiff_runtime::Error::Spec { what } if what.starts_with("sysctl ") => "",
        _ => "unable to start container process: ",
    };
    Error::new(code, format!("{CREATE_FAILED}{before}{}: unknown", error.docker_text()))
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
