//! What happens when a container's first process has ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard_stubs::models::RestartPolicyNameEnum;
use skiff_supervisor::ExitStatus;

use super::start::Cause;
use super::{Container, Run};
use crate::clock;
use crate::engine::Engine;
use crate::error::chain;
use crate::health::HealthStatus;
use crate::state::{MountKind, Record, State, Status};

/// Docker's back-off: doubles from here …
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// … to here …
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// … and begins anew after a run of this length.
const STEADY: Duration = Duration::from_secs(10);

/// Containers of `--rm` are there for so long after their start. dockerd never removes one faster, and clients that ask
/// for its exit only after the start count on that.
const LEAST_AGE: Duration = Duration::from_millis(500);

impl Engine {
    /// The supervisor's report that a container has ended. Blocks.
    pub(crate) fn container_exited(&self, key: &str, status: &ExitStatus) {
        let Some(container) = self.0.registry.by_id(key) else {
            // A step of a build, or nobody's.
            self.0.steps.ended(key, status.code);
            self.forget(key);
            return;
        };
        let _operation = container.operation.blocking_lock();
        if !container.record().state.is_running() {
            // A failed start's child, or an exit that was seen before.
            self.forget(key);
            return;
        }
        self.finish(&container, status.code, clock::to_ns(status.at));
        self.forget(key);
    }

    pub(crate) fn forget(&self, key: &str) {
        if let Err(error) = self.0.config.supervisor.forget(key) {
            tracing::warn!(error = chain(&error), container = key, "supervisor keeps an ended process");
        }
    }

    /// Records the end of a run. The caller holds the operation lock.
    pub(crate) fn finish(&self, container: &Arc<Container>, code: i32, at: u64) {
        self.stop_health(container);
        container.log.drain();
        let run = container.run().take();
        let before = container.record().before.clone();
        if let Some(before) = before.filter(|_| code == skiff_runtime::NEVER_RAN) {
            return self.undo_start(container, run, before);
        }
        let cgroup = run.as_ref().and_then(|run| run.cgroup.clone());
        let oom = cgroup.as_ref().is_some_and(|cgroup| cgroup.oom_killed().unwrap_or(false));
        let pause = if self.ending() { None } else { restart_pause(container, code, at) };
        let endpoints = container.record().endpoints.clone();
        let mut lasted = 0;
        let record = container.change(|record| {
            let state = &mut record.state;
            lasted = at.saturating_sub(state.started_at.unwrap_or(at)) / 1_000_000_000;
            state.status = if pause.is_some() { Status::Restarting } else { Status::Exited };
            state.pid = 0;
            state.exit_code = code;
            state.finished_at = Some(at.max(state.started_at.unwrap_or(0)));
            state.oom_killed = oom;
            if let Some(health) = &mut state.health {
                // As with Docker: nobody vouches for what does not run.
                health.status = HealthStatus::Unhealthy;
            }
            record.before = None;
            record.endpoints.clear();
            record.ports.clear();
        });
        if let Err(error) = self.store(&record) {
            // The supervisor's word is gone with this; the state in memory stays true until a later commit.
            tracing::error!(%error, container = record.id, "exit can't be stored");
        }
        // Ports, stdin and volumes are free before anybody is told, and so are networks for their removal.
        drop(run);
        self.close_ports(&record.id);
        for endpoint in &endpoints {
            if let Ok(network) = self.network_of(endpoint) {
                network.leave(endpoint);
            }
        }
        self.release_mounts(&record);
        self.0.execs.container_ended(&record.id);
        if oom {
            self.container_event(&record, "oom", &[]);
        }
        // In dockerd's order: what it was on and what it had, then itself.
        self.network_events(&record, &endpoints, "disconnect");
        for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            let name = mount.name.as_deref().unwrap_or("");
            self.volume_event(name, "unmount", &[("container", &record.id)]);
        }
        self.container_event(
            &record,
            "die",
            &[("exitCode", &code.to_string()), ("execDuration", &lasted.to_string())],
        );
        container.changes.send_modify(|change| {
            change.running = pause.is_some();
            change.exits += 1;
            change.exit_code = code;
        });
        // Last of all: a client whose stream ends finds the container ended.
        container.log.end();
        if !endpoints.is_empty() {
            // The kernel takes milliseconds to remove a link; nobody waits for them. The address is free afterwards.
            let engine = self.clone();
            self.0.runtime.spawn_blocking(move || engine.release_endpoints(&endpoints));
        }
        if let Some(cgroup) = cgroup {
            let leaving = Arc::clone(&container.leaving).blocking_lock_owned();
            self.0.runtime.spawn_blocking(move || {
                if let Err(error) = cgroup.remove() {
                    tracing::warn!(error = chain(&error), "cgroup can't be removed");
                }
                drop(leaving);
            });
        }
        if let Some(pause) = pause {
            self.restart_after(container, pause, Cause::Policy);
        } else if record.host_config.auto_remove == Some(true) && !container.kept.load(Ordering::Relaxed) {
            self.remove_after_exit(record.id.clone());
        }
    }

    /// Takes back a start that an engine was killed in before it let the process go. Nobody was told of it.
    fn undo_start(&self, container: &Arc<Container>, run: Option<Run>, before: State) {
        let endpoints = container.record().endpoints.clone();
        let restarts = before.status == Status::Restarting;
        let record = container.change(|record| {
            record.restart_count -= i64::from(restarts);
            record.state = before;
            record.before = None;
            record.endpoints.clear();
            record.ports.clear();
        });
        tracing::info!(container = record.id, "start of a killed engine is taken back");
        self.store_later(&record);
        let cgroup = run.and_then(|run| run.cgroup);
        container.changes.send_modify(|change| {
            change.running = restarts;
            change.failures += 1;
            change.exit_code = record.state.exit_code;
        });
        container.log.end();
        self.release_endpoints(&endpoints);
        if let Some(cgroup) = cgroup
            && let Err(error) = cgroup.remove()
        {
            tracing::warn!(error = chain(&error), "cgroup can't be removed");
        }
        if restarts {
            self.restart_after(container, Duration::ZERO, Cause::Policy);
        }
    }

    /// Starts again after a pause, unless somebody has meanwhile stopped, started or removed the container.
    pub(crate) fn restart_after(&self, container: &Arc<Container>, pause: Duration, cause: Cause) {
        let (engine, container) = (self.clone(), Arc::clone(container));
        let exits = container.changes.borrow().exits;
        self.0.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            let _operation = container.operation.lock().await;
            let meant = container.changes.borrow().exits == exits;
            if container.record().state.status != Status::Restarting || container.removed() || !meant {
                return;
            }
            if let Err(error) = engine.start_locked(&container, cause).await {
                tracing::warn!(%error, container = container.id, "restart failed");
            }
        });
    }

    /// Removes a container that ended by itself, soon: a client that has just started it, and asks next for its exit
    /// or its output, still finds it. Whoever waits for the removal waits for nothing else.
    pub(crate) fn remove_after_exit(&self, id: String) {
        let Some(container) = self.0.registry.by_id(&id) else { return };
        let engine = self.clone();
        let record = container.record();
        let age = clock::now_ns().saturating_sub(record.state.started_at.unwrap_or_default());
        let left = match record.stopped_by_user {
            true => Duration::ZERO,
            false => LEAST_AGE.saturating_sub(Duration::from_nanos(age)),
        };
        self.0.runtime.spawn(async move {
            let _ = tokio::time::timeout(left, container.removal_awaited.notified()).await;
            if let Err(error) = engine.remove_ended(&container).await {
                tracing::warn!(%error, container = id, "container can't be removed after its end");
            }
        });
    }
}

/// How long to wait before the restart policy starts the container again; `None` when it does not.
fn restart_pause(container: &Container, code: i32, at: u64) -> Option<Duration> {
    let record = container.record();
    if !restarts(&record, code) {
        return None;
    }
    let ran = Duration::from_nanos(at.saturating_sub(record.state.started_at.unwrap_or(at)));
    if ran >= STEADY {
        container.hasty.store(0, Ordering::Relaxed);
    }
    Some(back_off(container.hasty.fetch_add(1, Ordering::Relaxed)))
}

/// Docker's back-off after so many hasty runs before this one.
fn back_off(hasty: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2u32.saturating_pow(hasty)).min(LONGEST_PAUSE)
}

/// Whether the restart policy starts the container again after a run that ended with `code`.
fn restarts(record: &Record, code: i32) -> bool {
    let Some(policy) = record.host_config.restart_policy.as_ref().filter(|_| !record.stopped_by_user) else {
        return false;
    };
    let most = policy.maximum_retry_count.unwrap_or(0);
    match policy.name {
        Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED) => true,
        Some(RestartPolicyNameEnum::ON_FAILURE) => code != 0 && (most == 0 || record.restart_count < most),
        Some(RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY) | None => false,
    }
}

/// Whether the policy starts a container when the engine begins, as after a reboot.
pub(crate) fn starts_with_engine(record: &Record) -> bool {
    let policy = record.host_config.restart_policy.as_ref().and_then(|policy| policy.name);
    // What was never started, or could not be, has no run to be repeated.
    record.state.started_at.is_some()
        && (policy == Some(RestartPolicyNameEnum::ALWAYS) || restarts(record, record.state.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_from_a_tenth_of_a_second_to_a_minute() {
        let pauses: Vec<u128> = (0..12).map(|hasty| back_off(hasty).as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[9..], [51_200, 60_000, 60_000]);
        assert_eq!(back_off(u32::MAX), LONGEST_PAUSE);
    }
}
