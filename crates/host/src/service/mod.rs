//! The host's half of the link's services: what the guest may ask of the host.

mod echo;
mod egress;
mod fetch;
mod files;
mod publish;
mod query;
mod resolve;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use skiff_link::{Args, Incoming, Link, ReplyCode};
use skiff_machine::{IncomingHandler, Machine};
use skiff_proxy::Proxies;
use tokio::sync::Semaphore;

pub(crate) use self::egress::{Own, Policy};
pub(crate) use self::files::Files;
use self::publish::{Parked, Places};
pub(crate) use self::publish::{Table, bind_loopback};
use self::query::Resolver;
use crate::names::Names;

/// What a guest may have at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Streams that the guest opened.
    pub(crate) streams: usize,
    /// Published ports.
    pub(crate) listeners: usize,
    /// Connections to published ports, flows of datagrams included.
    pub(crate) connections: usize,
    /// How long a flow of datagrams to a published port may be silent.
    pub(crate) silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Streams: as many as the link carries; a flow out is one. The silence is that of Docker's own proxy.
        Self { streams: 16384, listeners: 2048, connections: 8192, silence: Duration::from_secs(90) }
    }
}

/// Serves what guests ask for; clones share the limits.
#[derive(Clone)]
pub(crate) struct Services {
    streams: Arc<Semaphore>,
    listeners: Arc<Semaphore>,
    places: Places,
    published: Arc<Table>,
    names: Arc<Names>,
    policy: Arc<Policy>,
    proxies: Arc<Proxies>,
    resolver: Arc<Resolver>,
    files: Arc<Files>,
    parked: Arc<Parked>,
    connections: usize,
    /// Connections to the outside.
    egress: Arc<AtomicU64>,
}

impl Services {
    pub(crate) fn new(
        limits: Limits,
        policy: Policy,
        names: Arc<Names>,
        files: Files,
        proxies: Proxies,
    ) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(limits.streams)),
            listeners: Arc::new(Semaphore::new(limits.listeners)),
            places: Places {
                connections: Arc::new(Semaphore::new(limits.connections)),
                silence: limits.silence,
            },
            published: Arc::default(),
            names,
            proxies: Arc::new(proxies),
            resolver: Arc::new(Resolver::new(policy.loopback)),
            policy: Arc::new(policy),
            files: Arc::new(files),
            parked: Arc::default(),
            connections: limits.connections,
            egress: Arc::default(),
        }
    }

    /// Keeps ports bound while this machine sleeps; their list is in this file.
    pub(crate) fn start(&self, machine: &Machine, list: std::path::PathBuf) {
        self.parked.start(machine, list, &self.names);
    }

    /// Counts the connections between containers and the host or the outside.
    pub(crate) fn busy(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let services = self.clone();
        Arc::new(move || {
            let published = services.connections - services.places.connections.available_permits();
            u64::try_from(published).unwrap_or(u64::MAX) + services.egress.load(Ordering::Relaxed)
        })
    }

    /// The ports that are published now.
    pub(crate) fn published(&self) -> Arc<Table> {
        Arc::clone(&self.published)
    }

    /// Gives the function that the machine hands its guest's streams to.
    pub(crate) fn handler(&self) -> IncomingHandler {
        let services = self.clone();
        Arc::new(move |link, incoming| {
            let services = services.clone();
            tokio::spawn(async move { services.serve(link, incoming).await });
        })
    }

    async fn serve(&self, link: Link, incoming: Incoming) {
        let limit = |what: &str| format!("too many {what} at once");
        let Ok(_place) = self.streams.try_acquire() else {
            tracing::warn!(op = %incoming.header.service(), "guest has too many streams");
            return incoming.refuse(ReplyCode::Limit, limit("streams")).await;
        };
        tracing::debug!(op = %incoming.header.service(), "guest asks");
        match incoming.header.args.clone() {
            Args::Publish { container, host_ip, host_port, protocol, target } => {
                let Ok(_place) = self.listeners.try_acquire() else {
                    return incoming.refuse(ReplyCode::Limit, limit("published ports")).await;
                };
                let address = SocketAddr::new(host_ip, host_port);
                let wish = publish::Wish { container, address, protocol, target };
                let (places, names) = (&self.places, &self.names);
                publish::serve(&link, incoming, wish, &self.published, places, names, &self.parked).await;
            }
            Args::Egress { host, port, protocol } => {
                self.egress.fetch_add(1, Ordering::Relaxed);
                egress::serve(incoming, &host, port, protocol, &self.policy).await;
                self.egress.fetch_sub(1, Ordering::Relaxed);
            }
            Args::Resolve { name } => resolve::serve(incoming, &name).await,
            Args::Query { question } => self.resolver.serve(incoming, &question).await,
            Args::Fetch { host, port, tls } => {
                fetch::serve(incoming, (&host, port), tls, &self.policy, &self.proxies).await;
            }
            Args::Roots {} => fetch::serve_roots(incoming, &self.proxies).await,
            Args::Echo { host } => echo::serve(incoming, &host, &self.policy).await,
            Args::Files { share } => self.files.serve(incoming, &share).await,
            Args::Api {} | Args::Dial { .. } | Args::Shell {} | Args::Control {} => {
                let service = incoming.header.service();
                let message = format!("the host does not serve {service}");
                incoming.refuse(ReplyCode::Unsupported, message).await;
            }
        }
    }
}

/// How long the host's network may take to answer a guest's question.
const NETWORK_DEADLINE: Duration = Duration::from_secs(30);
