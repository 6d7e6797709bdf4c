//! The guest that stands before its data disk: everything runs that does not need the disk, and the host decides what is next.
//!
//! With `skiff.hold` on the kernel's command line PID 1 leaves the disk alone and starts the services. The engine gets as far
//! as it can without its root and waits; the router answers the host. The host may save the guest here, as a template
//! that later starts begin with; its `wake` brings the time, a seed and the disk, and lets the engine go on. Until
//! then nothing here draws random numbers for lasting use: each start from one template must draw its own.
//!
//! ```text
//! /run/skiff/held      the disk's device; the guest stands here as long as the file exists
//! /run/skiff/waiting   the engine is as far as it gets
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::data_disk::{self, Detached};

/// How often the engine looks whether it may go on.
const LOOK: Duration = Duration::from_millis(2);
/// How long the engine may take to get as far as it can.
const READY: Duration = Duration::from_secs(60);

/// The two marks.
#[derive(Debug, Clone)]
pub struct Held {
    mark: PathBuf,
}

impl Held {
    /// The marks beside this path.
    pub fn at(mark: &Path) -> Self {
        Self { mark: mark.to_owned() }
    }

    fn waiting(&self) -> PathBuf {
        self.mark.with_file_name("waiting")
    }

    /// Lets the guest stand here.
    pub fn begin(&self, disk: &Detached) -> io::Result<()> {
        fs::write(&self.mark, disk.device())
    }

    /// Whether it does.
    pub fn holds(&self) -> bool {
        self.mark.exists()
    }

    /// Waits until the engine may use its root. One that is started again later never waits.
    pub fn wait(&self) {
        if !self.holds() {
            return;
        }
        if let Err(error) = fs::write(self.waiting(), "") {
            tracing::warn!(%error, "the guest is no template");
        }
        while self.holds() {
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the engine waits: then the guest may be saved as a template.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            if !self.holds() {
                bail!("the guest has opened its data disk");
            }
            if self.waiting().exists() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the engine does not come");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Opens the disk and lets the engine go on. Of several at once one does it, and all wait: a daemon may die while it asks,
    /// and the next one asks again.
    pub fn end(&self) -> anyhow::Result<()> {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let device = match fs::read_to_string(&self.mark) {
            Ok(device) => device,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context("find the data disk"),
        };
        Detached::of(&device).attach()?;
        // A router that died in between may have come so far.
        if !data_disk::is_mounted().context("look at the data disk")? {
            data_disk::open()?;
        }
        fs::remove_file(&self.mark).context("let the engine go on")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_engine_waits_while_the_mark_is_there_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let held = Held::at(&directory.path().join("held"));
        held.wait();
        assert!(held.ready().await.is_err(), "nobody holds it");
        held.begin(&Detached::of("virtio1")).unwrap();
        let engine = held.clone();
        let waits = std::thread::spawn(move || engine.wait());
        held.ready().await.unwrap();
        assert!(!waits.is_finished());
        fs::remove_file(directory.path().join("held")).unwrap();
        waits.join().unwrap();
        assert!(held.end().is_ok(), "what goes on already may go on");
    }
}
