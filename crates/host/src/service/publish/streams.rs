//! Connections to a published port: each becomes a stream.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use skiff_link::{Args, Link, OpenError, Protocol, StreamHeader, copy_tcp};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::Parked;

/// A port and where it leads.
pub(super) struct Port<'a> {
    pub(super) listener: &'a TcpListener,
    pub(super) loopback_only: bool,
    pub(super) target: SocketAddr,
}

/// Accepts until dropped, after those who have waited. Connections outlive this: a port that closes does not end them.
pub(super) async fn serve(
    link: &Link,
    port: Port<'_>,
    waiting: Vec<(TcpStream, SocketAddr)>,
    connections: &Arc<Semaphore>,
    parked: &Arc<Parked>,
) {
    let Port { listener, loopback_only, target } = port;
    let mut waiting = waiting.into_iter();
    loop {
        let Ok(place) = Arc::clone(connections).acquire_owned().await else { return };
        let client = match waiting.next() {
            Some(client) => Ok(client),
            None => listener.accept().await,
        };
        match client {
            Ok((client, from)) if loopback_only && !from.ip().to_canonical().is_loopback() => drop(client),
            Ok((client, from)) => {
                let (link, parked) = (link.clone(), Arc::clone(parked));
                tokio::spawn(async move {
                    if let Err(error) = forward(&link, client, target, &parked).await {
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

async fn forward(link: &Link, client: TcpStream, target: SocketAddr, parked: &Parked) -> io::Result<()> {
    client.set_nodelay(true)?;
    let header = StreamHeader { args: Args::Dial { addr: target, protocol: Protocol::Tcp } };
    let mut opened = link.open(&header).await;
    // It came a moment before the guest fell asleep.
    if matches!(opened, Err(OpenError::Link { .. }))
        && let Some(link) = parked.woken().await
    {
        opened = link.open(&header).await;
    }
    match opened {
        Ok(guest) => copy_tcp(guest, client).await.map(drop),
        Err(error) => {
            // The client has been accepted before the container could be asked: a reset is as near as this can come to
            // the refusal that it would have got there.
            client.set_zero_linger()?;
            Err(error.into())
        }
    }
}
