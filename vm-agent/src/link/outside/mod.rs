//! The way out: what containers send to the world becomes streams that the host dials.
//!
//! ```text
//!  TCP   SYN held ──egress──► host dials ──► verdict ──► transparent listener: the connection meets its stream
//!  UDP   transparent listener: a socket per flow, connected to the container ──egress──► host
//!  DNS   to NAME_SERVER, over either ──query──► host's resolver
//!  ICMP  echo requests out of the tunnel ──echo──► host pings
//!
//!  IPv4 and IPv6 alike; where the host has no IPv6, it says so as to any process of its own.
//! ```
//!
//! It is in the router's process because every byte here goes to or from a stream of the link: a process of its own would
//! copy each of them once more, and flows end with the link anyway. They outlive the engine, which sets up the packet
//! filter only. Nothing waits for any of this at boot: it is set up a moment after the link is up, and until then what
//! leaves disappears, so that clients try again.

mod clients;
mod echo;
mod limits;
mod name;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use skiff_link::{Args, Link, Protocol, StreamHeader};
use skiff_network::outside::{LISTENER, LISTENER6, SynQueue, Way, has_ipv6};
use socket2::{Domain, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use self::clients::Clients;
use self::limits::{Limits, Place};

/// The first call to the guest is answered in this time: it must not share the processor with us.
const FIRST_ANSWER: Duration = Duration::from_millis(700);
const RETRY: Duration = Duration::from_secs(5);
/// Open files, of which every flow needs one.
const FILES: u64 = 64 * 1024;

/// The host's end, as long as there is one.
#[derive(Clone)]
pub(super) struct Host(pub(super) Arc<watch::Sender<Option<Link>>>);

impl Host {
    /// The link of this moment.
    fn link(&self) -> Option<Link> {
        self.0.borrow().clone()
    }
}

/// What all flows share.
struct Outside {
    host: Host,
    limits: Arc<Limits>,
    clients: Clients,
    /// Packets that come back out of the tunnel.
    tunnel: AsyncFd<Way>,
}

impl Outside {
    /// Takes a place for a flow from this address, if there is one.
    fn place(&self, from: IpAddr) -> Option<Place> {
        self.limits.take(self.clients.of(from))
    }

    /// Sends one packet to whom it is addressed to. One that finds no room is lost, as on any network.
    fn deliver(&self, packet: &[u8]) {
        let mut tunnel: &std::fs::File = self.tunnel.get_ref().tunnel();
        if let Err(error) = std::io::Write::write(&mut tunnel, packet) {
            tracing::debug!(%error, "packet is not delivered");
        }
    }
}

/// Carries everything that leaves, for as long as the process lives.
pub(super) async fn serve(host: Host) {
    let _ = host.0.subscribe().wait_for(Option::is_some).await;
    tokio::time::sleep(FIRST_ANSWER).await;
    loop {
        match run(host.clone()).await {
            Ok(never) => match never {},
            Err(error) => tracing::error!(error = format!("{error:#}"), "containers have no way out"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn run(host: Host) -> anyhow::Result<std::convert::Infallible> {
    let started = std::time::Instant::now();
    raise_file_limit();
    // The kernel may have to load modules.
    let (way, queue) = tokio::task::spawn_blocking(|| anyhow::Ok((Way::open()?, SynQueue::open()?)))
        .await?
        .context("set up the way out")?;
    let outside =
        Arc::new(Outside { host, limits: Arc::default(), clients: Clients::default(), tunnel: polled(way)? });
    let (connections, datagrams) = (listen(Type::STREAM)?, listen(Type::DGRAM)?);
    let queue = Arc::new(polled(queue)?);
    tracing::info!(elapsed_ms = started.elapsed().as_millis() as u64, "way out is set up");
    tokio::select! {
        ended = tcp::serve(Arc::clone(&outside), queue, connections) => ended.context("carry connections"),
        ended = udp::serve(Arc::clone(&outside), datagrams) => ended.context("carry datagrams"),
        ended = echo::serve(Arc::clone(&outside)) => ended.context("carry pings"),
    }
}

/// A descriptor that tokio waits for.
#[expect(deprecated, reason = "its successor is unsafe, and what is given here owns its descriptor")]
fn polled<T: std::os::fd::AsRawFd>(inner: T) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::new(inner)
}

/// Sockets that take what was meant for others, one for each family of the kernel.
fn listen(kind: Type) -> anyhow::Result<Vec<Socket>> {
    let addresses = [Some(LISTENER), has_ipv6().then_some(LISTENER6)];
    let open = |address| -> anyhow::Result<Socket> {
        let socket = transparent(address, kind)?;
        if kind == Type::STREAM {
            socket.listen(4096)?;
        } else {
            skiff_linux_sys::transparent::tell_destinations(&socket, address.is_ipv6())?;
        }
        Ok(socket)
    };
    addresses.into_iter().flatten().map(open).collect()
}

/// A socket on an address that need not be this machine's.
fn transparent(address: SocketAddr, kind: Type) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        skiff_linux_sys::transparent::set_transparent_v6(&socket)?;
    } else {
        socket.set_ip_transparent_v4(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// How the host is asked for a flow; the host's own address has its name there.
fn egress(to: SocketAddr, protocol: Protocol) -> StreamHeader {
    StreamHeader::new(Args::Egress { host: host_of(to.ip()), port: to.port(), protocol })
}

fn host_of(ip: IpAddr) -> String {
    let is_host = ip == skiff_link::HOST_ADDRESS || ip == skiff_link::HOST_ADDRESS6;
    if is_host { skiff_link::HOST_NAMES[0].to_owned() } else { ip.to_string() }
}

fn raise_file_limit() {
    let wanted = rustix::process::Rlimit { current: Some(FILES), maximum: Some(FILES) };
    if let Err(errno) = rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted) {
        tracing::warn!(error = %errno, "limit of open files stays");
    }
}
