//! Names for people: `http://CONTAINER.localhost` and `http://SERVICE.PROJECT.localhost` lead to containers.
//!
//! Browsers send every name below `localhost` to this machine (RFC 6761, 6.3). One small reverse proxy listens there on
//! loopback, looks at the name, and connects to the container over the link: nothing has to be published.

mod choose;
mod listeners;
mod page;
mod port;
mod proxy;
mod tls;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use skiff_link::{Args, BoxStream, Link, OpenError, Protocol, StreamHeader};
use skiff_machine::{Machine, Phase, control};
use skiff_settings::{Names as Settings, Paths};

use self::listeners::Listeners;
use crate::containers::{ApiError, Container, Containers};

/// The label that names a container's HTTP port.
const PORT_LABEL: &str = "dev.skiff.http-port";
/// The port of HTTP.
const HTTP: u16 = 80;
/// Containers whose port is remembered.
const MOST_REMEMBERED: usize = 1024;

/// Serves names. It exists, and listens nowhere, when it is switched off.
pub(crate) struct Names {
    settings: Settings,
    listeners: Listeners,
    /// What it needs to know containers; there once the machine is.
    source: OnceLock<Source>,
    /// The HTTP port of each container that was asked for, by id.
    ports: Mutex<HashMap<String, u16>>,
    /// Counts requests, so that each of several replicas has its turn.
    turn: AtomicUsize,
}

struct Source {
    machine: Machine,
    containers: Arc<Containers>,
}

/// Why there is no container behind a name.
#[derive(Debug)]
pub(crate) enum NoTarget {
    /// The name is not below `localhost`, or is `localhost` itself.
    NotAName,
    /// The guest does not run.
    Stopped,
    /// Nobody has the name. These could have been meant.
    Unknown {
        /// Names that exist.
        known: Vec<String>,
    },
    /// It is paused.
    Paused {
        /// The container.
        container: String,
    },
    /// It listens on no port that could be meant.
    NoPort {
        /// The container.
        container: String,
    },
    /// Its port is not reached.
    Dial {
        /// The container.
        container: String,
        /// Where it was tried.
        port: u16,
        /// Why.
        reason: String,
    },
    /// The engine does not answer.
    Engine(String),
}

/// A container behind a name.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) container: String,
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
}

impl Names {
    /// Prepares it; nothing listens yet.
    pub(crate) fn new(settings: Settings, low_port: bool) -> Self {
        Self {
            listeners: Listeners::new(&settings, low_port),
            settings,
            source: OnceLock::new(),
            ports: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Listens, if it is switched on.
    pub(crate) fn start(self: &Arc<Self>, machine: &Machine, containers: &Arc<Containers>, paths: &Paths) {
        let source = Source { machine: machine.clone(), containers: Arc::clone(containers) };
        if self.source.set(source).is_err() || !self.settings.enabled {
            return;
        }
        let acceptor =
            self.settings.tls.then(|| tls::acceptor(&paths.names_ca_cert(), &paths.names_ca_key()));
        let acceptor = acceptor.transpose().unwrap_or_else(|error| {
            tracing::warn!(error = crate::control::chain(&error), "names are served without TLS");
            None
        });
        self.listeners.start(self, acceptor);
    }

    /// Where it listens now.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses()
    }

    /// The port that it should be on: the one of the settings, or that of HTTP.
    pub(crate) fn wanted_port(&self) -> u16 {
        self.settings.port.unwrap_or(HTTP)
    }

    /// Gives a port up for a container that wants it. Returns whether it had it.
    pub(crate) fn give_up(&self, port: u16) -> bool {
        self.listeners.give_up(port)
    }

    /// Takes back what was given up, if it is free again.
    pub(crate) fn take_back(self: &Arc<Self>) {
        self.listeners.take_back(self);
    }

    /// Finds the container behind a host name.
    pub(crate) async fn find(&self, host: &str) -> Result<Target, NoTarget> {
        let name = choose::name(host).ok_or(NoTarget::NotAName)?;
        let Some(source) = self.source.get() else { return Err(NoTarget::Stopped) };
        // Only one that was not stopped: who looks for a name has no use for a guest without containers.
        let phase = source.machine.snapshot().phase;
        let lease = match phase {
            Phase::Suspending | Phase::Asleep | Phase::Starting => source.machine.lease().await.ok(),
            Phase::Running | Phase::Stopped | Phase::Stopping | Phase::Failed => None,
        };
        if lease.is_none() && !source.containers.is_running() {
            return Err(NoTarget::Stopped);
        }
        let engine = |error: ApiError| NoTarget::Engine(crate::control::chain(&error));
        let running = source.containers.running().await.map_err(engine)?;
        let all = choose::matching(&name, &running);
        if all.is_empty() {
            return Err(NoTarget::Unknown { known: choose::names(&running) });
        }
        // Replicas that stand still are passed over while there are others.
        let awake: Vec<&Container> = all.iter().copied().filter(|container| container.runs()).collect();
        if awake.is_empty() {
            return Err(NoTarget::Paused { container: all[0].name.clone() });
        }
        let container = awake[self.turn.fetch_add(1, Ordering::Relaxed) % awake.len()];
        let ip = match container.ips.first() {
            Some(ip) => *ip,
            // The engine's own network is reached at the engine's own loopback.
            None if container.host_network => IpAddr::from(Ipv4Addr::LOCALHOST),
            None => return Err(NoTarget::NoPort { container: container.name.clone() }),
        };
        let port = self
            .port(source, container, ip)
            .await
            .ok_or_else(|| NoTarget::NoPort { container: container.name.clone() })?;
        Ok(Target {
            container: container.name.clone(),
            id: container.id.clone(),
            address: SocketAddr::new(ip, port),
        })
    }

    /// The container's HTTP port: what its label says, or the first that speaks HTTP.
    async fn port(&self, source: &Source, container: &Container, ip: IpAddr) -> Option<u16> {
        if let Some(port) = container.labels.get(PORT_LABEL).and_then(|port| port.trim().parse().ok()) {
            return Some(port);
        }
        if let Some(port) = self.remembered().get(&container.id) {
            return Some(*port);
        }
        let link = source.machine.running_link()?;
        let listening = listening(&link, &container.id).await;
        let candidates = port::candidates(&container.exposed, listening.as_deref());
        let found = port::first_http(&candidates, |port| dial(&link, SocketAddr::new(ip, port))).await?;
        let mut ports = self.remembered();
        if ports.len() >= MOST_REMEMBERED {
            ports.clear();
        }
        ports.insert(container.id.clone(), found);
        Some(found)
    }

    /// Connects to a target.
    pub(crate) async fn connect(&self, target: &Target) -> Result<BoxStream, NoTarget> {
        let failed = |reason: String| {
            // It may have moved to another port.
            self.remembered().remove(&target.id);
            NoTarget::Dial { container: target.container.clone(), port: target.address.port(), reason }
        };
        let link =
            self.source.get().and_then(|source| source.machine.running_link()).ok_or(NoTarget::Stopped)?;
        dial(&link, target.address).await.map_err(|error| {
            failed(match error {
                OpenError::Refused { message, .. } => message,
                error => error.to_string(),
            })
        })
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<String, u16>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn dial(link: &Link, address: SocketAddr) -> Result<BoxStream, OpenError> {
    link.open(&StreamHeader { args: Args::Dial { addr: address, protocol: Protocol::Tcp } }).await
}

/// The TCP ports on which a container is reached from outside; `None` when the agent does not tell.
async fn listening(link: &Link, container: &str) -> Option<Vec<u16>> {
    let listeners = control::Client::open(link).await.ok()?.listeners(container).await.ok()?;
    let outside = listeners.into_iter().filter(|listener| {
        listener.transport == "tcp" && !listener.address.ip().to_canonical().is_loopback()
    });
    Some(outside.map(|listener| listener.address.port()).collect())
}
