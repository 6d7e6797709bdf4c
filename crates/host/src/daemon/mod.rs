//! The daemon: takes the lock, binds its sockets, owns the guest, and goes away without remains.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use skiff_machine::{Machine, Options as MachineOptions, backend};
use skiff_proxy::Proxies;
use skiff_settings::{BackendChoice, Paths, Settings};
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    containers::Containers,
    control::{Failure, chain, configuration::InForce, server},
    docker_context,
    explain::Explain,
    listen::Listener,
    lock::{Lock, LockError},
    log,
    names::Names,
    proxy,
    service::{Files, Limits, Own, Policy, Services},
    ssh_key,
};

/// What the daemon is told on its command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is.
    pub paths: Paths,
    /// The backend, instead of the one in the settings.
    pub backend: Option<BackendChoice>,
    /// The Docker socket, instead of the one in the settings or the state directory.
    pub docker_socket: Option<PathBuf>,
    /// Registry mirrors before those in the settings.
    pub registry_mirrors: Vec<String>,
    /// The docker CLI's configuration directory that gets a context; none leaves it alone.
    pub docker_config: Option<PathBuf>,
}

impl Options {
    /// Makes the options of a daemon that was given none.
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            backend: None,
            docker_socket: None,
            registry_mirrors: Vec::new(),
            docker_config: docker_context::config_dir(),
        }
    }
}

/// Why the daemon did not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings or the state directory cannot be used.
    #[error("the daemon cannot use its state directory")]
    State(#[from] skiff_settings::Error),
    /// Another daemon runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A socket cannot be bound.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No backend can be used.
    #[error("no usable backend")]
    Backend(#[source] skiff_machine::Error),
    /// The key of this installation cannot be used.
    #[error("no key for the guest")]
    Key(#[from] ssh_key::KeyError),
    /// A file cannot be used.
    #[error("cannot {op} {}", path.display())]
    File {
        /// What was tried.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The guest does not stop.
    #[error("the daemon ends, but its guest does not: {message}")]
    Stop {
        /// What stood in the way.
        message: String,
    },
}

impl Error {
    /// Tells what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lock(LockError::Held { pid: Some(pid), .. }) => {
                Some(format!("use the running one, or stop it with `skiff machine stop` or `kill {pid}`"))
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Some(
                "another program listens there: stop it, or choose another socket with --socket".to_owned(),
            ),
            Self::Backend(error) => error.hint(),
            _ => None,
        }
    }
}

/// Runs the daemon until it is told to end by a signal or over the control socket; the guest ends with it.
///
/// # Errors
/// Fails when another daemon runs here, or something it needs is missing.
pub async fn run(options: Options) -> Result<(), Error> {
    options.paths.prepare()?;
    raise_file_limit();
    let log = options.paths.daemon_log();
    log::init(&log).map_err(|source| Error::File { op: "write", path: log, source })?;
    let result = run_until(&options, |settings| choose(&options, settings), told_to_end()).await;
    if let Err(error) = &result {
        tracing::error!(error = %chain(error), "daemon ends");
    }
    result
}

fn choose(options: &Options, settings: &Settings) -> Result<backend::Selected, Error> {
    let exe = std::env::current_exe().map_err(|source| Error::File {
        op: "find",
        path: PathBuf::from("own executable"),
        source,
    })?;
    let choice = options.backend.unwrap_or(settings.machine.backend);
    backend::select(&options.paths, choice, &exe).map_err(Error::Backend)
}

/// The daemon with a backend of the caller's, until `end` comes.
async fn run_until(
    options: &Options,
    choose: impl FnOnce(&Settings) -> Result<backend::Selected, Error>,
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
    let started = Instant::now();
    let paths = &options.paths;
    paths.prepare()?;
    let settings = Settings::load(&paths.settings())?;
    let docker_socket = options
        .docker_socket
        .clone()
        .or_else(|| settings.daemon.socket.clone())
        .unwrap_or_else(|| paths.docker_socket());
    let docker_socket = std::path::absolute(&docker_socket).unwrap_or(docker_socket);
    let _lock = Lock::take(&paths.lock(), &docker_socket)?;
    let selected = choose(&settings)?;
    let key = ssh_key::ensure(&paths.ssh_key())?;
    let docker = bind(&docker_socket)?;
    let control_socket = paths.control_socket();
    let control = bind(&control_socket)?;

    // A native engine binds on this host by itself, beside us: the well-known ports are left to its containers.
    let names = Arc::new(Names::new(settings.names.clone(), selected.image.is_some()));
    // Who reached the names from a container would be in everybody's network.
    let own = {
        let names = Arc::clone(&names);
        Own::new(move || names.addresses())
    };
    let policy = Policy { loopback: settings.network.host_loopback, own };
    let files = Files::new(&settings, paths, docker_socket.clone());
    let proxies = {
        let set = settings.network.proxy.clone();
        Proxies::from_variables(move |name| match set.variable(name) {
            Some(value) => Some(value.to_owned()),
            None => std::env::var(name).ok(),
        })
    };
    let services = Services::new(Limits::default(), policy, Arc::clone(&names), files, proxies);
    let mut machine_options = MachineOptions::new(paths.clone(), services.handler());
    machine_options.registry_mirrors = options.registry_mirrors.clone();
    machine_options.authorized_keys = ssh_key::public_line(&key).into_iter().collect();
    machine_options.busy = services.busy();
    let is_virtual = selected.image.is_some();
    let image_version = selected.image.as_ref().map(|image| image.version().to_owned());
    let machine = Machine::spawn(machine_options, selected);
    services.start(&machine, paths.saved_ports());
    write_context(options, &docker_socket);
    let containers = Arc::new(Containers::new(machine.clone()));
    names.start(&machine, &containers, paths);

    let shutdown = Arc::new(Notify::new());
    let server = Arc::new(server::Server {
        machine: machine.clone(),
        paths: paths.clone(),
        docker_socket: docker_socket.clone(),
        image_version,
        explain: Explain {
            machine: machine.clone(),
            paths: paths.clone(),
            containers,
            published: services.published(),
            names,
        },
        settings: InForce::new(&machine, paths, settings, is_virtual),
        started,
        shutdown: Arc::clone(&shutdown),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(proxy::serve(docker, machine.clone()));
    tasks.spawn(server::serve(control, server));
    tracing::info!(
        pid = std::process::id(),
        machine = machine.backend(),
        path = %docker_socket.display(),
        elapsed_ms = started.elapsed().as_millis() as u64,
        "daemon is ready"
    );
    tokio::select! {
        () = end => {}
        () = shutdown.notified() => {}
    }
    tracing::info!("daemon is shutting down");
    // Nobody gets a new connection, and with it a new guest, from here on.
    tasks.shutdown().await;
    // One that is asleep sleeps on, until the next daemon.
    machine.rest().await.map_err(|error| Error::Stop { message: Failure::new(&*error).message })?;
    tracing::info!("daemon has ended");
    Ok(())
}

/// Lets the daemon have as many files as its user may: every connection of a container is one.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let maximum = getrlimit(Resource::Nofile).maximum;
        // Some systems call everything allowed and then allow less.
        for wanted in [maximum.unwrap_or(1 << 20), 10_240] {
            if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok() {
                return;
            }
        }
    }
}

fn bind(path: &Path) -> Result<Listener, Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    if cfg!(unix)
        && let Some(dir) = path.parent()
    {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    Listener::bind(path).map_err(failed)
}

/// A context that cannot be written costs convenience, not service.
fn write_context(options: &Options, socket: &Path) {
    let Some(config) = &options.docker_config else { return };
    match docker_context::write(config, socket) {
        Ok(docker_context::Written::Yes) => {
            tracing::info!(path = %config.display(), "docker context is written")
        }
        Ok(docker_context::Written::No) => {}
        Err(error) => {
            tracing::warn!(%error, path = %config.display(), "docker context cannot be written");
        }
    }
}

#[cfg(unix)]
async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};

    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = kinds.map(signal) else {
        tracing::error!("signals cannot be caught");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
}

#[cfg(not(unix))]
async fn told_to_end() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::error!(%error, "signals cannot be caught");
    }
}

#[cfg(all(test, unix))]
mod tests;
