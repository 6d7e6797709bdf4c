//! The task that checks one running container.

use std::sync::Arc;
use std::time::Duration;

use super::{Check, Health, HealthStatus, NO_EXIT, Plan};
use crate::clock;
use crate::container::Container;
use crate::engine::Engine;
use crate::process;
use crate::state::Status;

impl Engine {
    /// Begins to check a container that runs and is not paused; a monitor that is there already is replaced.
    pub(crate) fn monitor_health(&self, container: &Arc<Container>) {
        let record = container.record();
        let Some(plan) = Plan::of(&record.config).filter(|_| record.state.status == Status::Running) else {
            return;
        };
        let (engine, ours) = (self.clone(), Arc::clone(container));
        let task = self.0.runtime.spawn(async move { engine.check_again_and_again(&ours, &plan).await });
        if let Some(old) = container.monitor().replace(task.abort_handle()) {
            old.abort();
        }
    }

    /// Ends the checks of a container; a probe that runs is killed.
    pub(crate) fn stop_health(&self, container: &Container) {
        if let Some(task) = container.monitor().take() {
            task.abort();
        }
    }

    async fn check_again_and_again(&self, container: &Arc<Container>, plan: &Plan) {
        let starts = container.changes.borrow().starts;
        loop {
            let record = container.record();
            let began = record.state.started_at.unwrap_or(0);
            let status = record.state.health.as_ref().map_or(HealthStatus::Starting, |health| health.status);
            let pid = record.state.pid;
            let age = || {
                process::age(pid)
                    .unwrap_or_else(|| Duration::from_nanos(clock::now_ns().saturating_sub(began)))
            };
            let pause = plan.pause(status, age());
            drop(record);
            tokio::time::sleep(pause).await;
            let age = age();
            let start = clock::now_ns();
            let probed = self.probe(container, &plan.command, plan.timeout).await;
            let (exit_code, output) = probed.unwrap_or_else(|error| (NO_EXIT, error.message));
            let check = Check { start, end: clock::now_ns(), exit_code, output };
            // A monitor of a run that is over says nothing about the next one.
            if container.changes.borrow().starts != starts
                || container.record().state.status != Status::Running
            {
                return;
            }
            self.record_check(container, check, plan, age);
        }
    }

    fn record_check(&self, container: &Arc<Container>, check: Check, plan: &Plan, age: Duration) {
        let (mut before, mut after) = (HealthStatus::Starting, HealthStatus::Starting);
        let record = container.change(|record| {
            let health = record.state.health.get_or_insert_with(|| Health::begin(None));
            before = health.status;
            health.record(check, plan, age);
            after = health.status;
        });
        self.store_later(&record);
        if before != after {
            self.container_event(&record, &format!("health_status: {}", after.name()), &[]);
        }
    }
}
