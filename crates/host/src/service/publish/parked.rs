//! Published ports of a guest that is asleep: they stay bound, and whoever comes wakes it and waits.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use skiff_link::{Link, Protocol};
use skiff_machine::{Machine, Phase};
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
};

use super::bind::{Bound, Socket};

/// Clients that may wait at one port; more wait in the system's queue.
const CLIENTS: usize = 256;
/// How long a guest that runs again may take to ask for its ports.
const CLAIMED: Duration = Duration::from_secs(20);

/// A port between two publications.
pub(super) struct Held {
    pub(super) bound: Bound,
    /// Whether names gave it up for a container.
    pub(super) yielded: bool,
    /// Who came meanwhile.
    pub(super) clients: Vec<(TcpStream, SocketAddr)>,
}

/// The ports that nobody has published at this moment.
#[derive(Default)]
pub(crate) struct Parked {
    ports: Mutex<Vec<Port>>,
    machine: OnceLock<Machine>,
}

struct Port {
    address: SocketAddr,
    protocol: Protocol,
    /// Dropped, it closes the port.
    claim: oneshot::Sender<oneshot::Sender<Held>>,
}

impl Parked {
    /// Names the machine, and closes ports that it does not ask for any more. To be called once.
    pub(crate) fn start(self: &Arc<Self>, machine: &Machine) {
        if self.machine.set(machine.clone()).is_ok() {
            tokio::spawn(sweep(Arc::downgrade(self), machine.watch()));
        }
    }

    /// Whether the guest sleeps, is about to, or is just coming back.
    pub(super) fn sleeps(&self) -> bool {
        self.machine.get().is_some_and(|machine| is_sleep(machine.snapshot().phase))
    }

    /// Waits until the guest is about to sleep.
    pub(super) async fn falls_asleep(&self) {
        if let Some(machine) = self.machine.get() {
            let mut watch = machine.watch();
            if watch.wait_for(|snapshot| snapshot.phase == Phase::Suspending).await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }

    /// The link to a guest that has been asleep, once it is awake; nothing of one that was not.
    pub(super) async fn woken(&self) -> Option<Link> {
        let machine = self.machine.get().filter(|_| self.sleeps())?;
        Some(machine.lease().await.ok()?.clone())
    }

    /// Keeps a port bound.
    pub(super) fn park(&self, held: Held) {
        let Some(machine) = self.machine.get() else { return };
        let protocol = match held.bound.socket {
            Socket::Tcp(_) => Protocol::Tcp,
            Socket::Udp(_) => Protocol::Udp,
        };
        let (claim, claimed) = oneshot::channel();
        let address = held.bound.address;
        tracing::debug!(port = address.port(), "port waits for the guest to wake");
        tokio::spawn(wait(held, claimed, machine.clone()));
        self.ports().push(Port { address, protocol, claim });
    }

    /// Gives a port to who publishes it again.
    pub(super) async fn claim(&self, address: SocketAddr, protocol: Protocol) -> Option<Held> {
        let port = {
            let mut ports = self.ports();
            let at = ports.iter().position(|port| port.address == address && port.protocol == protocol)?;
            ports.swap_remove(at)
        };
        let (sender, held) = oneshot::channel();
        port.claim.send(sender).ok()?;
        held.await.ok()
    }

    fn ports(&self) -> MutexGuard<'_, Vec<Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_sleep(phase: Phase) -> bool {
    matches!(phase, Phase::Suspending | Phase::Asleep | Phase::Starting)
}

/// Waits for clients until somebody claims the port, or nobody wants it any more.
async fn wait(mut held: Held, mut claimed: oneshot::Receiver<oneshot::Sender<Held>>, machine: Machine) {
    let (mut knocked, mut deaf) = (false, false);
    loop {
        tokio::select! {
            claim = &mut claimed => {
                if let Ok(claim) = claim {
                    // If it is not taken, it closes.
                    let _ = claim.send(held);
                }
                return;
            }
            client = knock(&held.bound), if !deaf && held.clients.len() < CLIENTS => match client {
                Ok(Some((_, from))) if held.bound.loopback_only && !from.ip().to_canonical().is_loopback() => continue,
                Ok(Some(client)) => held.clients.push(client),
                // The datagram stays where it is.
                Ok(None) => deaf = true,
                Err(error) => {
                    tracing::debug!(%error, "waiting port does not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        }
        if !std::mem::replace(&mut knocked, true) {
            let machine = machine.clone();
            tokio::spawn(async move {
                if let Err(error) = machine.start(false).await {
                    tracing::warn!(%error, "a published port could not wake the guest");
                }
            });
        }
    }
}

/// Waits for a client; none of a port for datagrams, which has one all the same.
async fn knock(bound: &Bound) -> std::io::Result<Option<(TcpStream, SocketAddr)>> {
    match &bound.socket {
        Socket::Tcp(listener) => listener.accept().await.map(Some),
        Socket::Udp(socket) => socket.readable().await.map(|()| None),
    }
}

/// Closes the ports of a guest that is gone, and those that a guest that is back has not asked for.
async fn sweep(parked: std::sync::Weak<Parked>, mut watch: watch::Receiver<skiff_machine::Snapshot>) {
    loop {
        let phase = watch.borrow_and_update().phase;
        if phase == Phase::Running {
            // A change in this time means that it sleeps or ends, which is looked at next.
            if let Ok(changed) =
                tokio::time::timeout(CLAIMED, watch.wait_for(|s| s.phase != Phase::Running)).await
            {
                if changed.is_err() {
                    return;
                }
                continue;
            }
        }
        let Some(parked) = parked.upgrade() else { return };
        if !is_sleep(phase) {
            parked.ports().clear();
        }
        drop(parked);
        if watch.wait_for(|snapshot| snapshot.phase != phase).await.is_err() {
            return;
        }
    }
}
