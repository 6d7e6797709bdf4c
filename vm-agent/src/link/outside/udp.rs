//! Datagrams: one flow, and one stream, for each container's socket and the address it sends to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skiff_link::{MAX_DATAGRAM, OpenError, Protocol, ReplyCode, copy_datagrams, write_datagram};
use skiff_network::outside::NAME_SERVER;
use skiff_network::outside::packet::{self, Unreachable};
use socket2::{Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::limits::Place;
use super::{Outside, egress, name, polled, transparent};

/// How long a flow is kept when nothing comes; the host keeps its socket a little longer.
const IDLE: Duration = Duration::from_secs(120);
/// Datagrams that wait for the host's answer.
const FIRST: usize = 64;
const DOMAIN: u16 = 53;

type Key = (SocketAddr, SocketAddr);

/// Flows whose stream is not there yet, and where their first datagrams go.
#[derive(Default)]
struct Beginning(Mutex<HashMap<Key, mpsc::Sender<Vec<u8>>>>);

impl Beginning {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<Key, mpsc::Sender<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn serve(outside: Arc<Outside>, listeners: Vec<Socket>) -> io::Result<Infallible> {
    let names = Arc::new(UdpSocket::from_std(
        transparent(SocketAddr::from((NAME_SERVER, DOMAIN)), Type::DGRAM)?.into(),
    )?);
    let mut receiving = tokio::task::JoinSet::new();
    for listener in listeners {
        receiving.spawn(receive(Arc::clone(&outside), polled(listener)?, Arc::clone(&names)));
    }
    loop {
        // None of them ends but by an error.
        if let Some(ended) = receiving.join_next().await {
            return ended.map_err(io::Error::other)?;
        }
    }
}

async fn receive(
    outside: Arc<Outside>,
    listener: AsyncFd<Socket>,
    names: Arc<UdpSocket>,
) -> io::Result<Infallible> {
    let beginning = Arc::new(Beginning::default());
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let mut ready = listener.readable().await?;
        let received = ready
            .try_io(|socket| skiff_linux_sys::transparent::receive(socket.get_ref().as_fd(), &mut buffer));
        drop(ready);
        let Ok(received) = received else { continue };
        let datagram = match received {
            Ok(datagram) => datagram,
            Err(error) => {
                tracing::debug!(%error, "datagram is lost");
                continue;
            }
        };
        let bytes = buffer[..datagram.length].to_vec();
        if datagram.to.ip() == NAME_SERVER {
            if datagram.to.port() == DOMAIN {
                name::serve_datagram(&outside, &names, datagram.from, bytes);
            } else {
                refuse(&outside, (datagram.from, datagram.to), Unreachable::Port);
            }
            continue;
        }
        take(&outside, &beginning, (datagram.from, datagram.to), bytes);
    }
}

/// Gives a datagram to the flow that is beginning, or begins one.
fn take(outside: &Arc<Outside>, beginning: &Arc<Beginning>, key: Key, bytes: Vec<u8>) {
    let mut map = beginning.map();
    if let Some(flow) = map.get(&key) {
        // Too many before the first answer: some are lost, as on any network.
        let _ = flow.try_send(bytes);
        return;
    }
    let Some(place) = outside.place(key.0.ip()) else { return };
    // Connected at once, so that the next datagrams go there and not to the listener.
    let socket = match connected(key) {
        Ok(socket) => socket,
        Err(error) => return tracing::debug!(%error, to = %key.1, "datagrams have no socket"),
    };
    let (sender, first) = mpsc::channel(FIRST);
    let _ = sender.try_send(bytes);
    map.insert(key, sender);
    tokio::spawn(flow(Arc::clone(outside), Arc::clone(beginning), key, socket, first, place));
}

/// A socket that sends as the far end, to the container, and receives what the container sends there.
fn connected((container, far): Key) -> io::Result<UdpSocket> {
    let socket = transparent(far, Type::DGRAM)?;
    socket.connect(&container.into())?;
    UdpSocket::from_std(socket.into())
}

async fn flow(
    outside: Arc<Outside>,
    beginning: Arc<Beginning>,
    key: Key,
    socket: UdpSocket,
    mut first: mpsc::Receiver<Vec<u8>>,
    place: Place,
) {
    let opened = match outside.host.link() {
        Some(link) => link.open(&egress(key.1, Protocol::Udp)).await.map_err(Some),
        None => Err(None),
    };
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            beginning.map().remove(&key);
            let Some(OpenError::Refused { code, message, .. }) = error else { return };
            tracing::debug!(to = %key.1, message, "datagrams are refused");
            match code {
                ReplyCode::NetworkUnreachable => refuse(&outside, key, Unreachable::Network),
                ReplyCode::Unreachable => refuse(&outside, key, Unreachable::Host),
                ReplyCode::PermissionDenied => refuse(&outside, key, Unreachable::Prohibited),
                _ => {}
            }
            return;
        }
    };
    // What comes from here on comes to the socket.
    beginning.map().remove(&key);
    while let Ok(datagram) = first.try_recv() {
        if write_datagram(&mut stream, &datagram).await.is_err() {
            return;
        }
    }
    match copy_datagrams(stream, &socket, IDLE).await {
        // The host's end was told that nobody is there.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            refuse(&outside, key, Unreachable::Port)
        }
        Err(error) => tracing::debug!(%error, to = %key.1, "datagrams end"),
        Ok(()) => {}
    }
    drop(place);
}

/// Tells a container that its datagrams arrive nowhere.
fn refuse(outside: &Outside, (container, far): Key, why: Unreachable) {
    if let Some(packet) = packet::unreachable(container, far, why) {
        outside.deliver(&packet);
    }
}
