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

/// The cache is cut down to so many bytes, as long as nobody says otherwise.
const KEEP_STORAGE: u64 = 20 << 30;

/// Steps that run, by the supervisor's name for them.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    all: Mutex<HashMap<String, oneshot::Sender<i32>>>,
}

impl Steps {
    fn wait_for(&self, key: &str) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), sender);
        receiver
    }

    fn forget(&self, key: &str) {
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
    /// Opens the solver.
    pub(crate) fn open_solver(&self) -> Result<Solver> {
        let config = skiff_build::Config {
            root: self.0.config.root.join("build"),
            images: self.0.config.images.clone(),
            runner: Arc::new(step::Runner(Arc::downgrade(&self.0))),
            keep_storage: KEEP_STORAGE,
        };
        Solver::open(config).map_err(|error| build_error(&error))
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
