//! Where names are served: port 80 when it can be had, else another.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use skiff_settings::Names as Settings;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::{Names, proxy};
use crate::service::bind_loopback;

/// The ports of HTTP and HTTPS.
const WELL_KNOWN: [u16; 2] = [80, 443];
/// Connections at once; more wait.
const CONNECTIONS: usize = 1024;

/// The sockets, each with its task.
pub(super) struct Listeners {
    /// Ports to try, in order: without TLS, with TLS.
    wanted: [Vec<u16>; 2],
    state: Mutex<State>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    active: Vec<(SocketAddr, JoinHandle<()>)>,
    acceptor: Option<TlsAcceptor>,
    /// Whether a better port was given up, or could not be had.
    started: bool,
}

impl Listeners {
    /// Works out where to listen. Without `low_port` the well-known ports are left to others unless the settings insist.
    pub(super) fn new(settings: &Settings, low_port: bool) -> Self {
        let ports = |own: Option<u16>, known: u16, fallback: u16| match own {
            Some(port) => vec![port],
            None if low_port => vec![known, fallback],
            None => vec![fallback],
        };
        let plain = ports(settings.port, WELL_KNOWN[0], settings.fallback_port);
        let tls = ports(settings.tls_port, WELL_KNOWN[1], settings.fallback_tls_port);
        Self { wanted: [plain, tls], state: Mutex::default(), places: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    pub(super) fn start(&self, names: &Arc<Names>, acceptor: Option<TlsAcceptor>) {
        {
            let mut state = self.state();
            state.acceptor = acceptor;
            state.started = true;
        }
        self.take_back(names);
        let addresses = self.addresses();
        match addresses.first() {
            Some(address) => tracing::info!(port = address.port(), "names below localhost are served"),
            None => tracing::warn!("names below localhost are not served: their ports are taken"),
        }
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.state().active.iter().map(|(address, _)| *address).collect()
    }

    /// Stops listening on a port; connections go on.
    pub(super) fn give_up(&self, port: u16) -> bool {
        let mut state = self.state();
        let before = state.active.len();
        state.active.retain(|(address, task)| {
            let stays = address.port() != port;
            if !stays {
                task.abort();
            }
            stays
        });
        state.active.len() < before
    }

    /// Listens on the best ports that are free now.
    pub(super) fn take_back(&self, names: &Arc<Names>) {
        let mut state = self.state();
        if !state.started {
            return;
        }
        let acceptor = state.acceptor.clone();
        for (ports, acceptor) in [(&self.wanted[0], None), (&self.wanted[1], acceptor)] {
            if ports == &self.wanted[1] && acceptor.is_none() {
                continue;
            }
            let has =
                |state: &State, port: u16| state.active.iter().any(|(address, _)| address.port() == port);
            for port in ports {
                if has(&state, *port) {
                    break;
                }
                let bound = self.bind(*port, names, acceptor.as_ref());
                if !bound.is_empty() {
                    // A better one makes the others needless.
                    state.active.retain(|(address, task)| {
                        let needless = ports.contains(&address.port());
                        if needless {
                            task.abort();
                        }
                        !needless
                    });
                    state.active.extend(bound);
                    break;
                }
            }
        }
    }

    /// Listens on both loopback addresses; IPv4 is the one that counts.
    fn bind(
        &self,
        port: u16,
        names: &Arc<Names>,
        acceptor: Option<&TlsAcceptor>,
    ) -> Vec<(SocketAddr, JoinHandle<()>)> {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let mut all = Vec::new();
        for ip in loopback {
            let asked = SocketAddr::new(ip, port);
            match bind_loopback(asked) {
                Ok((listener, address, loopback_only)) => {
                    let accept = accept(
                        listener,
                        loopback_only,
                        Arc::clone(names),
                        acceptor.cloned(),
                        Arc::clone(&self.places),
                    );
                    all.push((address, tokio::spawn(accept)));
                }
                Err(error) => {
                    tracing::debug!(%error, port, "names are not served here");
                    if ip.is_ipv4() {
                        break;
                    }
                }
            }
        }
        all
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.state().active.iter().for_each(|(_, task)| task.abort());
    }
}

async fn accept(
    listener: TcpListener,
    loopback_only: bool,
    names: Arc<Names>,
    acceptor: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((_, from)) if loopback_only && !from.ip().to_canonical().is_loopback() => {}
            Ok((client, from)) => {
                let (names, acceptor) = (Arc::clone(&names), acceptor.clone());
                tokio::spawn(async move {
                    if let Err(error) = proxy::connection(client, from, port, names, acceptor).await {
                        tracing::debug!(%error, conn = %from, "connection to a name broke");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "names do not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
