//! The guest before it is saved and after it wakes.
//!
//! Containers stand still in between, by their cgroups: none of their instructions runs before the clock is right, the
//! random pool is another one, and the shared directories are there again. What the guest's own processes do meanwhile is
//! waiting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context;
use skiff_linux_sys::random;
use tokio::sync::watch;

/// Where the guest's cgroups are; those of containers are below directories of this one.
const CGROUPS: &str = "/sys/fs/cgroup";
/// How long containers may take to stand still. One that waits in the kernel does so until it comes out.
const FREEZES: Duration = Duration::from_secs(2);
/// How long they stand still without being told to go on, as this guest counts: whoever wanted to save it is gone.
const LONGEST: Duration = Duration::from_secs(30);
/// How long shared directories may take to come back.
const SHARES_COME: Duration = Duration::from_secs(10);

/// Lets containers stand still and go on.
#[derive(Debug)]
pub struct Sleeper {
    cgroups: PathBuf,
    /// What stands still, and how often it has begun to.
    frozen: Mutex<(Vec<PathBuf>, u64)>,
    /// Whether the shared directories are served over the present link.
    shares: watch::Sender<bool>,
}

impl Sleeper {
    /// The guest's.
    pub fn new() -> Self {
        Self::below(Path::new(CGROUPS))
    }

    fn below(cgroups: &Path) -> Self {
        Self { cgroups: cgroups.to_owned(), frozen: Mutex::default(), shares: watch::Sender::new(false) }
    }

    /// Tells whether shared directories are served.
    pub fn set_shares(&self, served: bool) {
        self.shares.send_replace(served);
    }

    /// Prepares for being saved: containers stand still, what is written is on the disk, and memory that nobody needs is
    /// free, so that the host gets it back and need not keep it.
    pub async fn sleep(self: &Arc<Self>) -> anyhow::Result<()> {
        let turn = self.freeze().context("let containers stand still")?;
        let sleeper = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(LONGEST).await;
            if sleeper.thaw_of(turn) {
                tracing::warn!("nobody woke the guest, containers go on");
            }
        });
        self.stand_still().await;
        let work = || -> io::Result<()> {
            rustix::fs::sync();
            // What is clean comes from the disk again when it is wanted.
            fs::write("/proc/sys/vm/drop_caches", "3")?;
            fs::write("/proc/sys/vm/compact_memory", "1")
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await.unwrap_or(Ok(())) {
            tracing::debug!(%error, "memory is not freed");
        }
        Ok(())
    }

    /// Stirs the random pool, and lets containers go on as soon as the shared directories are there. The host serves those
    /// once it has its answer, so nobody waits for them here.
    pub fn wake(self: &Arc<Self>, seed: &[u8]) -> anyhow::Result<()> {
        let reseeded = random::reseed(seed).context("stir the random pool");
        let (sleeper, turn) = (Arc::clone(self), self.turn());
        if !self.frozen().0.is_empty() {
            tokio::spawn(async move {
                let mut shares = sleeper.shares.subscribe();
                let come = tokio::time::timeout(SHARES_COME, shares.wait_for(|served| *served)).await;
                if come.is_err() {
                    tracing::warn!("shared directories do not come back, containers go on without");
                }
                sleeper.thaw_of(turn);
            });
        }
        reseeded
    }

    fn frozen(&self) -> std::sync::MutexGuard<'_, (Vec<PathBuf>, u64)> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> u64 {
        self.frozen().1
    }

    /// Freezes every cgroup but the root, where the guest's own processes are. Containers that are paused have that in
    /// cgroups of their own, further down, and stay so.
    fn freeze(&self) -> io::Result<u64> {
        let mut frozen = self.frozen();
        frozen.1 += 1;
        for entry in fs::read_dir(&self.cgroups)? {
            let path = entry?.path();
            if path.join("cgroup.freeze").is_file() && !frozen.0.contains(&path) {
                fs::write(path.join("cgroup.freeze"), "1")?;
                frozen.0.push(path);
            }
        }
        Ok(frozen.1)
    }

    /// Lets containers go on that stand still since this turn, and tells whether they did.
    fn thaw_of(&self, turn: u64) -> bool {
        let mut frozen = self.frozen();
        if frozen.1 != turn {
            return false;
        }
        frozen.1 += 1;
        for path in frozen.0.drain(..) {
            if let Err(error) = fs::write(path.join("cgroup.freeze"), "0") {
                tracing::error!(%error, path = %path.display(), "containers stand still");
            }
        }
        true
    }

    async fn stand_still(&self) {
        let all: Vec<PathBuf> = self.frozen().0.iter().map(|path| path.join("cgroup.events")).collect();
        let stands = |events: &PathBuf| {
            // One that is gone has nothing that could move.
            fs::read_to_string(events).map_or(true, |text| text.lines().any(|line| line == "frozen 1"))
        };
        let deadline = tokio::time::Instant::now() + FREEZES;
        while !all.iter().all(stands) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_still_goes_on_and_nothing_else_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["skiff", "other"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("cgroup.freeze"), "0").unwrap();
        }
        fs::create_dir(directory.path().join("no-cgroup")).unwrap();
        let state =
            |name: &str| fs::read_to_string(directory.path().join(name).join("cgroup.freeze")).unwrap();
        let sleeper = Sleeper::below(directory.path());
        let turn = sleeper.freeze().unwrap();
        assert_eq!((state("skiff"), state("other")), ("1".into(), "1".into()));
        fs::create_dir(directory.path().join("later")).unwrap();
        fs::write(directory.path().join("later/cgroup.freeze"), "1").unwrap();
        assert!(sleeper.thaw_of(turn));
        assert_eq!((state("skiff"), state("other"), state("later")), ("0".into(), "0".into(), "1".into()));
        let later = sleeper.freeze().unwrap();
        assert!(!sleeper.thaw_of(turn), "a later sleep is not ended by the first one's patience");
        assert_eq!(state("skiff"), "1");
        assert!(sleeper.thaw_of(later) && sleeper.frozen().0.is_empty());
    }
}
