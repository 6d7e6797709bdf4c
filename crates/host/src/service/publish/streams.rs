//! Connections to a published port: each becomes a stream.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use skiff_link::{Args, Link, Protocol, StreamHeader, copy_tcp};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Accepts until dropped. Connections outlive this: a port that closes does not end them.
pub(super) async fn serve(
    link: &Link,
    listener: &TcpListener,
    loopback_only: bool,
    target: SocketAddr,
    connections: &Arc<Semaphore>,
) {
    loop {
        let Ok(place) = Arc::clone(connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, from)) if loopback_only && !from.ip().to_canonical().is_loopback() => drop(client),
            Ok((client, from)) => {
                let link = link.clone();
                tokio::spawn(async move {
                    if let Err(error) = forward(&link, client, target).await {
                        tracing::debug!(%error, conn = %from, %target, "connection to a published port broke");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "published port does not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn forward(link: &Link, client: TcpStream, target: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let header = StreamHeader { args: Args::Dial { addr: target, protocol: Protocol::Tcp } };
    match link.open(&header).await {
        Ok(guest) => copy_tcp(guest, client).await.map(drop),
        Err(error) => {
            // The client has been accepted before the container could be asked: a reset is as near as this can come to
            // the refusal that it would have got there.
            client.set_zero_linger()?;
            Err(error.into())
        }
    }
}
