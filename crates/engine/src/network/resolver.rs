//! The resolver at 127.0.0.11: two sockets in the container's network namespace, served by the engine.
//!
//! The sockets have ports of their own, to which the namespace's packet filter leads port 53: so a name server inside the
//! container can have that port, as with dockerd. They belong to the engine; after a restart the next one opens new ones.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use skiff_dns::{Code, Data, Kind, Question};
use skiff_network::{NetNs, redirect_resolver};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::RESOLVER;
use super::forward::{read_message, write_message};
use crate::engine::{Engine, Inner};
use crate::error::{Error, Result};

/// As long as Docker lets names of containers be remembered, in seconds.
const TTL: u32 = 600;
/// Questions of one container that wait for an answer from elsewhere.
const MOST_WAITING: usize = 1024;
const MOST_CONNECTIONS: usize = 64;
/// How long a silent connection is kept.
const SILENCE: Duration = Duration::from_secs(30);

/// A container's resolver. Dropped, it stops answering.
#[derive(Debug)]
pub(crate) struct Resolver {
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Resolver {
    /// Opens the sockets in a namespace and serves them for a container.
    ///
    /// # Errors
    /// When the kernel refuses the sockets or the packet filter.
    pub fn start(engine: &Engine, container: &str, netns: &NetNs) -> Result<Self> {
        let open = || -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
            let udp = std::net::UdpSocket::bind((RESOLVER, 0))?;
            let tcp = std::net::TcpListener::bind((RESOLVER, 0))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((udp, tcp))
        };
        let failed = |error: &dyn std::error::Error| Error::internal("failed to set up container DNS", error);
        let (udp, tcp) = netns
            .enter(|| -> Result<_> {
                let (udp, tcp) = open().map_err(|error| failed(&error))?;
                let port = |address: io::Result<SocketAddr>| address.map(|address| address.port());
                let ports = port(udp.local_addr()).and_then(|udp| Ok((udp, port(tcp.local_addr())?)));
                let ports = ports.map_err(|error| failed(&error))?;
                redirect_resolver(RESOLVER, ports.0, ports.1).map_err(|error| failed(&error))?;
                Ok((udp, tcp))
            })
            .map_err(|error| failed(&error))??;
        let _inside = engine.0.runtime.enter();
        let udp = UdpSocket::from_std(udp).map_err(|error| failed(&error))?;
        let tcp = TcpListener::from_std(tcp).map_err(|error| failed(&error))?;
        let asker = Asker {
            engine: Arc::downgrade(&engine.0),
            container: container.to_owned(),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            turn: Arc::default(),
        };
        let tasks = [
            engine.0.runtime.spawn(serve_datagrams(Arc::new(udp), asker.clone())),
            engine.0.runtime.spawn(serve_streams(tcp, asker)),
        ];
        Ok(Self { tasks })
    }
}

/// The container that asks.
#[derive(Clone)]
struct Asker {
    engine: Weak<Inner>,
    container: String,
    waiting: Arc<Semaphore>,
    /// Counts answers, so that each of several replicas is named first in its turn.
    turn: Arc<AtomicUsize>,
}

async fn serve_datagrams(socket: Arc<UdpSocket>, asker: Asker) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // An answer that could not be delivered shows up here.
            tokio::task::yield_now().await;
            continue;
        };
        let Some(question) = Question::parse(&buffer[..length]) else { continue };
        if let Some(answer) = asker.know(&question) {
            let _ = socket.send_to(&question.fit_datagram(answer), from).await;
            continue;
        }
        let Ok(place) = Arc::clone(&asker.waiting).try_acquire_owned() else {
            let _ = socket.send_to(&question.answer(Code::ServerFailure, &[], 0), from).await;
            continue;
        };
        let (socket, asker, message) = (Arc::clone(&socket), asker.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            let answer = asker.forward(&question, &message, false).await;
            let _ = socket.send_to(&answer, from).await;
            drop(place);
        });
    }
}

async fn serve_streams(listener: TcpListener, asker: Asker) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let asker = asker.clone();
                tokio::spawn(async move {
                    // A client that goes away concerns nobody.
                    let _ = serve_stream(stream, &asker).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve_stream(mut stream: TcpStream, asker: &Asker) -> io::Result<()> {
    loop {
        let message = timeout(SILENCE, read_message(&mut stream)).await??;
        let Some(question) = Question::parse(&message) else { return Ok(()) };
        let answer = match asker.know(&question) {
            Some(answer) => answer,
            None => asker.forward(&question, &message, true).await,
        };
        write_message(&mut stream, &answer).await?;
    }
}

impl Asker {
    /// The answer about containers; `None` when the question is not about any.
    fn know(&self, question: &Question) -> Option<Vec<u8>> {
        let engine = Engine(self.engine.upgrade()?);
        if let Some(ip) = question.reverse() {
            let name = engine.resolve_address(&self.container, ip)?;
            return Some(question.answer(Code::NoError, &[Data::Name(name)], TTL));
        }
        let mut addresses = engine.resolve_name(&self.container, &question.name)?;
        // What is left may be nothing: the answer that the name has no address of this kind.
        addresses.retain(|ip| match question.kind {
            Kind::A => ip.is_ipv4(),
            Kind::Aaaa => ip.is_ipv6(),
            // The name exists, and has nothing of that kind: nobody else may say that it does not.
            _ => false,
        });
        let turn = match question.kind {
            // Clients ask for both kinds at once: each pair of questions is one turn.
            Kind::Aaaa => self.turn.load(Ordering::Relaxed),
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let turn = turn % addresses.len().max(1);
        addresses.rotate_left(turn);
        let records: Vec<_> = addresses.into_iter().map(Data::Address).collect();
        Some(question.answer(Code::NoError, &records, TTL))
    }

    /// Asks somebody else.
    async fn forward(&self, question: &Question, message: &[u8], stream: bool) -> Vec<u8> {
        let answer = match self.engine.upgrade().map(Engine) {
            Some(engine) => engine.forward_question(&self.container, message, stream).await,
            None => Err(io::Error::other("the engine is stopping")),
        };
        answer.unwrap_or_else(|error| {
            tracing::debug!(%error, container = self.container, "name is not resolved");
            question.answer(Code::ServerFailure, &[], 0)
        })
    }
}

impl Engine {
    /// Asks the container's own name servers, or those of the machine.
    ///
    /// A container with no way out gets answers only from servers on its own networks: names would be a way out too.
    async fn forward_question(&self, container: &str, message: &[u8], stream: bool) -> io::Result<Vec<u8>> {
        let record = self.asking(container).ok_or_else(|| io::Error::other("the container is gone"))?;
        let mut servers: Vec<IpAddr> =
            record.host_config.dns.iter().flatten().filter_map(|server| server.parse().ok()).collect();
        if !record.endpoints.iter().any(|endpoint| endpoint.default_route || endpoint.default_route6) {
            let networks: Vec<_> =
                record.endpoints.iter().filter_map(|endpoint| self.network_of(endpoint).ok()).collect();
            servers.retain(|server| networks.iter().any(|network| network.record().contains(*server)));
            if servers.is_empty() {
                return Err(io::Error::other("the container has no way out"));
            }
        }
        self.0.config.forwarder.ask(message, &servers, stream).await
    }
}
