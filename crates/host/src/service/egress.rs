//! `egress`: a connection that leaves as an ordinary socket of the host.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use skiff_link::{Incoming, Protocol, ReplyCode, copy_both};
use tokio::{net::TcpStream, time::timeout};

use super::{NETWORK_DEADLINE, resolve};

/// Names by which guests know the host.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];
/// How long an address may take while others are left to try.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(5);

/// Why there is no connection.
struct Refusal {
    code: ReplyCode,
    message: String,
}

pub(super) async fn serve(incoming: Incoming, host: &str, port: u16, protocol: Protocol, own: &[SocketAddr]) {
    if protocol != Protocol::Tcp {
        let message = format!("the host does not dial {protocol} yet");
        return incoming.refuse(ReplyCode::Unsupported, message).await;
    }
    let dialed = timeout(NETWORK_DEADLINE, dial(host, port, own)).await.unwrap_or_else(|_| {
        Err(Refusal { code: ReplyCode::TimedOut, message: format!("dial tcp {host}:{port}: i/o timeout") })
    });
    let outside = match dialed {
        Ok(outside) => outside,
        Err(Refusal { code, message }) => return incoming.refuse(code, message).await,
    };
    let Ok(guest) = incoming.accept(None).await else { return };
    if let Err(error) = copy_both(guest, outside).await {
        tracing::debug!(%error, port, "outgoing connection broke");
    }
}

async fn dial(host: &str, port: u16, own: &[SocketAddr]) -> Result<TcpStream, Refusal> {
    let refusal = |code, reason: &dyn std::fmt::Display| Refusal {
        code,
        message: format!("dial tcp {host}:{port}: {reason}"),
    };
    let addresses =
        addresses(host).await.map_err(|error| refusal(ReplyCode::NotFound, &format!("lookup: {error}")))?;
    let mut last = None;
    let count = addresses.len();
    for (index, ip) in addresses.into_iter().enumerate() {
        let address = SocketAddr::new(ip, port);
        if own.contains(&address) {
            last = Some(refusal(ReplyCode::PermissionDenied, &"this port belongs to the daemon"));
            continue;
        }
        let limit = if index + 1 == count { NETWORK_DEADLINE } else { ADDRESS_DEADLINE };
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Best effort: a connection without it is only slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(refusal(ReplyCode::from_io(&error), &reason(&error))),
            Err(_) => last = Some(refusal(ReplyCode::TimedOut, &"i/o timeout")),
        }
    }
    Err(last.unwrap_or_else(|| refusal(ReplyCode::NotFound, &"no address")))
}

async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    let name = host.trim_end_matches('.');
    if HOST_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    resolve::lookup(name).await
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}
