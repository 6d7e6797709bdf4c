//! Catching what leaves the networks, on a machine that has no network card to send it through.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skiff_network::outside::Catcher;
use tokio::sync::Notify;

use super::Networks;
use crate::config::Egress;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// When it is set up without anybody having asked: the first call to the engine is answered by then, and does not share
/// the processor with the kernel's loading of modules.
const UNASKED: Duration = Duration::from_secs(1);

/// The packet filter that hands what leaves to the program that carries it.
pub(super) struct CaughtOutside {
    catcher: Catcher,
    wanted: Notify,
    /// Whether the kernel has the table.
    applied: AtomicBool,
}

impl CaughtOutside {
    /// Names the table, where there is to be one.
    pub fn of(egress: Egress, owner: &str) -> Option<Self> {
        (egress == Egress::Caught).then(|| Self {
            catcher: Catcher::new(format!("skiff_out_{owner}")),
            wanted: Notify::new(),
            applied: AtomicBool::new(false),
        })
    }
}

impl Networks {
    /// A container is about to have a way out.
    pub fn want_outside(&self) {
        if let Some(outside) = &self.outside {
            outside.wanted.notify_one();
        }
    }

    /// Brings the table into agreement with the networks, once it is there.
    pub(super) fn update_outside(&self) -> Result<()> {
        match &self.outside {
            Some(outside) if outside.applied.load(Ordering::Acquire) => self.apply_outside(),
            _ => Ok(()),
        }
    }

    fn apply_outside(&self) -> Result<()> {
        let Some(outside) = &self.outside else { return Ok(()) };
        outside.applied.store(true, Ordering::Release);
        let closed: Vec<String> = self
            .list()
            .iter()
            .filter(|network| network.record().internal)
            .map(|network| network.record().bridge.clone())
            .collect();
        outside
            .catcher
            .apply(&closed)
            .map_err(|error| Error::internal("catch what leaves the networks", &error))
    }
}

impl Engine {
    /// Sets the way out up in the background: when the first container wants it, or after a moment.
    pub(crate) fn watch_outside(&self) {
        if self.0.networks.outside.is_none() {
            return;
        }
        let engine = self.clone();
        self.0.runtime.spawn(async move {
            if let Some(outside) = &engine.0.networks.outside {
                let _ = tokio::time::timeout(UNASKED, outside.wanted.notified()).await;
            }
            let started = std::time::Instant::now();
            let work = engine.clone();
            let applied = blocking(move || {
                let _change = work.0.networks.change();
                work.0.networks.apply_outside()
            });
            match applied.await {
                Ok(()) => {
                    tracing::info!(
                        elapsed_ms = started.elapsed().as_millis() as u64,
                        "what leaves is caught"
                    );
                }
                Err(error) => tracing::error!(%error, "containers have no way out"),
            }
        });
    }
}
