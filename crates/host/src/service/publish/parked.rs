//! Published ports of a guest that is asleep: they stay bound, and whoever comes wakes it and waits.
//!
//! Their list is beside the guest that sleeps, so that a daemon that is started meanwhile binds them again.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use skiff_link::{Link, Protocol};
use skiff_machine::{Machine, Phase};
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
};

use super::bind::{Bound, Socket};
use crate::names::Names;

/// Clients that may wait at one port; more wait in the system's queue.
const CLIENTS: usize = 256;
/// Longest accepted list in bytes.
const LONGEST: u64 = 4 << 20;
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
    /// Where their list is kept.
    list: OnceLock<PathBuf>,
}

/// A port in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    address: SocketAddr,
    protocol: Protocol,
}

struct Port {
    listed: Listed,
    /// Dropped, it closes the port.
    claim: oneshot::Sender<oneshot::Sender<Held>>,
}

impl Parked {
    /// Names the machine, binds the ports of one that is found asleep, and closes those that it does not ask for any more. To
    /// be called once.
    pub(crate) fn start(self: &Arc<Self>, machine: &Machine, list: PathBuf, names: &Arc<Names>) {
        if self.machine.set(machine.clone()).is_ok() {
            // Set together with the machine.
            let _ = self.list.set(list.clone());
            tokio::spawn(sweep(Arc::downgrade(self), machine.watch()));
            let (parked, names, watch) = (Arc::downgrade(self), Arc::clone(names), machine.watch());
            tokio::spawn(bind_again(parked, list, names, watch));
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
        let mut ports = self.ports();
        ports.retain(|port| !port.claim.is_closed());
        ports.push(Port { listed: Listed { address, protocol }, claim });
        if let Some(list) = self.list.get() {
            let listed: Vec<Listed> = ports.iter().map(|port| port.listed).collect();
            // A daemon that reads half a list binds the ports with the wake, as one that finds none.
            if let Err(error) = write_list(list, &listed) {
                tracing::debug!(%error, path = %list.display(), "list of waiting ports is not written");
            }
        }
    }

    /// Gives a port to who publishes it again.
    pub(super) async fn claim(&self, address: SocketAddr, protocol: Protocol) -> Option<Held> {
        let port = {
            let mut ports = self.ports();
            let at = ports.iter().position(|port| port.listed == Listed { address, protocol })?;
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

/// Binds the ports of a guest that this daemon has found asleep.
async fn bind_again(
    parked: std::sync::Weak<Parked>,
    list: PathBuf,
    names: Arc<Names>,
    mut watch: watch::Receiver<skiff_machine::Snapshot>,
) {
    let known = |phase| matches!(phase, Phase::Asleep | Phase::Running | Phase::Failed);
    match watch.wait_for(|snapshot| known(snapshot.phase)).await {
        Ok(snapshot) if snapshot.phase == Phase::Asleep => {}
        _ => return,
    }
    for Listed { address, protocol } in read_list(&list) {
        let Some(parked) = parked.upgrade() else { return };
        match super::bind(address, protocol, &names).await {
            Ok(held) if parked.sleeps() => parked.park(held),
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, port = address.port(), "port of the sleeping guest is not bound");
            }
        }
    }
}

fn write_list(path: &Path, ports: &[Listed]) -> io::Result<()> {
    // The first one parks before there is anything else of the sleep.
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, serde_json::to_vec(ports)?)
}

/// The ports in the list; none where it cannot be read.
fn read_list(path: &Path) -> Vec<Listed> {
    let read = || -> io::Result<Vec<Listed>> {
        if std::fs::metadata(path)?.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    };
    read().unwrap_or_else(|error| {
        tracing::debug!(%error, path = %path.display(), "no list of waiting ports");
        Vec::new()
    })
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
async fn knock(bound: &Bound) -> io::Result<Option<(TcpStream, SocketAddr)>> {
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
