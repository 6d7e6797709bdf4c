//! `egress`: a connection or a flow of datagrams that leaves as an ordinary socket of the host.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use skiff_link::{HOST_NAMES, Incoming, Protocol, ReplyCode, copy_both, copy_datagrams};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{NETWORK_DEADLINE, resolve};

/// How long an address may take while others are left to try.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(5);
/// How long a flow of datagrams is kept when nothing comes; a little longer than the guest keeps it.
const FLOW_IDLE: Duration = Duration::from_secs(130);
/// A server that goes away without a word is noticed, and routers between here and there remember the connection.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What a guest may reach.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// Whether this host's loopback is among it.
    pub(crate) loopback: bool,
    /// Where the daemon listens itself, which a guest must not reach through us.
    pub(crate) own: Own,
}

/// Tells where the daemon listens at this moment.
#[derive(Clone)]
pub(crate) struct Own(Arc<dyn Fn() -> Vec<SocketAddr> + Send + Sync>);

impl Own {
    /// Asks `addresses` for every connection: listeners come and go.
    pub(crate) fn new(addresses: impl Fn() -> Vec<SocketAddr> + Send + Sync + 'static) -> Self {
        Self(Arc::new(addresses))
    }
}

impl Default for Own {
    fn default() -> Self {
        Self::new(Vec::new)
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((self.0)()).finish()
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: ReplyCode,
    pub(super) message: String,
}

impl Policy {
    /// Whether a guest may reach an address; otherwise why not.
    pub(super) fn check(&self, address: SocketAddr) -> Result<(), &'static str> {
        let ip = address.ip().to_canonical();
        // The unspecified address is another word for this host.
        let here = ip.is_loopback() || ip.is_unspecified();
        if here && !self.loopback {
            return Err(
                "this host's loopback is closed to containers (network.host_loopback in settings.json)",
            );
        }
        if !here {
            // The daemon listens for this host alone, whatever address it had to take for that.
            return Ok(());
        }
        let is_own = |own: &SocketAddr| {
            let bound = own.ip().to_canonical();
            own.port() == address.port() && (bound == ip || bound.is_unspecified() || ip.is_unspecified())
        };
        if (self.own.0)().iter().any(is_own) { Err("this port belongs to the daemon") } else { Ok(()) }
    }

    /// The addresses behind a name or the text of an address.
    pub(super) async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let name = host.trim_end_matches('.');
        if is_host_name(name) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        resolve::lookup(name).await
    }
}

/// Whether guests know this host by this name.
pub(super) fn is_host_name(name: &str) -> bool {
    HOST_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

pub(super) async fn serve(incoming: Incoming, host: &str, port: u16, protocol: Protocol, policy: &Policy) {
    let dialing = async {
        match protocol {
            Protocol::Tcp => dial(host, port, policy).await.map(Outside::Connection),
            Protocol::Udp => flow(host, port, policy).await.map(Outside::Flow),
        }
    };
    let dialed = timeout(NETWORK_DEADLINE, dialing).await.unwrap_or_else(|_| {
        let message = format!("dial {protocol} {host}:{port}: i/o timeout");
        Err(Refusal { code: ReplyCode::TimedOut, message })
    });
    let outside = match dialed {
        Ok(outside) => outside,
        Err(Refusal { code, message }) => return incoming.refuse(code, message).await,
    };
    let Ok(guest) = incoming.accept(None).await else { return };
    let ended = match outside {
        Outside::Connection(mut outside) => {
            let ended = copy_both(guest, &mut outside).await;
            if ended.is_err() {
                // The other end is to see a reset, not an end.
                let _ = outside.set_zero_linger();
            }
            ended.map(drop)
        }
        Outside::Flow(socket) => copy_datagrams(guest, &socket, FLOW_IDLE).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, port, "outgoing connection broke");
    }
}

enum Outside {
    Connection(TcpStream),
    Flow(UdpSocket),
}

pub(super) async fn dial(host: &str, port: u16, policy: &Policy) -> Result<TcpStream, Refusal> {
    let refusal = |code, reason: &dyn fmt::Display| Refusal {
        code,
        message: format!("dial tcp {host}:{port}: {reason}"),
    };
    let addresses = policy
        .addresses(host)
        .await
        .map_err(|error| refusal(ReplyCode::NotFound, &format!("lookup: {error}")))?;
    let mut last = None;
    let count = addresses.len();
    for (index, ip) in addresses.into_iter().enumerate() {
        let address = SocketAddr::new(ip, port);
        if let Err(reason) = policy.check(address) {
            last = Some(refusal(ReplyCode::PermissionDenied, &reason));
            continue;
        }
        let limit = if index + 1 == count { NETWORK_DEADLINE } else { ADDRESS_DEADLINE };
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Best effort: a connection without them is only slower, or found dead later.
                let _ = stream.set_nodelay(true);
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                return Ok(stream);
            }
            // Of several refusals that of the first address is told.
            Ok(Err(error)) => {
                let _ = last.get_or_insert(refusal(code(ip, &error), &reason(&error)));
            }
            Err(_) => {
                let _ = last.get_or_insert(refusal(ReplyCode::TimedOut, &"i/o timeout"));
            }
        }
    }
    Err(last.unwrap_or_else(|| refusal(ReplyCode::NotFound, &"no address")))
}

/// A socket whose datagrams go to one address.
async fn flow(host: &str, port: u16, policy: &Policy) -> Result<UdpSocket, Refusal> {
    let refusal = |code, reason: &dyn fmt::Display| Refusal {
        code,
        message: format!("dial udp {host}:{port}: {reason}"),
    };
    let addresses = policy
        .addresses(host)
        .await
        .map_err(|error| refusal(ReplyCode::NotFound, &format!("lookup: {error}")))?;
    // Datagrams say nothing about who is there: the first address it is.
    let ip = addresses.first().ok_or_else(|| refusal(ReplyCode::NotFound, &"no address"))?;
    let address = SocketAddr::new(*ip, port);
    policy.check(address).map_err(|reason| refusal(ReplyCode::PermissionDenied, &reason))?;
    let any: SocketAddr = if ip.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let connected = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        Ok(socket)
    };
    connected.await.map_err(|error: io::Error| refusal(code(*ip, &error), &reason(&error)))
}

/// What the guest is told. A host without IPv6 has more than one way to say that no way leads there: to its own programs it
/// may say that there is no such family, or no address to send from, which a container could not see.
pub(super) fn code(ip: IpAddr, error: &io::Error) -> ReplyCode {
    #[cfg(unix)]
    const NO_SUCH_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    // WSAEAFNOSUPPORT
    #[cfg(not(unix))]
    const NO_SUCH_FAMILY: i32 = 10_047;
    let no_family = error.raw_os_error() == Some(NO_SUCH_FAMILY);
    match error.kind() {
        _ if no_family => ReplyCode::NetworkUnreachable,
        io::ErrorKind::AddrNotAvailable if ip.is_ipv6() => ReplyCode::NetworkUnreachable,
        _ => ReplyCode::from_io(error),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_loopback_has_many_names_and_all_are_closed_with_it() {
        let closed = Policy::default();
        for here in [
            "127.0.0.1:80",
            "127.8.9.1:80",
            "[::1]:80",
            "0.0.0.0:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:0:0]:80",
        ] {
            assert!(closed.check(address(here)).is_err(), "{here}");
            assert!(Policy { loopback: true, own: Own::default() }.check(address(here)).is_ok(), "{here}");
        }
        assert!(closed.check(address("192.0.2.1:80")).is_ok());
    }

    #[test]
    fn the_daemons_own_ports_are_closed_by_every_address() {
        let own = Own::new(|| vec![address("127.0.0.1:7000"), address("[::]:7001")]);
        let policy = Policy { loopback: true, own };
        for own in
            ["127.0.0.1:7000", "[::ffff:127.0.0.1]:7000", "0.0.0.0:7000", "127.0.0.1:7001", "[::1]:7001"]
        {
            assert!(policy.check(address(own)).is_err(), "{own}");
        }
        for other in ["127.0.0.1:7002", "127.0.0.2:7000", "192.0.2.1:7001"] {
            assert!(policy.check(address(other)).is_ok(), "{other}");
        }
    }

    #[tokio::test]
    async fn every_spelling_of_the_loopback_is_closed_to_those_who_dial() {
        let closed = Policy::default();
        for here in [
            "127.1",
            "0x7f000001",
            "2130706433",
            "localhost",
            "LOCALHOST.",
            "::1",
            "0:0:0:0:0:0:0:1",
            "::ffff:7f00:1",
            "::ffff:127.0.0.1",
            "::",
            "0",
            "host.docker.internal",
        ] {
            // Spellings that the system does not know lead nowhere, which is as well.
            let refused = dial(here, 9, &closed).await.unwrap_err();
            let closed = matches!(refused.code, ReplyCode::PermissionDenied | ReplyCode::NotFound);
            assert!(closed, "{here}: {}", refused.message);
            assert!(flow(here, 9, &Policy::default()).await.is_err(), "{here}");
        }
    }

    #[test]
    fn a_host_without_ipv6_says_that_no_way_leads_there() {
        let (six, four) = ("2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let no_address = io::Error::from(io::ErrorKind::AddrNotAvailable);
        assert_eq!(code(six, &no_address), ReplyCode::NetworkUnreachable);
        assert_eq!(code(four, &no_address), ReplyCode::Unreachable);
        #[cfg(target_os = "linux")]
        assert_eq!(code(six, &io::Error::from_raw_os_error(97)), ReplyCode::NetworkUnreachable);
        assert_eq!(code(six, &io::ErrorKind::ConnectionRefused.into()), ReplyCode::Refused);
    }

    #[tokio::test]
    async fn the_hosts_names_are_its_loopback() {
        let policy = Policy::default();
        let found = policy.addresses("HOST.docker.internal.").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && found.len() == 2);
    }
}
