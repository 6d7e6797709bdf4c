//! The list of running containers, asked for anew only when something has happened.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http_body_util::BodyExt;
use skiff_machine::{Machine, Phase};
use tokio::{sync::Mutex, task::JoinHandle};

use super::{Api, ApiError, Container};

const LIST: &str = "/containers/json";
/// Containers that come and go, and networks that they come on.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";

/// What the engine runs now, as far as was heard.
pub(crate) struct Containers {
    machine: Machine,
    known: Mutex<Option<Arc<Vec<Container>>>>,
    /// Set by whatever happened since the list was asked for.
    stale: Arc<AtomicBool>,
    /// Listens to the engine while there is a list to be kept true.
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Containers {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            known: Mutex::default(),
            stale: Arc::new(AtomicBool::new(true)),
            listener: Mutex::default(),
        }
    }

    /// The engine, if it runs now: this wakes nobody.
    pub(crate) fn api(&self) -> Option<Api> {
        self.machine.running_link().map(Api::new)
    }

    /// The running containers, paused ones among them; none of a guest that does not run.
    pub(crate) async fn running(&self) -> Result<Arc<Vec<Container>>, ApiError> {
        let Some(api) = self.api() else { return Ok(Arc::default()) };
        self.listen(&api).await?;
        let mut known = self.known.lock().await;
        if let Some(list) = known.as_ref().filter(|_| !self.stale.swap(false, Ordering::AcqRel)) {
            return Ok(Arc::clone(list));
        }
        let answer = api.get(LIST).await.inspect_err(|_| self.stale.store(true, Ordering::Release))?;
        let list: Vec<Container> = answer
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Container::read)
            .filter(|container| container.runs() || container.is_paused())
            .collect();
        let list = Arc::new(list);
        *known = Some(Arc::clone(&list));
        Ok(list)
    }

    /// Makes sure that somebody hears of changes. Events are only signs: a list is asked for when one is wanted.
    async fn listen(&self, api: &Api) -> Result<(), ApiError> {
        let mut listener = self.listener.lock().await;
        if listener.as_ref().is_some_and(|task| !task.is_finished()) {
            return Ok(());
        }
        let mut events = api.open(EVENTS).await?.into_body();
        self.stale.store(true, Ordering::Release);
        let stale = Arc::clone(&self.stale);
        *listener = Some(tokio::spawn(async move {
            // What is said does not matter; that something is said does. The end is a change too.
            while let Some(Ok(_)) = events.frame().await {
                stale.store(true, Ordering::Release);
            }
            stale.store(true, Ordering::Release);
        }));
        Ok(())
    }

    /// Whether the guest runs.
    pub(crate) fn is_running(&self) -> bool {
        self.machine.snapshot().phase == Phase::Running
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if let Some(task) = self.listener.get_mut().take() {
            task.abort();
        }
    }
}
