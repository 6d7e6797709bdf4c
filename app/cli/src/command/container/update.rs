//! `skiff update`.

use bollard_stubs::models::{ContainerUpdateBody, RestartPolicy};
use clap::Args;

use super::config::NO_KERNEL_MEMORY;
use crate::api::Query;
use crate::command::{Context, each, name_in_path};
use crate::error::Error;
use crate::options::{bytes, restart};
use crate::terminal::{print_line, warn};

/// Update configuration of one or more containers
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff update [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Update {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "uint16")]
    blkio_weight: Option<u16>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "int")]
    cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "int")]
    cpu_quota: Option<i64>,
    /// Limit the CPU real-time period in microseconds
    #[arg(long, value_name = "int")]
    cpu_rt_period: Option<i64>,
    /// Limit the CPU real-time runtime in microseconds
    #[arg(long, value_name = "int")]
    cpu_rt_runtime: Option<i64>,
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
    /// Kernel memory limit: without effect, as Linux has none any more
    #[arg(long, value_name = "bytes", value_parser = bytes::parse, hide = true)]
    kernel_memory: Option<i64>,
    /// Memory limit
    #[arg(short = 'm', long, value_name = "bytes", value_parser = bytes::parse)]
    memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "bytes", value_parser = bytes::parse)]
    memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "bytes", value_parser = bytes::parse_swap, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "string", value_parser = restart::parse)]
    restart: Option<RestartPolicy>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

impl Update {
    fn body(&self) -> ContainerUpdateBody {
        ContainerUpdateBody {
            blkio_weight: self.blkio_weight,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_realtime_period: self.cpu_rt_period,
            cpu_realtime_runtime: self.cpu_rt_runtime,
            cpu_shares: self.cpu_shares,
            nano_cpus: self.cpus,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            memory: self.memory,
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            pids_limit: self.pids_limit,
            restart_policy: self.restart.clone(),
            ..ContainerUpdateBody::default()
        }
    }
}

/// Carries `update` out.
pub async fn run(context: &Context, args: &Update) -> Result<(), Error> {
    let body = args.body();
    if args.kernel_memory.is_some() {
        warn(NO_KERNEL_MEMORY);
    } else if body == ContainerUpdateBody::default() {
        return Err(Error::plain("you must provide one or more flags when using this command"));
    }
    let client = context.client().await?;
    each(&args.containers, "", async |name| {
        let path = format!("/containers/{}/update", name_in_path(name));
        let answer = client.post_json(&path, &Query::new(), &body).await?;
        for warning in answer.list("Warnings") {
            warn(format_args!("WARNING: {warning}"));
        }
        print_line(name);
        Ok(())
    })
    .await
}
