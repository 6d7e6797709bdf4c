//! Other firewalls of a native engine's machine, which dockerd or ufw may have set up before or after it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use skiff_network::{LetThrough, remove_stale_chains};

use crate::error::chain;

/// How long what was seen is believed when a container starts.
const FRESH: Duration = Duration::from_secs(5);

/// Why somebody looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The bridges have changed.
    Now,
    /// A container has started: another firewall may have come.
    Sometimes,
}

/// Our chain in the other firewalls.
pub(super) struct Beside {
    chain: LetThrough,
    /// Held while they are changed: when it was last done.
    last: Mutex<Option<Instant>>,
}

impl Beside {
    pub fn new(owner: &str) -> Self {
        Self { chain: LetThrough::new(owner), last: Mutex::default() }
    }

    pub fn apply(&self, bridges: &[String], look: Look) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if look == Look::Sometimes && last.is_some_and(|last| last.elapsed() < FRESH) {
            return;
        }
        if last.replace(Instant::now()).is_none() {
            match remove_stale_chains() {
                Ok(removed) if removed.is_empty() => {}
                Ok(removed) => tracing::info!(?removed, "chains of killed engines removed"),
                Err(error) => tracing::warn!(error = chain(&error), "stale chains can't be removed"),
            }
        }
        if let Err(error) = self.chain.apply(bridges) {
            tracing::warn!(
                error = chain(&error),
                "another firewall of this machine may drop packets of containers"
            );
        }
    }

    pub fn remove(&self) {
        let _last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.chain.remove();
    }
}
