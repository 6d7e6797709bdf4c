//! Connections: a SYN is held until the host has dialed, then let through, refused or dropped as the host was.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skiff_link::{BoxStream, OpenError, Protocol, ReplyCode, copy_both};
use skiff_network::outside::{Held, LISTENER, LISTENER6, NAME_SERVER, SynQueue, Verdict};
use socket2::{Socket, TcpKeepalive};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};

use super::limits::Place;
use super::{Outside, egress, name};

/// How long a dialed connection waits for the rest of its container's handshake.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// A container that goes away says nothing to its connections: they are asked.
const KEEPALIVE: Duration = Duration::from_secs(60);
const DOMAIN: u16 = 53;

/// Who connects to whom.
type Key = (SocketAddr, SocketAddr);
type Queue = Arc<AsyncFd<SynQueue>>;

/// Connections between their SYN and their handshake's end.
#[derive(Default)]
struct Waiting(Mutex<HashMap<Key, Stage>>);

enum Stage {
    /// The host dials; the SYN is held.
    Dialing,
    /// The SYN was let through.
    Dialed(Dialed),
}

/// What the handshake's end meets.
enum Dialed {
    Stream(BoxStream, Place),
    /// The name server is served here.
    Names(Place),
}

impl Waiting {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Stage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, key: Key) -> Option<Dialed> {
        match self.map().remove(&key)? {
            Stage::Dialed(dialed) => Some(dialed),
            Stage::Dialing => None,
        }
    }
}

pub(super) async fn serve(
    outside: Arc<Outside>,
    queue: Queue,
    listeners: Vec<Socket>,
) -> io::Result<Infallible> {
    let waiting = Arc::new(Waiting::default());
    let mut accepting = tokio::task::JoinSet::new();
    let asked = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4).with_retries(4);
    for listener in listeners {
        // Connections have what their listener has, which saves the calls for each of them.
        listener.set_tcp_nodelay(true)?;
        listener.set_tcp_keepalive(&asked)?;
        let listener = TcpListener::from_std(listener.into())?;
        let (outside, waiting) = (Arc::clone(&outside), Arc::clone(&waiting));
        accepting.spawn(async move { accept(&outside, &listener, &waiting).await });
    }
    decide(&outside, &queue, &waiting).await
}

/// Reads held SYNs and has each of them decided.
async fn decide(outside: &Arc<Outside>, queue: &Queue, waiting: &Arc<Waiting>) -> io::Result<Infallible> {
    let mut held = Vec::new();
    loop {
        let mut ready = queue.readable().await?;
        match ready.try_io(|queue| queue.get_ref().read(&mut held)) {
            Ok(Ok(())) => {}
            // Packets were lost: their senders try again.
            Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                tracing::debug!("too many connections begin at once");
            }
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
        drop(ready);
        for syn in held.drain(..) {
            let key = (syn.from, syn.to);
            let mut map = waiting.map();
            match map.get(&key) {
                // The same SYN again: the first one decides.
                Some(Stage::Dialing) => say(queue, syn, Verdict::Drop),
                // The answer to the first one was lost.
                Some(Stage::Dialed(_)) => say(queue, syn, Verdict::Pass),
                None => {
                    let Some(place) = outside.place(key.0.ip()) else {
                        say(queue, syn, Verdict::Drop);
                        continue;
                    };
                    map.insert(key, Stage::Dialing);
                    drop(map);
                    let (outside, queue) = (Arc::clone(outside), Arc::clone(queue));
                    tokio::spawn(dial(outside, queue, Arc::clone(waiting), syn, place));
                }
            }
        }
    }
}

fn say(queue: &Queue, syn: Held, verdict: Verdict) {
    if let Err(error) = queue.get_ref().decide(syn.id, verdict) {
        tracing::debug!(%error, "verdict is not delivered");
    }
}

async fn dial(outside: Arc<Outside>, queue: Queue, waiting: Arc<Waiting>, syn: Held, place: Place) {
    let key: Key = (syn.from, syn.to);
    let verdict = match open(&outside, key.1, place).await {
        Ok(dialed) => {
            waiting.map().insert(key, Stage::Dialed(dialed));
            Verdict::Pass
        }
        Err(verdict) => {
            waiting.map().remove(&key);
            verdict
        }
    };
    say(&queue, syn, verdict);
    if verdict == Verdict::Pass {
        tokio::time::sleep(HANDSHAKE).await;
        // The container gave up meanwhile, if the stream is still there. A later connection between the same two may be
        // dropped with it: it tries again.
        drop(waiting.take(key));
    }
}

async fn open(outside: &Outside, to: SocketAddr, place: Place) -> Result<Dialed, Verdict> {
    if to.ip() == NAME_SERVER {
        return if to.port() == DOMAIN { Ok(Dialed::Names(place)) } else { Err(Verdict::Refuse) };
    }
    let Some(link) = outside.host.link() else { return Err(Verdict::Drop) };
    match link.open(&egress(to, Protocol::Tcp)).await {
        Ok(stream) => Ok(Dialed::Stream(stream, place)),
        Err(OpenError::Refused { code, message, .. }) => {
            let verdict = verdict(code);
            tracing::debug!(%to, message, ?verdict, "connection out is refused");
            Err(verdict)
        }
        Err(error) => {
            tracing::debug!(%to, %error, "connection out is not dialed");
            Err(Verdict::Drop)
        }
    }
}

/// What the container sees where the host saw this.
fn verdict(code: ReplyCode) -> Verdict {
    match code {
        ReplyCode::Ok => Verdict::Pass,
        ReplyCode::Refused => Verdict::Refuse,
        ReplyCode::Unreachable => Verdict::HostUnreachable,
        ReplyCode::NetworkUnreachable | ReplyCode::Unsupported => Verdict::NetworkUnreachable,
        ReplyCode::PermissionDenied | ReplyCode::Invalid | ReplyCode::NotFound => Verdict::Prohibit,
        // Silence is what a timeout looks like, and what is over for now comes again.
        ReplyCode::TimedOut | ReplyCode::Limit | ReplyCode::Internal | ReplyCode::AddressInUse => {
            Verdict::Drop
        }
    }
}

/// Takes connections whose SYN was let through.
async fn accept(outside: &Arc<Outside>, listener: &TcpListener, waiting: &Waiting) {
    loop {
        let (connection, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connections out are not taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(to) = connection.local_addr() else { continue };
        // What an address of a link says beside itself is not in a packet.
        let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
        match waiting.take((plain(from), plain(to))) {
            Some(Dialed::Stream(stream, place)) => {
                tokio::spawn(carry(connection, stream, place));
            }
            Some(Dialed::Names(place)) => {
                let outside = Arc::clone(outside);
                tokio::spawn(async move {
                    // A client that goes away concerns nobody.
                    let _ = name::serve_stream(&outside, connection).await;
                    drop(place);
                });
            }
            // Somebody connected to the listener itself, or took too long.
            None => {
                if ![LISTENER, LISTENER6].contains(&to) {
                    tracing::debug!(%from, %to, "connection out has no stream");
                }
                let _ = connection.set_zero_linger();
            }
        }
    }
}

async fn carry(mut connection: TcpStream, stream: BoxStream, place: Place) {
    if let Err(error) = copy_both(&mut connection, stream).await {
        tracing::debug!(%error, "connection out broke");
        // The container is to see a reset, not an end.
        let _ = connection.set_zero_linger();
    }
    drop(place);
}
