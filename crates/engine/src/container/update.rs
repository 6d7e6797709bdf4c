//! `update`: limits and the restart policy of a container that is there already.

use bollard_stubs::models::{ContainerUpdateBody, ContainerUpdateResponse, HostConfig};

use super::{limits, validate};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::spec::resources;
use crate::state::Record;

impl Engine {
    /// Changes limits, at once where the container runs, and the restart policy.
    ///
    /// # Errors
    /// When what is wanted makes no sense, or not together with what is set; nothing is changed then.
    pub async fn update_container(
        &self,
        id: &str,
        update: ContainerUpdateBody,
    ) -> Result<ContainerUpdateResponse> {
        let wanted = host_config(update)?;
        limits::check(&wanted, limits::Occasion::Update)?;
        validate::check_lifecycle(&wanted)?;
        let warnings = if self.0.limits { Vec::new() } else { resources::warnings(&wanted) };
        let container = self.container(id)?;
        let _operation = container.operation.lock().await;
        if container.removed() {
            return Err(Error::not_found(format!("No such container: {id}")));
        }
        let before = container.record();
        let cannot = |error: Error| {
            Error::new(error.code, format!("Cannot update container {}: {}", before.id, error.message))
        };
        let mut changed = Record::clone(&before);
        merge(&mut changed.host_config, &wanted).map_err(cannot)?;
        if let Some(cgroup) = container.cgroup().filter(|_| before.state.is_running() && self.0.limits) {
            let resources = resources::of(&changed.host_config).map_err(cannot)?;
            blocking(move || cgroup.apply(&resources).map_err(|error| Error::internal("set limits", &error)))
                .await
                .map_err(cannot)?;
        }
        let host = changed.host_config;
        let record = container.change(|record| record.host_config = host);
        let (engine, stored) = (self.clone(), record.clone());
        blocking(move || engine.store(&stored)).await?;
        self.container_event(&record, "update", &[]);
        Ok(ContainerUpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) })
    }
}

/// The same fields as a host configuration has.
fn host_config(update: ContainerUpdateBody) -> Result<HostConfig> {
    let value = serde_json::to_value(update).map_err(|error| Error::internal("read the request", &error))?;
    serde_json::from_value(value).map_err(|error| Error::internal("read the request", &error))
}

/// Takes over what is set, as dockerd does: zero and empty mean "as it is".
fn merge(host: &mut HostConfig, wanted: &HostConfig) -> Result<()> {
    let number = |value: Option<i64>| value.filter(|value| *value != 0);
    let positive = |value: Option<i64>| value.is_some_and(|value| value > 0);
    let conflict = |what: &str, has: &str| {
        Err(Error::conflict(format!(
            "Conflicting options: {what} cannot be updated as {has} has already been set"
        )))
    };
    if positive(wanted.nano_cpus) && positive(host.cpu_period) {
        return conflict("Nano CPUs", "CPU Period");
    }
    if positive(wanted.nano_cpus) && positive(host.cpu_quota) {
        return conflict("Nano CPUs", "CPU Quota");
    }
    if positive(wanted.cpu_period) && positive(host.nano_cpus) {
        return conflict("CPU Period", "NanoCPUs");
    }
    if positive(wanted.cpu_quota) && positive(host.nano_cpus) {
        return conflict("CPU Quota", "NanoCPUs");
    }
    if let Some(memory) = number(wanted.memory)
        && number(wanted.memory_swap).is_none()
        && memory > host.memory_swap.unwrap_or(0)
    {
        return Err(Error::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    for (own, new) in [
        (&mut host.cpu_shares, wanted.cpu_shares),
        (&mut host.nano_cpus, wanted.nano_cpus),
        (&mut host.cpu_period, wanted.cpu_period),
        (&mut host.cpu_quota, wanted.cpu_quota),
        (&mut host.cpu_realtime_period, wanted.cpu_realtime_period),
        (&mut host.cpu_realtime_runtime, wanted.cpu_realtime_runtime),
        (&mut host.memory, wanted.memory),
        (&mut host.memory_swap, wanted.memory_swap),
        (&mut host.memory_reservation, wanted.memory_reservation),
    ] {
        *own = number(new).or(*own);
    }
    for (own, new) in
        [(&mut host.cpuset_cpus, &wanted.cpuset_cpus), (&mut host.cpuset_mems, &wanted.cpuset_mems)]
    {
        if let Some(new) = new.as_ref().filter(|new| !new.is_empty()) {
            *own = Some(new.clone());
        }
    }
    host.blkio_weight = wanted.blkio_weight.filter(|weight| *weight != 0).or(host.blkio_weight);
    if let Some(limit) = wanted.pids_limit {
        // No limit is -1 to whoever sets it.
        host.pids_limit = Some(if limit > 0 { limit } else { -1 });
    }
    if let Some(policy) = &wanted.restart_policy
        && policy.name.is_some_and(|name| !name.to_string().is_empty())
    {
        if host.auto_remove == Some(true)
            && policy.name != Some(bollard_stubs::models::RestartPolicyNameEnum::NO)
        {
            return Err(Error::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        let mut policy = policy.clone();
        policy.maximum_retry_count.get_or_insert(0);
        host.restart_policy = Some(policy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(host: &HostConfig, wanted: &HostConfig) -> Result<HostConfig, String> {
        let mut host = host.clone();
        merge(&mut host, wanted).map(|()| host).map_err(|error| error.message)
    }

    #[test]
    fn what_is_not_named_stays() {
        let host = HostConfig {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            cpu_shares: Some(512),
            pids_limit: Some(10),
            ..HostConfig::default()
        };
        let wanted = HostConfig { memory: Some(32 << 20), cpu_shares: Some(0), ..HostConfig::default() };
        let new = merged(&host, &wanted).unwrap();
        assert_eq!((new.memory, new.cpu_shares, new.pids_limit), (Some(32 << 20), Some(512), Some(10)));
        let new = merged(&host, &HostConfig { pids_limit: Some(0), ..HostConfig::default() }).unwrap();
        assert_eq!(new.pids_limit, Some(-1));
    }

    #[test]
    fn what_contradicts_the_present_is_refused() {
        let nano = HostConfig { nano_cpus: Some(1_000_000_000), ..HostConfig::default() };
        let quota = HostConfig { cpu_quota: Some(50_000), ..HostConfig::default() };
        assert_eq!(
            merged(&nano, &quota).unwrap_err(),
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
        );
        assert!(merged(&quota, &nano).is_err());
        let memory = HostConfig { memory: Some(64 << 20), ..HostConfig::default() };
        assert!(merged(&HostConfig::default(), &memory).unwrap_err().contains("update the memoryswap"));
        let both = HostConfig { memory_swap: Some(-1), ..memory };
        assert_eq!(merged(&HostConfig::default(), &both).unwrap().memory_swap, Some(-1));
    }
}
