//! `stats`: one sampler per container, however many clients listen.
//!
//! A sampler runs while somebody listens. It keeps only its last measurement, so that a slow client misses some instead
//! of having them kept for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard_stubs::models::{ContainerStatsResponse, ContainerStorageStats};
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;

use super::Container;
use super::sample::Sample;
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::options::{StatsOptions, StatsStream};

/// The pause between two measurements.
const PERIOD: Duration = Duration::from_secs(1);

/// Two measurements of a container, one after the other.
#[derive(Debug, Default)]
struct Pair {
    previous: Arc<Sample>,
    now: Arc<Sample>,
}

/// The measurements of one container.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    last: watch::Sender<Arc<Pair>>,
    /// Whether its task runs. Held while a listener comes and while the task looks for listeners.
    runs: Mutex<bool>,
}

impl Engine {
    /// Measures a container, once or every second until it is removed or the stream is dropped.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn container_stats(&self, id: &str, options: StatsOptions) -> Result<StatsStream> {
        let container = self.container(id)?;
        if options.stream {
            let listener = self.listen_to_stats(&container);
            return Ok(stream::unfold((container, listener), |(container, mut listener)| async move {
                listener.changed().await.ok()?;
                if container.removed() {
                    return None;
                }
                let pair = Arc::clone(&listener.borrow_and_update());
                Some((Ok(model(&container, &pair)), (container, listener)))
            })
            .boxed());
        }
        let mut previous = Sample::default();
        if !options.one_shot {
            previous = self.sample(&container).await?;
            if previous.at.is_some() {
                tokio::time::sleep(PERIOD).await;
            }
        }
        let now = Arc::new(self.sample(&container).await?);
        let pair = Pair { previous: Arc::new(previous), now };
        Ok(stream::iter([Ok(model(&container, &pair))]).boxed())
    }

    /// Looks at a container; nothing is seen of one that does not run.
    async fn sample(&self, container: &Arc<Container>) -> Result<Sample> {
        let Ok((pid, _)) = container.process() else { return Ok(Sample::default()) };
        // A cgroup that limits nothing counts nothing either.
        let cgroup = container.cgroup().filter(|_| self.0.limits);
        let host_network = container.record().host_config.network_mode.as_deref() == Some("host");
        blocking(move || {
            let path = cgroup.as_ref().map(|cgroup| cgroup.path());
            Ok(Sample::take(pid, path, !host_network))
        })
        .await
    }

    fn listen_to_stats(&self, container: &Arc<Container>) -> watch::Receiver<Arc<Pair>> {
        let sampler = &container.sampler;
        let mut runs = sampler.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = sampler.last.subscribe();
        if !*runs {
            *runs = true;
            self.0.runtime.spawn(run(self.clone(), Arc::clone(container)));
        }
        listener
    }
}

/// Measures every second while somebody listens; the end of the container is the last it tells.
async fn run(engine: Engine, container: Arc<Container>) {
    let sampler = &container.sampler;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut previous = Arc::new(Sample::default());
    loop {
        ticks.tick().await;
        {
            let mut runs = sampler.runs.lock().unwrap_or_else(PoisonError::into_inner);
            if sampler.last.receiver_count() == 0 {
                *runs = false;
                return;
            }
        }
        let now = match engine.sample(&container).await {
            Ok(now) => Arc::new(now),
            Err(error) => {
                tracing::warn!(%error, container = container.id, "container can't be measured");
                continue;
            }
        };
        let pair = Pair { previous: std::mem::replace(&mut previous, Arc::clone(&now)), now };
        sampler.last.send_replace(Arc::new(pair));
    }
}

fn model(container: &Container, pair: &Pair) -> ContainerStatsResponse {
    let record = container.record();
    let Pair { previous, now } = pair;
    ContainerStatsResponse {
        id: Some(record.id.clone()),
        name: Some(format!("/{}", record.name)),
        os_type: Some("linux".to_owned()),
        read: Some(clock::rfc3339(now.at)),
        preread: Some(clock::rfc3339(previous.at)),
        cpu_stats: Some(now.cpu.clone().unwrap_or_default()),
        precpu_stats: Some(previous.cpu.clone().unwrap_or_default()),
        memory_stats: Some(now.memory.clone().unwrap_or_default()),
        pids_stats: Some(now.pids.clone().unwrap_or_default()),
        blkio_stats: Some(now.block.clone().unwrap_or_default()),
        networks: now.networks.clone(),
        num_procs: Some(0),
        storage_stats: Some(ContainerStorageStats::default()),
    }
}
