//! Datagrams to a published port: those of one client are a flow, and each flow is a stream.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use skiff_link::{Args, Link, MAX_DATAGRAM, Protocol, StreamHeader, read_datagram, write_datagram};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::Places;

/// Flows of one port.
const FLOWS: usize = 1024;
/// Datagrams of one flow that wait for the link; more are lost, as on a slow network.
const WAITING: usize = 64;
/// How long the guest may take to open a flow.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// Carries datagrams until dropped; the flows end with it.
pub(super) async fn serve(
    link: &Link,
    socket: &Arc<UdpSocket>,
    loopback_only: bool,
    target: SocketAddr,
    places: &Places,
) {
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (length, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // Some systems tell here that an earlier answer did not arrive.
                Err(_) => {
                    tokio::task::yield_now().await;
                    continue;
                }
            },
            Some(_) = tasks.join_next() => continue,
        };
        if loopback_only && !from.ip().to_canonical().is_loopback() {
            continue;
        }
        let datagram = buffer[..length].to_vec();
        let datagram = match flows.get(&from) {
            Some(flow) => match flow.try_send(datagram) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => continue,
                // It was silent for too long, or broke: the next one begins.
                Err(mpsc::error::TrySendError::Closed(datagram)) => datagram,
            },
            None => datagram,
        };
        flows.retain(|_, flow| !flow.is_closed());
        if flows.len() >= FLOWS {
            tracing::debug!(conn = %from, %target, "published port has too many flows");
            continue;
        }
        let Ok(place) = Arc::clone(&places.connections).try_acquire_owned() else { continue };
        let (sender, receiver) = mpsc::channel(WAITING);
        // The channel is new and empty.
        let _ = sender.try_send(datagram);
        flows.insert(from, sender);
        let (link, socket, silence) = (link.clone(), Arc::clone(socket), places.silence);
        tasks.spawn(async move {
            if let Err(error) = flow(&link, &socket, from, target, receiver, silence).await {
                tracing::debug!(%error, conn = %from, %target, "flow to a published port broke");
            }
            drop(place);
        });
    }
}

/// One client's flow, until it is silent.
async fn flow(
    link: &Link,
    socket: &UdpSocket,
    client: SocketAddr,
    target: SocketAddr,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
    silence: Duration,
) -> io::Result<()> {
    let header = StreamHeader { args: Args::Dial { addr: target, protocol: Protocol::Udp } };
    let guest = timeout(OPEN_DEADLINE, link.open(&header)).await??;
    let (mut reader, mut writer) = tokio::io::split(guest);
    let activity = Activity::default();
    let forth = async {
        while let Some(datagram) = datagrams.recv().await {
            activity.touch();
            write_datagram(&mut writer, &datagram).await?;
        }
        io::Result::Ok(())
    };
    let back = async {
        let mut datagram = Vec::new();
        while read_datagram(&mut reader, &mut datagram).await? {
            activity.touch();
            // A client that has gone misses it.
            let _ = socket.send_to(&datagram, client).await;
        }
        io::Result::Ok(())
    };
    tokio::select! {
        ended = forth => ended,
        ended = back => ended,
        () = activity.silent_for(silence) => Ok(()),
    }
}

/// When something was last heard.
struct Activity(watch::Sender<Instant>);

impl Default for Activity {
    fn default() -> Self {
        Self(watch::Sender::new(Instant::now()))
    }
}

impl Activity {
    fn touch(&self) {
        self.0.send_replace(Instant::now());
    }

    /// Ends when nothing has been heard for this long.
    async fn silent_for(&self, limit: Duration) {
        loop {
            let until = *self.0.borrow() + limit;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
