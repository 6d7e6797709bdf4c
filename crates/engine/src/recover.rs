//! The start of the engine, which is always a recovery: from a first start, a restart, a crash of the engine, and a
//! crash of the machine alike.
//!
//! | the record says | the supervisor says | then |
//! |---|---|---|
//! | anything | runs | it runs: its descriptors come back, output goes on |
//! | anything | has ended | its end is recorded with the true code and time, with the rest of its output |
//! | running | nothing | its machine has gone under it: exit code 255, as dockerd says it |
//! | not running | nothing | nothing to do |
//!
//! A container whose record is not "running" and whose process is there was started within the moment before the old
//! engine died, see `Database::later`.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use skiff_network::NetNs;
use skiff_runtime::Cgroup;
use skiff_supervisor::Entry;

use crate::clock;
use crate::container::start::Cause;
use crate::container::{Container, Run, exit};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, chain};
use crate::exec::is_exec;
use crate::log::Ends;
use crate::network::Resolver;
use crate::process::{self, Process};
use crate::state::{MountKind, Record, Status, Table};

/// The exit code of a container whose machine went away.
const LOST: i32 = 255;

/// Why the engine should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The supervisor asks for an orderly end: stop the containers, then exit.
    Asked,
    /// The supervisor is gone: nobody reaps containers any more.
    SupervisorGone,
}

impl Engine {
    /// Brings the state of the last engine into order.
    pub(crate) async fn recover(&self) -> Result<()> {
        let engine = self.clone();
        let new_session = blocking(move || engine.recover_blocking()).await?;
        for container in self.0.registry.all() {
            let record = container.record();
            if record.state.is_running() {
                let targets = self.targets(&record.endpoints);
                let ports = match &targets {
                    Some(targets) => self.publish_again(&record, targets).await,
                    None => Vec::new(),
                };
                if let Some(run) = container.run().as_mut() {
                    run.ports = ports;
                    run.ports_lead_to = targets;
                }
            } else if record.state.status == Status::Restarting
                || new_session && exit::starts_with_engine(&record)
            {
                let cause = if new_session { Cause::Engine } else { Cause::Policy };
                let record = container.change(|record| record.state.status = Status::Restarting);
                container.changes.send_modify(|change| change.running = true);
                self.store_later(&record);
                self.restart_after(&container, Duration::ZERO, cause);
            } else if record.host_config.auto_remove == Some(true) && record.state.started_at.is_some() {
                self.remove_after_exit(record.id.clone());
            }
        }
        self.listen();
        Ok(())
    }

    fn recover_blocking(&self) -> Result<bool> {
        let records = self.0.database.all::<Record>(Table::Containers)?;
        let supervisor = &self.0.config.supervisor;
        let entries = supervisor
            .list()
            .map_err(|error| Error::internal("ask the supervisor for containers", &error))?;
        let mut entries: HashMap<String, Entry> =
            entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        for record in records {
            let id = record.id.clone();
            if let Err(error) = self.0.registry.reserve(&record.name, &id) {
                tracing::error!(%error, container = id, "two containers of one name");
            }
            let container = self.hold(record);
            self.0.registry.insert(Arc::clone(&container));
            self.recover_container(&container, entries.remove(&id));
        }
        for (key, entry) in entries {
            self.recover_stray(&key, &entry);
        }
        self.recover_volumes();
        self.sweep();
        self.is_new_session()
    }

    /// Volumes that are mounts stay mounted for those who run, and only for them.
    fn recover_volumes(&self) {
        let records: Vec<_> = self.0.registry.all().iter().map(|container| container.record()).collect();
        let held = records.iter().filter(|record| record.state.is_running()).flat_map(|record| {
            let names = record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume);
            names.filter_map(|mount| Some((record.id.as_str(), mount.name.as_deref()?)))
        });
        self.0.volumes.take_over(held);
    }

    fn recover_container(&self, container: &Arc<Container>, entry: Option<Entry>) {
        let record = container.record();
        let Some(entry) = entry else {
            if record.state.is_running() {
                tracing::warn!(container = record.id, "container was lost with its machine");
                kill_orphan(&record);
                self.finish(container, LOST, clock::now_ns());
            }
            return;
        };
        if let Err(error) = self.take_over(container, &entry) {
            tracing::error!(%error, container = record.id, "container can't be taken over");
        }
        if let Some(exit) = &entry.exit {
            self.finish(container, exit.code, clock::to_ns(exit.at));
            self.forget(&entry.key);
        }
    }

    /// Holds a running (or just ended) container as its old engine did.
    fn take_over(&self, container: &Arc<Container>, entry: &Entry) -> Result<()> {
        let record = container.change(|record| {
            let state = &mut record.state;
            if !state.is_running() {
                record.before = Some(state.clone());
            }
            if state.status == Status::Restarting {
                record.restart_count += 1;
            }
            if !state.is_running() {
                state.status = Status::Running;
                state.started_at = Some(began(entry.pid));
                state.finished_at = None;
            }
            state.pid = entry.pid;
        });
        container.changes.send_modify(|change| {
            change.running = true;
            change.starts += 1;
        });
        for endpoint in &record.endpoints {
            match self.network_of(endpoint) {
                Ok(network) => network.reserve(&record.id, endpoint),
                Err(error) => {
                    tracing::error!(%error, container = record.id, "network of a running container is gone")
                }
            }
        }
        let fds = self
            .0
            .config
            .supervisor
            .fetch(&entry.key)
            .map_err(|error| Error::internal("fetch the container's descriptors", &error))?;
        let mut fds: HashMap<String, OwnedFd> = fds.into_iter().collect();
        let stdin = fds.remove("stdin").map(Arc::new);
        let mut master = None;
        let ends = match (fds.remove("stdout"), fds.remove("stderr"), fds.remove("terminal")) {
            (Some(stdout), Some(stderr), _) => Some(Ends::Pipes { stdout, stderr }),
            (_, _, Some(terminal)) => {
                let copy =
                    terminal.try_clone().map_err(|error| Error::internal("keep the terminal", &error))?;
                master = Some(Arc::new(copy));
                match (fds.remove("staging-read"), fds.remove("staging-write")) {
                    (Some(staging_read), Some(staging_write)) => {
                        Some(Ends::Terminal { master: terminal, staging_read, staging_write })
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(ends) = ends {
            container
                .log
                .begin(ends, &self.0.pump)
                .map_err(|error| Error::file("open the log in", container.log.dir(), &error))?;
        }
        if entry.exit.is_some() {
            return Ok(());
        }
        let pid =
            Pid::from_raw(entry.pid).ok_or_else(|| Error::conflict("the supervisor names no process"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|errno| Error::internal("open the container's process", &std::io::Error::from(errno)))?;
        let resolver = self.resolve_again(&record, entry.pid);
        let cgroup = self.cgroup_parent(&record);
        let cgroup = cgroup.and_then(|parent| Cgroup::open(&parent.join(&record.id)).ok()).map(Arc::new);
        *container.run() = Some(Run {
            pid: entry.pid,
            pidfd: Arc::new(pidfd),
            stdin,
            master,
            cgroup,
            ports: Vec::new(),
            ports_lead_to: None,
            next_interface: 0,
            resolver,
        });
        self.store_later(&record);
        self.monitor_health(container);
        tracing::info!(container = record.id, pid = entry.pid, "container taken over");
        Ok(())
    }

    /// Opens the resolver's sockets anew: those of the old engine went with it.
    fn resolve_again(&self, record: &Record, pid: i32) -> Option<Resolver> {
        if !self.has_resolver(record) {
            return None;
        }
        let netns =
            NetNs::of_pid(pid).map_err(|error| Error::internal("open the container's network", &error));
        match netns.and_then(|netns| Resolver::start(self, &record.id, &netns)) {
            Ok(resolver) => Some(resolver),
            Err(error) => {
                tracing::error!(%error, container = record.id, "container has no resolver");
                None
            }
        }
    }

    /// An entry that belongs to no container: an exec, or what a removal had no time to end.
    fn recover_stray(&self, key: &str, entry: &Entry) {
        match (is_exec(key), &entry.exit) {
            (true, None) => self.recover_exec(key, entry.pid),
            (false, None) => {
                tracing::warn!(container = key, pid = entry.pid, "process of no container is ended");
                if let Some(pid) = Pid::from_raw(entry.pid) {
                    // It may have ended in this moment.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            (_, Some(_)) => self.forget(key),
        }
    }

    /// Removes what half-made and half-removed containers have left.
    fn sweep(&self) {
        let dir = self.0.config.containers();
        match std::fs::read_dir(&dir) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    let name = entry.file_name();
                    if name.to_str().is_some_and(|id| self.0.registry.by_id(id).is_some()) {
                        continue;
                    }
                    tracing::info!(container = ?name, "left-over directory removed");
                    // A container that removes itself after an exit just found may be at it already.
                    if let Err(error) = std::fs::remove_dir_all(entry.path())
                        && error.kind() != std::io::ErrorKind::NotFound
                    {
                        tracing::warn!(%error, path = %entry.path().display(), "directory can't be removed");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, path = %dir.display(), "directory can't be read"),
        }
        let mut links = HashSet::new();
        for container in self.0.registry.all() {
            let record = container.record();
            if record.state.is_running() {
                links.extend(record.endpoints.iter().map(|endpoint| endpoint.host_name.clone()));
            } else {
                self.remove_stale_cgroup(&record);
            }
        }
        self.0.networks.sweep(&links);
        self.collect_images();
    }

    fn remove_stale_cgroup(&self, record: &Record) {
        let Some(parent) = self.cgroup_parent(record) else { return };
        if record.state.is_running() {
            return;
        }
        if let Ok(cgroup) = Cgroup::open(&parent.join(&record.id))
            && let Err(error) = cgroup.remove()
        {
            tracing::warn!(error = chain(&error), container = record.id, "cgroup can't be removed");
        }
    }

    /// Whether this is another boot, or another supervisor, than last time: then restart policies apply to everything.
    fn is_new_session(&self) -> Result<bool> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        let began = Process::read(parent).map_or(0, |process| process.began);
        let session = format!("{}:{parent}:{began}", boot.trim());
        let path = self.0.config.root.join("session");
        let last = std::fs::read_to_string(&path).unwrap_or_default();
        if last == session {
            return Ok(false);
        }
        std::fs::write(&path, &session).map_err(|error| Error::file("write", &path, &error))?;
        Ok(true)
    }

    /// Hears from the supervisor from now on.
    fn listen(&self) {
        let (engine, stop, gone) = (self.clone(), self.clone(), self.clone());
        self.0.config.supervisor.watch(
            move |key, status| {
                let ours = engine.clone();
                engine.0.runtime.spawn_blocking(move || {
                    if is_exec(&key) {
                        ours.exec_exited(&key, &status);
                    } else {
                        ours.container_exited(&key, &status);
                    }
                });
            },
            move || {
                stop.0.stop.send_replace(Some(StopReason::Asked));
            },
            move || {
                gone.0.stop.send_replace(Some(StopReason::SupervisorGone));
            },
        );
    }

    /// Whether the engine stops its containers because it ends itself.
    pub(crate) fn ending(&self) -> bool {
        self.0.stop.borrow().is_some()
    }

    /// Ends when the engine should end: after the containers were stopped, if that is asked for.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let engine = self.clone();
        async move {
            let reason = {
                let mut stop = engine.0.stop.subscribe();
                let reason = stop.wait_for(Option::is_some).await;
                reason.ok().and_then(|reason| *reason).unwrap_or(StopReason::SupervisorGone)
            };
            if reason == StopReason::Asked {
                engine.stop_all().await;
                let closing = engine.clone();
                let closed = blocking(move || {
                    closing.0.networks.close();
                    Ok(())
                });
                if let Err(error) = closed.await {
                    tracing::warn!(%error, "network can't be closed");
                }
            }
        }
    }
}

/// Ends the first process of a container whose supervisor was killed on a machine that ran on: nobody reaps it, and its
/// container is about to be recorded as ended.
///
/// The pid may be another's by now. It is the container's only if it began when the container did and is the first of
/// a pid namespace of its own; the descriptor is taken before that is looked at.
fn kill_orphan(record: &Record) {
    const NEAR_NS: u64 = 2_000_000_000;
    let (Some(pid), Some(started)) = (Pid::from_raw(record.state.pid), record.state.started_at) else {
        return;
    };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let began_then = Process::read(record.state.pid).is_some()
        && began(record.state.pid).abs_diff(started) <= NEAR_NS
        && is_first_of_namespace(record.state.pid);
    if began_then {
        tracing::warn!(container = record.id, pid = record.state.pid, "process of a lost container is ended");
        let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
    }
}

/// Whether the process has pid 1 in a namespace below ours (`NSpid` in proc(5) lists one pid per level).
fn is_first_of_namespace(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let levels = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let levels: Vec<&str> = levels.split_whitespace().collect();
    levels.len() > 1 && levels.last() == Some(&"1")
}

/// When a process began, in nanoseconds since the epoch; now when it is gone.
fn began(pid: i32) -> u64 {
    Process::read(pid).map_or_else(clock::now_ns, |process| {
        (process::booted_at() + process.began_after_boot()) * 1_000_000_000
    })
}
