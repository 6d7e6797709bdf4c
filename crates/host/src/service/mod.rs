//! The host's half of the link's services: what the guest may ask of the host.

mod egress;
mod publish;
mod resolve;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use skiff_link::{Args, Incoming, Link, ReplyCode};
use skiff_machine::IncomingHandler;
use tokio::sync::Semaphore;

use self::publish::Published;

/// What a guest may have at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Streams that the guest opened.
    pub(crate) streams: usize,
    /// Published ports.
    pub(crate) listeners: usize,
    /// Connections to published ports.
    pub(crate) connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams: 4096, listeners: 1024, connections: 4096 }
    }
}

/// Serves what guests ask for; clones share the limits.
#[derive(Clone)]
pub(crate) struct Services {
    streams: Arc<Semaphore>,
    listeners: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    published: Arc<Published>,
    /// Addresses of our own that a guest must not reach through us.
    own: Arc<Vec<SocketAddr>>,
}

impl Services {
    pub(crate) fn new(limits: Limits, own: Vec<SocketAddr>) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(limits.streams)),
            listeners: Arc::new(Semaphore::new(limits.listeners)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            published: Arc::default(),
            own: Arc::new(own),
        }
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
                publish::serve(&link, incoming, wish, &self.published, &self.connections).await;
            }
            Args::Egress { host, port, protocol } => {
                egress::serve(incoming, &host, port, protocol, &self.own).await;
            }
            Args::Resolve { name } => resolve::serve(incoming, &name).await,
            Args::Api {} | Args::Dial { .. } | Args::Shell {} | Args::Control {} | Args::Files { .. } => {
                let service = incoming.header.service();
                let message = format!("the host does not serve {service}");
                incoming.refuse(ReplyCode::Unsupported, message).await;
            }
        }
    }
}

/// How long the host's network may take to answer a guest's question.
const NETWORK_DEADLINE: Duration = Duration::from_secs(30);
