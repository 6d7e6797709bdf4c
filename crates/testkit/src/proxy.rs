//! A TCP proxy that breaks connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context;

/// Forwards a loopback port to an upstream address, and cuts connections whose answers exceed a number of bytes.
pub struct CuttingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    /// Bytes from upstream after which a connection is cut.
    limit: AtomicU64,
    /// How many more connections will be cut.
    cuts_left: AtomicUsize,
    cuts_made: AtomicUsize,
    bytes: AtomicU64,
    stop: AtomicBool,
    /// First lines and Range headers of requests, in order of arrival.
    requests: Mutex<Vec<String>>,
}

impl CuttingProxy {
    /// Listens; at most `cuts` connections are cut, each after `limit` bytes from upstream. All others pass whole.
    pub fn start(upstream: SocketAddr, limit: u64, cuts: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind the proxy's port")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            limit: limit.into(),
            cuts_left: cuts.into(),
            cuts_made: 0.into(),
            bytes: 0.into(),
            stop: false.into(),
            requests: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if theirs.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&theirs);
                // A connection that fails is the client's to notice.
                thread::spawn(move || client.map(|client| shared.serve(client)));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The reference of a repository behind the proxy.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// How many connections were cut so far.
    pub fn cuts_made(&self) -> usize {
        self.shared.cuts_made.load(Ordering::Relaxed)
    }

    /// How many bytes came from upstream so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Request lines and `Range` headers seen so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(self: Arc<Self>, mut client: TcpStream) -> Option<()> {
        let mut upstream = TcpStream::connect(self.upstream).ok()?;
        let (mut from_client, mut to_upstream) = (client.try_clone().ok()?, upstream.try_clone().ok()?);
        let shared = Arc::clone(&self);
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = from_client.read(&mut buffer) {
                shared.note(&buffer[..count]);
                if to_upstream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to_upstream.shutdown(Shutdown::Write);
        });
        let mut passed = 0;
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = upstream.read(&mut buffer) {
            passed += count as u64;
            self.bytes.fetch_add(count as u64, Ordering::Relaxed);
            client.write_all(&buffer[..count]).ok()?;
            if passed > self.limit.load(Ordering::Relaxed) && self.take_cut() {
                let _ = upstream.shutdown(Shutdown::Both);
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        Some(())
    }

    fn take_cut(&self) -> bool {
        let taken = self
            .cuts_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok();
        self.cuts_made.fetch_add(usize::from(taken), Ordering::Relaxed);
        taken
    }

    fn note(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let lines = text
            .lines()
            .filter(|line| line.ends_with(" HTTP/1.1") || line.to_lowercase().starts_with("range:"));
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).extend(lines.map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, Registry, http};

    #[test]
    fn only_the_first_connections_are_cut() {
        let registry = Registry::start().unwrap();
        let image = Image::big(1, 500_000).unwrap();
        registry.push(&image, "big", "latest").unwrap();
        let (name, _) = image.blobs().into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
        let proxy = CuttingProxy::start(registry.address(), 100_000, 1).unwrap();
        let path = format!("/v2/big/blobs/{name}");
        http::get(proxy.address(), &path).unwrap_err();
        assert_eq!(http::get(proxy.address(), &path).unwrap().status, 200);
        assert_eq!(proxy.cuts_made(), 1);
        assert_eq!(proxy.requests().len(), 2);
    }
}
