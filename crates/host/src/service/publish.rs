//! `publish`: a port of the host that leads to a container, for as long as the guest's stream lives.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use skiff_link::{Args, Incoming, Link, Protocol, ReplyCode, StreamHeader, copy_both};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::port_owner;

/// What is to be published.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) container: String,
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) target: SocketAddr,
}

/// The addresses that are published now, for messages.
#[derive(Debug, Default)]
pub(super) struct Published(Mutex<HashMap<SocketAddr, String>>);

impl Published {
    fn has(&self, address: SocketAddr) -> bool {
        let published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.keys().any(|known| {
            let overlap =
                known.ip() == address.ip() || known.ip().is_unspecified() || address.ip().is_unspecified();
            known.port() == address.port() && overlap
        })
    }

    fn enter(&self, address: SocketAddr, container: &str) -> Entry<'_> {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.insert(address, container.to_owned());
        Entry { published: self, address }
    }
}

/// An address that is published as long as this exists.
struct Entry<'a> {
    published: &'a Published,
    address: SocketAddr,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.published.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.address);
    }
}

pub(super) async fn serve(
    link: &Link,
    incoming: Incoming,
    wish: Wish,
    published: &Published,
    connections: &Arc<Semaphore>,
) {
    if wish.protocol != Protocol::Tcp {
        let message = format!("{} ports cannot be published yet, only tcp", wish.protocol);
        return incoming.refuse(ReplyCode::Unsupported, message).await;
    }
    let bound = TcpListener::bind(wish.address).await.and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    let (listener, address) = match bound {
        Ok(bound) => bound,
        Err(error) => {
            let message = explain(&error, wish.address, published).await;
            tracing::info!(container = %wish.container, port = wish.address.port(), error = %message, "port is not published");
            return incoming.refuse(ReplyCode::from_io(&error), message).await;
        }
    };
    let _entry = published.enter(address, &wish.container);
    let Ok(mut stream) = incoming.accept(Some(json!({ "host_port": address.port() }))).await else { return };
    tracing::info!(container = %wish.container, port = address.port(), "port is published");
    let ended = async {
        // Nothing is ever sent here: the end of the stream is the end of the port.
        let mut sink = [0; 64];
        while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {}
    };
    tokio::select! {
        () = ended => {}
        () = accept(link, &listener, wish.target, connections) => {}
    }
    tracing::info!(container = %wish.container, port = address.port(), "port is closed");
}

async fn accept(link: &Link, listener: &TcpListener, target: SocketAddr, connections: &Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(connections).acquire_owned().await else { return };
        match listener.accept().await {
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
    let guest = link.open(&header).await?;
    copy_both(client, guest).await?;
    Ok(())
}

/// Says in Docker's words why an address cannot be bound, and who has it.
async fn explain(error: &io::Error, address: SocketAddr, published: &Published) -> String {
    let family = if address.is_ipv4() { "tcp4" } else { "tcp6" };
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse if published.has(address) => {
            return format!("Bind for {address} failed: port is already allocated");
        }
        io::ErrorKind::AddrInUse => {
            let owner = tokio::task::spawn_blocking(move || port_owner::find(address)).await.ok().flatten();
            match owner {
                Some(owner) => format!("address already in use (by {}, pid {})", owner.name, owner.pid),
                None => "address already in use".to_owned(),
            }
        }
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        _ => error.to_string(),
    };
    format!("listen {family} {address}: bind: {reason}")
}
