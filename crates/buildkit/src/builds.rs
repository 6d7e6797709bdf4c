//! The builds under way, by the names that their clients gave them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skiff_build::Job;
use tokio::sync::watch;

use crate::gateway::Gateway;
use crate::status::Status;

/// How long calls about a build wait for it: they may overtake the one that begins it.
const WAIT: Duration = Duration::from_secs(6);
/// How long a finished build can still be asked about.
const LINGER: Duration = Duration::from_secs(10);

/// One build.
#[derive(Debug)]
pub(crate) struct Build {
    pub status: Status,
    pub job: Job,
    /// Where the client drives the build itself.
    pub gateway: Option<Gateway>,
    /// The frontend that made the result, with its attributes: the last one that was asked for files.
    pub frontend: Mutex<Option<(String, HashMap<String, String>)>>,
    /// Set when the build is to end: by its client's word or absence.
    cancel: watch::Sender<bool>,
}

impl Build {
    pub fn new(status: Status, job: Job, gateway: Option<Gateway>) -> Self {
        Self { status, job, gateway, frontend: Mutex::default(), cancel: watch::Sender::new(false) }
    }

    /// Ends the build.
    pub fn cancel(&self) {
        self.job.cancel();
        self.cancel.send_replace(true);
    }

    /// Notes the frontend of the result.
    pub fn made_by(&self, frontend: &str, attributes: &HashMap<String, String>) {
        // Other requests are about the file: checks, outlines.
        if !attributes.contains_key("requestid") {
            let mut place = self.frontend.lock().unwrap_or_else(PoisonError::into_inner);
            *place = Some((frontend.to_owned(), attributes.clone()));
        }
    }

    /// Ends when the build is to.
    pub async fn cancelled(&self) {
        let mut cancelled = self.cancel.subscribe();
        let _ = cancelled.wait_for(|cancelled| *cancelled).await;
    }
}

/// All builds. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Builds {
    table: Arc<Mutex<HashMap<String, Arc<Build>>>>,
    /// Counts beginnings, for those who wait for one.
    begun: Arc<watch::Sender<u64>>,
}

impl Builds {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Build>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a build; it is left when the answer is dropped. `None`: another one has that name.
    pub fn enter(&self, name: &str, build: Build) -> Option<Running> {
        let build = Arc::new(build);
        let mut table = self.table();
        if table.contains_key(name) {
            return None;
        }
        table.insert(name.to_owned(), build.clone());
        drop(table);
        self.begun.send_modify(|count| *count += 1);
        Some(Running { builds: self.clone(), name: name.to_owned(), build })
    }

    /// Finds a build; waits a little for it.
    pub async fn get(&self, name: &str) -> Option<Arc<Build>> {
        let mut begun = self.begun.subscribe();
        let found = async {
            loop {
                let build = self.find(name);
                match build {
                    Some(build) => return Some(build),
                    None => begun.changed().await.ok()?,
                }
            }
        };
        tokio::time::timeout(WAIT, found).await.ok().flatten()
    }

    /// Finds a build that is there.
    pub fn find(&self, name: &str) -> Option<Arc<Build>> {
        self.table().get(name).cloned()
    }
}

/// A build under way: its end, whichever, is this one's drop.
pub(crate) struct Running {
    builds: Builds,
    name: String,
    pub build: Arc<Build>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.build.cancel();
        self.build.status.finish();
        let (builds, name) = (self.builds.clone(), std::mem::take(&mut self.name));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    // Who asks for its progress a little late gets it.
                    tokio::time::sleep(LINGER).await;
                    builds.table().remove(&name);
                });
            }
            Err(_) => {
                builds.table().remove(&name);
            }
        }
    }
}
