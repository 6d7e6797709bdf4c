//! Published ports: who binds the host's addresses.

mod local;
mod proxy;

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use local::LocalPublisher;

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP; known by name, not published.
    Sctp,
}

impl Protocol {
    /// The name that follows a port's slash.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A wish for one published port.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The host address to bind.
    pub host_ip: IpAddr,
    /// The host port; 0 for any free one.
    pub host_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The container's name, for messages.
    pub container: String,
    /// Where connections go. It may be of another family than the host's address.
    pub target: SocketAddr,
    /// The bridge that the container is on.
    pub bridge: String,
}

/// Why a port could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody else has the address.
    #[error("{message}")]
    AddressInUse {
        /// Who or why, in words that can follow the address.
        message: String,
    },
    /// The user may not bind it.
    #[error("{message}")]
    PermissionDenied {
        /// Why.
        message: String,
    },
    /// The host has no such address, or none of its family.
    #[error("{message}")]
    NoAddress {
        /// Why.
        message: String,
    },
    /// Anything else.
    #[error("{message}")]
    Failed {
        /// Why.
        message: String,
    },
}

impl PublishError {
    /// The refusal of a protocol that no backend publishes.
    #[must_use]
    pub fn sctp() -> Self {
        Self::Failed { message: "SCTP ports can't be published, only TCP and UDP ports".to_owned() }
    }
}

/// A bound port. Dropping it releases the address.
pub trait PublishedPort: Send + Sync {
    /// The port that was bound, which tells the outcome of a request for any free one.
    fn host_port(&self) -> u16;
}

/// Binds host addresses and carries their connections to containers.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Binds one address.
    async fn publish(&self, request: PublishRequest) -> Result<Box<dyn PublishedPort>, PublishError>;

    /// Called when all ports of a container are bound, before it starts: work that is better done once for all of them.
    async fn settle(&self) {}
}
