//! `publish`: a port of the host that leads to a container, for as long as the guest's stream lives.

mod bind;
mod datagrams;
mod parked;
mod streams;
mod table;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use serde_json::json;
use skiff_link::{Incoming, Link, Protocol, ReplyCode};
use skiff_listeners::Transport;
use tokio::{io::AsyncReadExt, sync::Semaphore};

use self::{bind::Bound, parked::Held, table::PublishedPort};
pub(crate) use self::{bind::bind_loopback, parked::Parked, table::Table};
use crate::names::Names;

/// What is to be published.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) container: String,
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) target: SocketAddr,
}

/// What published ports may take together.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Connections, and flows of datagrams.
    pub(super) connections: Arc<Semaphore>,
    /// How long a flow of datagrams may be silent.
    pub(super) silence: Duration,
}

pub(super) async fn serve(
    link: &Link,
    incoming: Incoming,
    wish: Wish,
    published: &Table,
    places: &Places,
    names: &Arc<Names>,
    parked: &Arc<Parked>,
) {
    let held = match parked.claim(wish.address, wish.protocol).await {
        Some(held) => Ok(held),
        None => bind(wish.address, wish.protocol, names).await,
    };
    let Held { bound, yielded, clients } = match held {
        Ok(held) => held,
        Err(error) => {
            names.take_back();
            let message = explain(&error, &wish, published).await;
            tracing::info!(container = %wish.container, port = wish.address.port(), error = %message, "port is not published");
            return incoming.refuse(ReplyCode::from_io(&error), message).await;
        }
    };
    let address = bound.address;
    let port = PublishedPort {
        address,
        protocol: wish.protocol,
        container: wish.container.clone(),
        target: wish.target,
    };
    let _entry = published.enter(port);
    let Ok(mut stream) = incoming.accept(Some(json!({ "host_port": address.port() }))).await else { return };
    tracing::info!(container = %wish.container, port = address.port(), "port is published");
    let ended = async {
        // Nothing is ever sent here: the end of the stream is the end of the port.
        let mut sink = [0; 64];
        while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {}
    };
    let serve = async {
        match &bound {
            Bound { socket: bind::Socket::Tcp(listener), loopback_only, .. } => {
                let port = streams::Port { listener, loopback_only: *loopback_only, target: wish.target };
                streams::serve(link, port, clients, &places.connections, parked).await;
            }
            Bound { socket: bind::Socket::Udp(socket), loopback_only, .. } => {
                datagrams::serve(link, socket, *loopback_only, wish.target, places).await;
            }
        }
    };
    tokio::pin!(ended);
    tokio::select! {
        () = &mut ended => {}
        () = serve => {}
        // Nobody is sent to a guest that is about to stand still.
        () = parked.falls_asleep() => {}
    }
    if parked.sleeps() {
        parked.park(Held { bound, yielded, clients: Vec::new() });
        // A stream that ended while the link lives would be asked for anew.
        ended.await;
        return;
    }
    tracing::info!(container = %wish.container, port = address.port(), "port is closed");
    if yielded {
        names.take_back();
    }
}

/// Binds the address. Containers come before names: a port that those are served on is given up for it.
async fn bind(address: SocketAddr, protocol: Protocol, names: &Names) -> io::Result<Held> {
    let (bound, yielded) = match bind::bind(address, protocol) {
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && protocol == Protocol::Tcp
                && names.give_up(address.port()) =>
        {
            // An aborted task lets go of its socket when it is next looked at.
            tokio::time::sleep(Duration::from_millis(20)).await;
            bind::bind(address, protocol).map(|bound| (bound, true))
        }
        outcome => outcome.map(|bound| (bound, false)),
    }?;
    Ok(Held { bound, yielded, clients: Vec::new() })
}

/// Says in Docker's words why an address cannot be bound, and who has it.
async fn explain(error: &io::Error, wish: &Wish, published: &Table) -> String {
    let address = wish.address;
    if error.kind() == io::ErrorKind::AddrInUse && published.has(address, wish.protocol) {
        return format!("Bind for {address} failed: port is already allocated");
    }
    let transport = transport(wish.protocol);
    let error = io::Error::new(error.kind(), error.to_string());
    tokio::task::spawn_blocking(move || skiff_listeners::refusal(&error, address, transport))
        .await
        .unwrap_or_default()
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    }
}
