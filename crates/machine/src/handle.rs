//! How the rest of the daemon sees the guest.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use skiff_link::{Incoming, Link};
use skiff_settings::Paths;
use skiff_vm::Description;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    Error, Phase, SavedInfo, backend::Selected, control, driver::Driver, saved::Store, template::Templates,
};

/// Takes the streams that the guest opens; called on the machine's task, so it must not block.
pub type IncomingHandler = Arc<dyn Fn(Link, Incoming) + Send + Sync>;

/// What a machine needs to know.
#[derive(Clone)]
pub struct Options {
    /// Where everything is.
    pub paths: Paths,
    /// Registry mirrors beside those of the settings.
    pub registry_mirrors: Vec<String>,
    /// Public keys that may log in to the guest.
    pub authorized_keys: Vec<String>,
    /// Takes the streams that the guest opens.
    pub incoming: IncomingHandler,
    /// How long a booted guest's agent may take to speak.
    pub agent_deadline: Duration,
    /// How long a guest may be out of reach before it is given up.
    pub relink_deadline: Duration,
    /// How long a guest may take to shut itself down.
    pub shutdown_grace: Duration,
    /// How long the agent of a guest that was woken may take to speak; then it is booted.
    pub wake_deadline: Duration,
    /// The same of one that began with the template, which is at least given some times what a boot took.
    pub template_deadline: Duration,
    /// Counts connections of the guest's that a sleep would end; one that is only idle is not put to sleep then.
    pub busy: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Options {
    /// Makes options with the usual deadlines.
    pub fn new(paths: Paths, incoming: IncomingHandler) -> Self {
        Self {
            paths,
            registry_mirrors: Vec::new(),
            authorized_keys: Vec::new(),
            incoming,
            agent_deadline: Duration::from_secs(90),
            relink_deadline: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(25),
            wake_deadline: Duration::from_secs(30),
            template_deadline: Duration::from_secs(10),
            busy: Arc::new(|| 0),
        }
    }
}

/// A step of a start or stop that has been reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is happening, for people.
    pub step: String,
    /// Since the start or stop began.
    pub elapsed: Duration,
}

/// What is known about the guest at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Where it is in its life.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// Why it failed, or why it stopped where nobody asked for it.
    pub reason: Option<Arc<Error>>,
    /// What runs it.
    pub description: Option<Description>,
    /// What the agent said of itself.
    pub hello: Option<control::Hello>,
    /// How long the last start took.
    pub boot: Option<Duration>,
    /// Whether the last start was a wake.
    pub woken: bool,
    /// Why the last start was not a wake although the guest was asleep.
    pub wake_note: Option<String>,
    /// Whether the last start began with the template.
    pub templated: bool,
    /// Why the last start did not begin with the template, where there is something to tell.
    pub template_note: Option<String>,
    /// The last step of a start that is under way.
    pub progress: Option<Progress>,
}

impl Snapshot {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Stopped,
            since: Instant::now(),
            reason: None,
            description: None,
            hello: None,
            boot: None,
            woken: false,
            wake_note: None,
            templated: false,
            template_note: None,
            progress: None,
        }
    }
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, Arc<Error>>>;

/// What the machine's task is asked for.
pub(crate) enum Command {
    Lease { retry_accelerator: bool, answer: Answer<Lease> },
    Stop { asleep: Sleeper, answer: Answer<()> },
    Sleep { answer: Answer<()> },
}

/// What becomes of a guest that is asleep when all is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sleeper {
    /// It is thrown away.
    Ends,
    /// It sleeps on.
    Stays,
}

/// A handle on the guest; clones are handles on the same one.
#[derive(Clone)]
pub struct Machine {
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Snapshot>,
    /// Apart from the snapshot, since whoever holds a link keeps its session alive.
    link: watch::Receiver<Option<Link>>,
    progress: broadcast::Sender<Progress>,
    connections: Arc<Connections>,
    backend: &'static str,
    cannot_save: Option<&'static str>,
    store: Store,
    templates: Templates,
}

impl Machine {
    /// Starts the task that owns the guest, which at once looks for one that still runs.
    ///
    /// The task ends, and leaves the guest as it is, when the last handle is dropped.
    pub fn spawn(options: Options, selected: Selected) -> Self {
        let (commands, receiver) = mpsc::channel(256);
        let (snapshot_sender, snapshot) = watch::channel(Snapshot::new());
        let (link_sender, link) = watch::channel(None);
        let (progress, _) = broadcast::channel(64);
        let connections = Arc::new(Connections::default());
        let backend = selected.backend.name();
        let cannot_save = selected.backend.cannot_save();
        let store = Store::new(&options.paths);
        let templates = Templates::new(&options.paths);
        let driver = Driver::new(
            options,
            selected,
            snapshot_sender,
            link_sender,
            progress.clone(),
            Arc::clone(&connections),
        );
        tokio::spawn(driver.run(receiver));
        Self { commands, snapshot, link, progress, connections, backend, cannot_save, store, templates }
    }

    /// Gives the backend's name.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// Gives the link to the running guest, starting it if needed, and keeps the guest awake while it is held.
    ///
    /// # Errors
    /// Fails when the guest does not start; every caller that waited gets the same error.
    pub async fn lease(&self) -> Result<Lease, Arc<Error>> {
        self.request(|answer| Command::Lease { retry_accelerator: false, answer }).await
    }

    /// Starts the guest if it does not run.
    ///
    /// # Errors
    /// Fails when the guest does not start.
    pub async fn start(&self, retry_accelerator: bool) -> Result<(), Arc<Error>> {
        self.request(|answer| Command::Lease { retry_accelerator, answer }).await.map(drop)
    }

    /// Stops the guest if it runs, and calls off a start that is under way; one that is asleep is thrown away.
    ///
    /// # Errors
    /// Fails when the guest's process cannot be ended.
    pub async fn stop(&self) -> Result<(), Arc<Error>> {
        self.request(|answer| Command::Stop { asleep: Sleeper::Ends, answer }).await
    }

    /// Stops the guest if it runs, and lets one that is asleep sleep on.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub async fn rest(&self) -> Result<(), Arc<Error>> {
        self.request(|answer| Command::Stop { asleep: Sleeper::Stays, answer }).await
    }

    /// Saves the guest with everything that runs in it and ends its process, until somebody needs it.
    ///
    /// # Errors
    /// [`Error::CannotSleep`] when it does not run or cannot be saved; a guest that ran goes on.
    pub async fn suspend(&self) -> Result<(), Arc<Error>> {
        self.request(|answer| Command::Sleep { answer }).await
    }

    /// Tells why guests cannot be saved here; nothing if they can.
    pub fn cannot_save(&self) -> Option<&'static str> {
        self.cannot_save
    }

    /// What the guest that is asleep takes.
    pub fn saved(&self) -> Option<SavedInfo> {
        self.store.info()
    }

    /// What the template takes that starts begin with.
    pub fn template(&self) -> Option<SavedInfo> {
        self.templates.info()
    }

    /// Removes the template; the next boot makes another one.
    ///
    /// # Errors
    /// Fails when its files cannot be removed.
    pub async fn prune(&self) -> Result<(), Arc<Error>> {
        let templates = self.templates.clone();
        match tokio::task::spawn_blocking(move || templates.discard()).await {
            Ok(result) => result.map_err(Arc::new),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    async fn request<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Arc<Error>> {
        let (answer, result) = oneshot::channel();
        let gone = || Arc::new(Error::ShuttingDown);
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    /// Tells what is known now; neither wakes the guest nor keeps it awake.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Follows what is known; neither wakes the guest nor keeps it awake.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }

    /// Follows the steps of starts and stops.
    pub fn progress(&self) -> broadcast::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Counts the leases that keep the guest awake.
    pub fn connections(&self) -> u64 {
        self.connections.count()
    }

    /// Gives the link to a guest that runs now; neither wakes it nor keeps it awake.
    ///
    /// Not to be held for long: whoever holds a link keeps its session alive.
    pub fn running_link(&self) -> Option<Link> {
        self.link.borrow().clone()
    }

    /// Lets a running guest give the free blocks of its disk back to the host.
    ///
    /// # Errors
    /// [`control::Error`]; a guest that does not run has hung up.
    pub async fn reclaim(&self) -> Result<(), control::Error> {
        let link = self.running_link().ok_or(control::Error::HungUp)?;
        control::Client::open(&link).await?.trim().await
    }

    /// Asks a running guest what goes on in it; none when it does not run or does not answer.
    pub async fn guest_status(&self) -> Option<control::Status> {
        let link = self.link.borrow().clone()?;
        query_status(&link).await
    }
}

/// Asks for the guest's status with a deadline that suits a display.
pub(crate) async fn query_status(link: &Link) -> Option<control::Status> {
    let ask = async { control::Client::open(link).await?.status().await };
    match tokio::time::timeout(Duration::from_secs(5), ask).await {
        Ok(Ok(status)) => Some(status),
        Ok(Err(error)) => {
            tracing::debug!(%error, "guest does not tell its status");
            None
        }
        Err(_) => None,
    }
}

/// How many leases there are, and how many there have been.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: AtomicU64,
    given: AtomicU64,
}

impl Connections {
    pub(crate) fn count(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How many leases have been given so far: a call that came and went between two looks has used the guest too.
    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }
}

/// The use of a running guest; it is not stopped for idleness as long as one exists.
#[derive(Debug)]
pub struct Lease {
    link: Link,
    connections: Arc<Connections>,
}

impl Lease {
    pub(crate) fn new(link: Link, connections: &Arc<Connections>) -> Self {
        connections.open.fetch_add(1, Ordering::Relaxed);
        connections.given.fetch_add(1, Ordering::Relaxed);
        Self { link, connections: Arc::clone(connections) }
    }
}

impl Deref for Lease {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}
