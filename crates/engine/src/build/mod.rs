//! Builds: the engine runs the solver's steps, and answers for its cache.

mod classic;
mod step;
mod usage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use skiff_build::Solver;
use tokio::sync::oneshot;

pub use classic::BuildProgress;
pub use usage::{BuildCacheRecord, PruneBuilds, PrunedBuilds};

use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::state::Record;

/// The cache is cut down to so many bytes, as long as nobody says otherwise.
const KEEP_STORAGE: u64 = 20 << 30;

/// Steps that run, by the supervisor's name for them.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    all: Mutex<HashMap<String, oneshot::Sender<i32>>>,
    /// What they are run as, while they are: their resolvers ask for it.
    records: Mutex<HashMap<String, Arc<Record>>>,
}

impl Steps {
    fn wait_for(&self, key: &str) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), sender);
        receiver
    }

    fn begin(&self, record: &Record) {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.id.clone(), Arc::new(record.clone()));
    }

    /// What a step is run as.
    pub fn record(&self, key: &str) -> Option<Arc<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn forget(&self, key: &str) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Reports an end; says whether it was a step's.
    pub fn ended(&self, key: &str, code: i32) -> bool {
        let waiting = self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        match waiting {
            Some(waiting) => {
                // A step that was given up has nobody waiting.
                let _ = waiting.send(code);
                true
            }
            None => false,
        }
    }
}

impl Engine {
    /// Opens the solver. A directory that it can't use is put aside: the cache is a loss, an engine that does not start would
    /// be a greater one.
    pub(crate) fn open_solver(&self) -> Result<Solver> {
        let config = self.solver_config();
        let root = config.root.clone();
        let error = match Solver::open(config) {
            Ok(solver) => return Ok(solver),
            Err(error) => error,
        };
        let aside = root.with_extension(format!("broken-{}", crate::clock::now_ns()));
        match std::fs::rename(&root, &aside) {
            Ok(()) => {
                tracing::warn!(%error, path = %aside.display(), "build cache is unusable, put aside");
                Solver::open(self.solver_config()).map_err(|error| build_error(&error))
            }
            Err(rename) => {
                tracing::warn!(error = %rename, path = %root.display(), "build cache can't be put aside");
                Err(build_error(&error))
            }
        }
    }

    fn solver_config(&self) -> skiff_build::Config {
        skiff_build::Config {
            root: self.0.config.root.join("build"),
            images: self.0.config.images.clone(),
            runner: Arc::new(step::Runner(Arc::downgrade(&self.0))),
            keep_storage: KEEP_STORAGE,
        }
    }

    /// The solver, for those who speak BuildKit's protocol.
    ///
    /// # Errors
    /// When its cache can't be opened.
    pub fn solver(&self) -> Result<Solver> {
        let mut solver = self.0.solver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(solver) = &*solver {
            return Ok(solver.clone());
        }
        let opened = self.open_solver()?;
        *solver = Some(opened.clone());
        Ok(opened)
    }
}

/// The solver's error as the engine's.
pub(crate) fn build_error(error: &skiff_build::Error) -> Error {
    use skiff_build::Code as Theirs;
    let code = match error.code() {
        Theirs::InvalidArgument => Code::InvalidArgument,
        Theirs::NotFound => Code::NotFound,
        Theirs::Denied => Code::Forbidden,
        Theirs::Unavailable => Code::Unavailable,
        _ => Code::Internal,
    };
    Error::new(code, error.to_string())
}
