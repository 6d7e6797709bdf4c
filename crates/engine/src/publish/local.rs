//! Ports of this machine itself: the engine runs where its users are.
//!
//! ```text
//!  from other machines ──── packet filter ───▶ container      the client's address is kept
//!  from this machine's own addresses ─┘
//!  to loopback, or from the container's own network ──▶ listener ──▶ container, from the gateway's address
//! ```
//!
//! The listener is always there: it keeps the port from others, and serves everybody where the packet filter can't.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use skiff_listeners::{Transport, bind_tcp, bind_udp, refusal};
use skiff_network::{Family, Flow, Forward, Forwards};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Protocol, PublishError, PublishRequest, PublishedPort, Publisher, proxy};

const UDP: skiff_network::Protocol = skiff_network::Protocol::Udp;

/// Binds on this machine itself.
#[derive(Debug)]
pub struct LocalPublisher {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told when the kernel's forwards are not what they should be.
    stale: Notify,
}

#[derive(Debug, Default)]
struct State {
    table: String,
    forwards: Vec<(u64, Forward)>,
    last_id: u64,
    changed: bool,
    /// What the kernel leads now.
    applied: Vec<Forward>,
    /// The kernel's tables; none until the first forward: kernel modules cost time.
    kernel: Option<Forwards>,
    /// Tasks of ports that were closed: an aborted task lets go of its socket when it is next looked at.
    closing: Vec<JoinHandle<()>>,
    /// Set when the kernel has refused: the listeners do it all.
    refused: bool,
}

impl LocalPublisher {
    /// Names the packet filter's tables.
    #[must_use]
    pub fn new(table: impl Into<String>) -> Self {
        let state = State { table: table.into(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), stale: Notify::new() });
        Self { shared, writer: Mutex::default() }
    }

    /// Starts the task that brings the kernel into agreement after ports were closed.
    fn start_writer(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            let shared = Arc::clone(&self.shared);
            *writer = Some(tokio::spawn(async move {
                loop {
                    shared.stale.notified().await;
                    let ours = Arc::clone(&shared);
                    let _ = tokio::task::spawn_blocking(move || ours.state().write()).await;
                }
            }));
        }
    }
}

impl Drop for LocalPublisher {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            writer.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the kernel lead what is published now.
    fn write(&mut self) {
        if !std::mem::take(&mut self.changed) || self.refused {
            return;
        }
        let forwards: Vec<Forward> = self.forwards.iter().map(|(_, forward)| forward.clone()).collect();
        let kernel = match self.kernel.take() {
            None if forwards.is_empty() => return,
            None => Forwards::open(self.table.clone()),
            Some(kernel) => Ok(kernel),
        };
        let applied = kernel.and_then(|mut kernel| {
            kernel.apply(&forwards)?;
            Ok(kernel)
        });
        match applied {
            Ok(kernel) => {
                self.kernel = Some(kernel);
                forget_stale(&std::mem::replace(&mut self.applied, forwards.clone()), &forwards);
            }
            Err(error) => {
                // The tables are gone with their owner: they might lead to containers that are gone.
                self.refused = true;
                tracing::warn!(
                    error = crate::error::chain(&error),
                    "published ports see the gateway's address"
                );
            }
        }
    }
}

/// Makes the kernel forget flows that go on as they began although their port leads elsewhere now: a client of a container
/// that was started again would not reach it as long as it sends from the same port.
fn forget_stale(before: &[Forward], now: &[Forward]) {
    let gone: Vec<&Forward> = before.iter().filter(|forward| !now.contains(forward)).collect();
    // A connection begins with a packet that shows it is new. Datagrams may have been on their way before the port was.
    let is_new = |forward: &&Forward| forward.protocol == UDP && !before.contains(forward);
    let new: Vec<&Forward> = now.iter().filter(is_new).collect();
    if gone.is_empty() && new.is_empty() {
        return;
    }
    let own = if new.is_empty() { Vec::new() } else { skiff_network::host_addresses().unwrap_or_default() };
    let is_own = |ip: IpAddr| own.iter().any(|net| net.addr() == ip);
    for family in [Family::Ipv4, Family::Ipv6] {
        let is_six = family == Family::Ipv6;
        if !gone.iter().chain(&new).any(|forward| forward.target.is_ipv6() == is_six) {
            continue;
        }
        let led_away = |flow: &Flow| {
            gone.iter().any(|forward| flow.protocol == forward.protocol && flow.leads_to(forward.target))
        };
        let stayed_here = |flow: &Flow| {
            let to = flow.original.to;
            flow.protocol == UDP
                && flow.reply.from == to
                && is_own(to.ip())
                && !to.ip().is_loopback()
                && new.iter().any(|forward| {
                    let host = forward.host;
                    host.port() == to.port() && (host.ip().is_unspecified() || host.ip() == to.ip())
                })
        };
        match skiff_network::forget_flows(family, |flow| led_away(flow) || stayed_here(flow)) {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "flows of other times are forgotten"),
            // A kernel that remembers no flows has none to forget.
            Err(error) => tracing::debug!(error = crate::error::chain(&error), "flows are not forgotten"),
        }
    }
}

struct LocalPort {
    address: SocketAddr,
    task: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// The place among the forwards.
    forward: Option<u64>,
}

impl Drop for LocalPort {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(task) = self.task.take() {
            task.abort();
            state.closing.retain(|task| !task.is_finished());
            state.closing.push(task);
        }
        if let Some(id) = self.forward.take() {
            state.forwards.retain(|(other, _)| *other != id);
            state.changed = true;
            self.shared.stale.notify_one();
        }
    }
}

impl PublishedPort for LocalPort {
    fn host_port(&self) -> u16 {
        self.address.port()
    }
}

#[async_trait]
impl Publisher for LocalPublisher {
    async fn publish(&self, request: PublishRequest) -> Result<Box<dyn PublishedPort>, PublishError> {
        let address = SocketAddr::new(request.host_ip, request.host_port);
        let transport = match request.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => return Err(PublishError::sctp()),
        };
        // Who closes a port and opens it again must not find it taken by the old one.
        let closing = std::mem::take(&mut self.shared.state().closing);
        for task in closing {
            let _ = task.await;
        }
        let bound = match transport {
            Transport::Tcp => bind_tcp(address).and_then(|listener| {
                let address = listener.local_addr()?;
                Ok((
                    address,
                    tokio::spawn(proxy::connections(TcpListener::from_std(listener)?, request.target)),
                ))
            }),
            Transport::Udp => bind_udp(address).and_then(|socket| {
                let address = socket.local_addr()?;
                let socket = Arc::new(UdpSocket::from_std(socket)?);
                Ok((address, tokio::spawn(proxy::datagrams(socket, request.target))))
            }),
        };
        let (address, task) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                let kind = error.kind();
                let message = tokio::task::spawn_blocking(move || refusal(&error, address, transport));
                let message = message.await.unwrap_or_default();
                return Err(match kind {
                    io::ErrorKind::AddrInUse => PublishError::AddressInUse { message },
                    io::ErrorKind::PermissionDenied => PublishError::PermissionDenied { message },
                    io::ErrorKind::AddrNotAvailable => PublishError::NoAddress { message },
                    _ => PublishError::Failed { message },
                });
            }
        };
        let mut port =
            LocalPort { address, task: Some(task), shared: Arc::clone(&self.shared), forward: None };
        if let Some(forward) = forward(address, &request) {
            self.start_writer();
            let mut state = self.shared.state();
            state.last_id += 1;
            let id = state.last_id;
            state.forwards.push((id, forward));
            state.changed = true;
            port.forward = Some(id);
        }
        Ok(Box::new(port))
    }

    async fn settle(&self) {
        let shared = Arc::clone(&self.shared);
        let _ = tokio::task::spawn_blocking(move || shared.state().write()).await;
    }
}

/// What the packet filter can do for a port: nothing for loopback, and nothing between families.
fn forward(host: SocketAddr, request: &PublishRequest) -> Option<Forward> {
    let same = host.is_ipv4() == request.target.is_ipv4();
    let protocol = match request.protocol {
        Protocol::Tcp => skiff_network::Protocol::Tcp,
        Protocol::Udp => skiff_network::Protocol::Udp,
        Protocol::Sctp => return None,
    };
    (same && !host.ip().is_loopback() && !request.bridge.is_empty()).then(|| Forward {
        protocol,
        host,
        target: request.target,
        bridge: request.bridge.clone(),
    })
}
