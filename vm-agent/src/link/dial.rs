//! The `dial` service: a connection or a flow of datagrams to a container's address.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use skiff_link::{Incoming, Protocol, ReplyCode, copy_datagrams, copy_tcp};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// A container that runs answers at once; one that was just frozen or has gone does not.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// Longer than the host's own patience: the host ends flows.
const SILENCE: Duration = Duration::from_secs(300);

/// Serves one stream to its end.
pub async fn serve(incoming: Incoming, target: SocketAddr, protocol: Protocol) -> anyhow::Result<()> {
    match protocol {
        Protocol::Tcp => match connect(target).await {
            Ok(connection) => {
                // Interactive protocols suffer from waiting for more bytes.
                connection.set_nodelay(true)?;
                copy_tcp(incoming.accept(None).await?, connection).await?;
            }
            Err(error) => incoming.refuse(ReplyCode::from_io(&error), error.to_string()).await,
        },
        Protocol::Udp => match open_flow(target).await {
            Ok(socket) => copy_datagrams(incoming.accept(None).await?, &socket, SILENCE).await?,
            Err(error) => incoming.refuse(ReplyCode::from_io(&error), error.to_string()).await,
        },
    }
    Ok(())
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    timeout(CONNECT_DEADLINE, TcpStream::connect(target)).await.map_err(io::Error::from)?
}

async fn open_flow(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}
