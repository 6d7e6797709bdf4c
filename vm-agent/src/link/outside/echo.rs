//! `ping`: echo requests come out of the tunnel, and replies go back in.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skiff_link::{Args, StreamHeader, read_datagram, write_datagram};
use skiff_network::outside::packet::Echo;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::limits::Place;
use super::{Outside, host_of};

/// How long a container's ping is remembered after its last request.
const IDLE: Duration = Duration::from_secs(30);
/// Requests that wait for the host.
const WAITING: usize = 32;
/// The largest packet there is.
const PACKET: usize = 65_536;

/// A container's `ping` of one address.
type Key = (IpAddr, IpAddr, u16);

type Flows = Arc<Mutex<HashMap<Key, mpsc::Sender<Echo>>>>;

pub(super) async fn serve(outside: Arc<Outside>) -> io::Result<Infallible> {
    let flows = Flows::default();
    let mut buffer = vec![0; PACKET];
    loop {
        let mut ready = outside.tunnel.readable().await?;
        let read = ready.try_io(|way| {
            let mut tunnel = way.get_ref().tunnel();
            tunnel.read(&mut buffer)
        });
        drop(ready);
        let Ok(length) = read else { continue };
        // Whatever else was sent into the tunnel has no way out.
        if let Some(echo) = Echo::read(&buffer[..length?]) {
            take(&outside, &flows, echo);
        }
    }
}

fn take(outside: &Arc<Outside>, flows: &Flows, echo: Echo) {
    let key = (echo.from, echo.to, echo.identifier);
    let mut map = flows.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(flow) = map.get(&key) {
        let _ = flow.try_send(echo);
        return;
    }
    let Some(place) = outside.place(echo.from) else { return };
    let (sender, requests) = mpsc::channel(WAITING);
    let model = Echo { payload: Vec::new(), ..echo };
    let _ = sender.try_send(echo);
    map.insert(key, sender);
    let (outside, flows) = (Arc::clone(outside), Arc::clone(flows));
    tokio::spawn(async move {
        if let Err(error) = flow(&outside, &model, requests).await {
            tracing::debug!(%error, to = %model.to, "ping ends");
        }
        flows.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        drop::<Place>(place);
    });
}

async fn flow(outside: &Outside, model: &Echo, mut requests: mpsc::Receiver<Echo>) -> io::Result<()> {
    let link = outside.host.link().ok_or(io::ErrorKind::NotConnected)?;
    let args = Args::Echo { host: host_of(model.to) };
    let stream = link.open(&StreamHeader { args }).await?;
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::with_capacity(2048, read);
    let forth = async {
        while let Ok(Some(echo)) = timeout(IDLE, requests.recv()).await {
            let mut datagram = echo.sequence.to_be_bytes().to_vec();
            datagram.extend(echo.payload);
            write_datagram(&mut write, &datagram).await?;
        }
        write.shutdown().await
    };
    let back = async {
        let mut datagram = Vec::new();
        while read_datagram(&mut read, &mut datagram).await? {
            let Some((sequence, payload)) = datagram.split_first_chunk() else { continue };
            if let Some(packet) = model.reply(u16::from_be_bytes(*sequence), payload) {
                outside.deliver(&packet);
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = forth => ended,
        ended = back => ended,
    }
}
