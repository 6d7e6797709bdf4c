//! The ports that are published now.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use skiff_link::Protocol;

/// A port of the host that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublishedPort {
    /// The host's address.
    pub(crate) address: SocketAddr,
    /// Tcp or udp.
    pub(crate) protocol: Protocol,
    /// The container's name, as the guest says.
    pub(crate) container: String,
    /// The container's address.
    pub(crate) target: SocketAddr,
}

/// The ports that are published now, for messages and explanations.
#[derive(Debug, Default)]
pub(crate) struct Table(Mutex<Vec<PublishedPort>>);

impl Table {
    /// Whether an address is published, or one that excludes it.
    pub(super) fn has(&self, address: SocketAddr, protocol: Protocol) -> bool {
        self.ports().iter().any(|known| {
            let (a, b) = (known.address.ip(), address.ip());
            let overlap = a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified());
            known.protocol == protocol && known.address.port() == address.port() && overlap
        })
    }

    /// Keeps a port in the table for as long as the entry lives.
    pub(super) fn enter(&self, port: PublishedPort) -> Entry<'_> {
        self.ports().push(port.clone());
        Entry { table: self, port }
    }

    /// Everything that is published under a port's number.
    pub(crate) fn of_port(&self, port: u16) -> Vec<PublishedPort> {
        self.ports().iter().filter(|known| known.address.port() == port).cloned().collect()
    }

    fn ports(&self) -> MutexGuard<'_, Vec<PublishedPort>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port that is published as long as this exists.
pub(super) struct Entry<'a> {
    table: &'a Table,
    port: PublishedPort,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut ports = self.table.ports();
        if let Some(at) = ports.iter().position(|known| *known == self.port) {
            ports.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_known_while_its_entry_lives_and_by_its_protocol() {
        let table = Table::default();
        let port = PublishedPort {
            address: "0.0.0.0:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            container: "web".into(),
            target: "172.17.0.2:80".parse().unwrap(),
        };
        let entry = table.enter(port.clone());
        let has = |text: &str, protocol| table.has(text.parse().unwrap(), protocol);
        assert!(has("127.0.0.1:80", Protocol::Tcp));
        assert!(!has("[::]:80", Protocol::Tcp), "another family");
        assert!(!has("127.0.0.1:80", Protocol::Udp) && !has("127.0.0.1:81", Protocol::Tcp));
        assert_eq!(table.of_port(80), [port]);
        drop(entry);
        assert!(!has("127.0.0.1:80", Protocol::Tcp));
        assert_eq!(table.of_port(80), []);
    }
}
