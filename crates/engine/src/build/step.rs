//! Runs a build's step as a container that nobody sees: same namespaces, network, limits and filters, no record.
//!
//! The supervisor knows its process under `build-…`, which is no container: an engine that starts anew ends it, and its
//! directory is swept with those of half-made containers.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bollard_stubs::models::{
    ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig, ResourcesUlimits,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use skiff_build::{Network, Output, Step, StepMount, StepRunner, Writer};
use skiff_runtime::user::Root;
use skiff_runtime::{Cgroup, Create, Io, Parent, Stdio};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::container::{CREATE_FAILED, runtime_error};
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result, chain};
use crate::network::Resolver;
use crate::spec::{self, Inputs, Share};
use crate::state::{Endpoint, Mount, MountKind, Record, State};

/// What a sandbox is called inside, as BuildKit's is.
const HOST_NAME: &str = "buildkitsandbox";
/// How long output is waited for once the step has ended: somebody outside may hold the other side open.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
const PIECE: usize = 32 << 10;

/// Runs steps for the solver.
pub(super) struct Runner(pub Weak<Inner>);

/// What a step has taken.
#[derive(Default)]
struct Taken {
    endpoints: Vec<Endpoint>,
    resolver: Option<Resolver>,
    cgroup: Option<Arc<Cgroup>>,
}

/// A step whose process runs.
struct Running {
    pidfd: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

#[async_trait]
impl StepRunner for Runner {
    async fn run(&self, step: Step, cancel: CancellationToken) -> skiff_build::Result<i32> {
        let Some(inner) = self.0.upgrade() else { return Err(skiff_build::Error::Cancelled) };
        let engine = Engine(inner);
        let failed = |error: Error| skiff_build::Error::failed(error.message);
        let mut record = record_of(&step);
        let mut taken = Taken::default();
        let ended = engine.0.steps.wait_for(&record.id);
        let result = async {
            engine.allocate_endpoints(&record, &mut taken.endpoints).await?;
            record.endpoints.clone_from(&taken.endpoints);
            engine.0.steps.begin(&record);
            let (worker, record, output) = (engine.clone(), record.clone(), Arc::clone(&step.output));
            let mut held = std::mem::take(&mut taken);
            let (started, held) = blocking(move || {
                let started = worker.start_step(&record, step, &mut held);
                Ok((started, held))
            })
            .await?;
            taken = held;
            let running = started?;
            engine.watch_step(running, ended, &output, &cancel, taken.cgroup.as_deref()).await
        }
        .await;
        engine.0.steps.forget(&record.id);
        let worker = engine.clone();
        let id = record.id;
        let tidied = blocking(move || {
            worker.tidy_step(&id, taken);
            Ok(())
        });
        if let Err(error) = tidied.await {
            tracing::warn!(%error, "step not tidied up");
        }
        match result {
            Ok(Some(code)) => Ok(code),
            Ok(None) => Err(skiff_build::Error::Cancelled),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Engine {
    fn start_step(&self, record: &Record, step: Step, taken: &mut Taken) -> Result<Running> {
        let dir = self.0.config.container(&record.id);
        std::fs::create_dir(&dir).map_err(|error| Error::file("create", &dir, &error))?;
        self.write_files(record)?;
        let netns = self.network_namespace(record)?;
        if let Some(netns) = &netns
            && self.has_resolver(record)
        {
            taken.resolver = Some(Resolver::start(self, &record.id, netns)?);
        }
        taken.cgroup = self.make_cgroup(record)?;
        let mut parts = HashMap::new();
        for mount in step.mounts {
            if let StepMount::Bind(bind) = mount {
                parts.insert(bind.destination, bind.source);
            }
        }
        let spec = spec::build(&Inputs {
            record,
            linked: &[],
            dir: &dir,
            parts: &parts,
            root: &Root::new(&step.rootfs),
            pid: Share::Own,
            ipc: Share::Own,
            uts: Share::Own,
            host_network: step.network == Network::Host,
            limits: self.0.limits,
            init: None,
        })?;
        let failed = |errno: rustix::io::Errno| Error::internal("make pipes", &io::Error::from(errno));
        let stdin = rustix::fs::openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let (out, err) =
            (pipe_with(PipeFlags::CLOEXEC).map_err(failed)?, pipe_with(PipeFlags::CLOEXEC).map_err(failed)?);
        let created = skiff_runtime::create(Create {
            id: &record.id,
            spec: &spec,
            rootfs: step.rootfs,
            io: Io::Pipes(Stdio { stdin: stdin.map_err(failed)?, stdout: out.1, stderr: err.1 }),
            cgroup: taken.cgroup.as_deref(),
            netns: netns.as_ref().map(AsFd::as_fd),
            parent: Parent::CallersParent,
        })
        .map_err(|error| step_error(&error))?;
        drop(parts);
        let supervisor = &self.0.config.supervisor;
        supervisor
            .adopt(&record.id, created.pid, &[])
            .map_err(|error| Error::internal("hand the step to the supervisor", &error))?;
        match created.start() {
            Ok(running) => Ok(Running { pidfd: running.pidfd, stdout: out.0, stderr: err.0 }),
            Err(error) => {
                self.forget(&record.id);
                Err(step_error(&error))
            }
        }
    }

    /// Passes on output until the end; `None` when it was cancelled.
    async fn watch_step(
        &self,
        running: Running,
        ended: tokio::sync::oneshot::Receiver<i32>,
        output: &Writer,
        cancel: &CancellationToken,
        cgroup: Option<&Cgroup>,
    ) -> Result<Option<i32>> {
        let Running { pidfd, stdout, stderr } = running;
        let mut pumps = tokio::task::JoinSet::new();
        for (end, stream) in [(stdout, Output::Stdout), (stderr, Output::Stderr)] {
            let reader = reader(end).map_err(|error| Error::internal("read the step's output", &error))?;
            pumps.spawn(pump(reader, stream, Arc::clone(output)));
        }
        let mut ended = std::pin::pin!(ended);
        let mut stop = self.0.stop.subscribe();
        let given_up = async {
            tokio::select! {
                () = cancel.cancelled() => {}
                // An engine that ends for good leaves no steps behind.
                _ = stop.wait_for(Option::is_some) => {}
            }
        };
        let (code, cancelled) = tokio::select! {
            code = &mut ended => (code, false),
            () = given_up => {
                // The first process of a pid namespace takes all others with it.
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                if let Some(cgroup) = cgroup && let Err(error) = cgroup.kill() {
                    tracing::debug!(error = chain(&error), "cgroup of a step not killed");
                }
                (ended.await, true)
            }
        };
        let _ = tokio::time::timeout(LAST_OUTPUT, async { while pumps.join_next().await.is_some() {} }).await;
        match code {
            _ if cancelled => Ok(None),
            Ok(code) => Ok(Some(code)),
            Err(_) => Err(Error::new(crate::error::Code::Internal, "the supervisor is gone")),
        }
    }

    /// Gives everything back. Blocks.
    fn tidy_step(&self, id: &str, taken: Taken) {
        drop(taken.resolver);
        self.release_endpoints(&taken.endpoints);
        if let Some(cgroup) = taken.cgroup.and_then(Arc::into_inner)
            && let Err(error) = cgroup.remove()
        {
            tracing::warn!(error = chain(&error), step = id, "cgroup can't be removed");
        }
        let dir = self.0.config.container(id);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %dir.display(), "directory can't be removed");
            }
            _ => {}
        }
    }
}

fn reader(end: OwnedFd) -> io::Result<Receiver> {
    rustix::io::ioctl_fionbio(&end, true)?;
    Receiver::from_owned_fd(end)
}

async fn pump(mut end: Receiver, stream: Output, output: Writer) {
    let mut buffer = vec![0; PIECE];
    while let Ok(got) = end.read(&mut buffer).await {
        if got == 0 {
            return;
        }
        output(stream, &buffer[..got]);
    }
}

fn step_error(error: &skiff_runtime::Error) -> Error {
    let error = runtime_error(error);
    let message = error.message.strip_prefix(CREATE_FAILED).unwrap_or(&error.message);
    let message = message.strip_suffix(": unknown").unwrap_or(message);
    Error::new(error.code, format!("runc run failed: {message}"))
}

/// The step as the container that it is run as.
fn record_of(step: &Step) -> Record {
    let meta = &step.meta;
    let mode = match &step.network {
        Network::Bridge => "bridge",
        Network::Host => "host",
        Network::None => "none",
        Network::Named(name) => name,
    };
    let networks: HashMap<String, EndpointSettings> = match mode.starts_with("container:") {
        true => HashMap::new(),
        false => [(mode.to_owned(), EndpointSettings::default())].into(),
    };
    let (path, args) =
        meta.args.split_first().map_or_else(Default::default, |(path, args)| (path.clone(), args.to_vec()));
    let hostname = if meta.hostname.is_empty() { HOST_NAME } else { &meta.hostname };
    let set = |value: i64| (value != 0).then_some(value);
    let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
    let ulimits = meta.ulimit.iter().map(|limit| ResourcesUlimits {
        name: Some(limit.name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    });
    let limits = &step.limits;
    let host_config = HostConfig {
        network_mode: Some(mode.to_owned()),
        extra_hosts: Some(meta.extra_hosts.iter().map(|host| format!("{}={}", host.host, host.ip)).collect()),
        ulimits: Some(ulimits.collect()),
        privileged: Some(step.insecure),
        shm_size: step.shm_size.and_then(|size| i64::try_from(size).ok()),
        readonly_rootfs: Some(step.readonly_root),
        memory: set(limits.memory),
        memory_swap: set(limits.memory_swap),
        cpu_shares: set(limits.cpu_shares),
        cpu_period: set(limits.cpu_period),
        cpu_quota: set(limits.cpu_quota),
        cpuset_cpus: text(&limits.cpuset_cpus),
        cpuset_mems: text(&limits.cpuset_mems),
        ..HostConfig::default()
    };
    let config = ContainerConfig {
        hostname: Some(hostname.to_owned()),
        user: text(&meta.user),
        env: Some(meta.env.clone()),
        working_dir: Some(if meta.cwd.is_empty() { "/".to_owned() } else { meta.cwd.clone() }),
        tty: Some(false),
        ..ContainerConfig::default()
    };
    Record {
        id: format!("build-{}", step.id),
        name: String::new(),
        created: clock::now_ns(),
        image_id: String::new(),
        path,
        args,
        config,
        host_config,
        networking: NetworkingConfig { endpoints_config: Some(networks) },
        mounts: step.mounts.iter().map(mount_of).collect(),
        state: State::default(),
        endpoints: Vec::new(),
        ports: HashMap::new(),
        restart_count: 0,
        stopped_by_user: false,
        before: None,
    }
}

fn mount_of(mount: &StepMount) -> Mount {
    let (kind, destination, writable, options) = match mount {
        StepMount::Bind(bind) => (MountKind::Bind, &bind.destination, !bind.readonly, Vec::new()),
        StepMount::Tmpfs(tmpfs) => {
            let mut options: Vec<String> =
                ["nosuid", "nodev", "noexec"].iter().map(|&option| option.to_owned()).collect();
            if tmpfs.size > 0 {
                options.push(format!("size={}", tmpfs.size));
            }
            (MountKind::Tmpfs, &tmpfs.destination, true, options)
        }
    };
    Mount {
        kind,
        name: None,
        source: String::new(),
        destination: destination.clone(),
        mode: String::new(),
        writable,
        propagation: String::new(),
        recursive: true,
        shallow_read_only: false,
        copy: false,
        anonymous: false,
        options,
        strict: true,
        subpath: None,
        volume_labels: HashMap::new(),
        volume_options: HashMap::new(),
    }
}
