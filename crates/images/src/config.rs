//! What a store needs to know.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::layer::Limits;
use crate::registry::{Dial, TcpDial, Trust};

/// Settings of a [`Store`](crate::Store).
#[derive(Clone)]
pub struct Config {
    /// Directory of the store; made when missing.
    pub root: PathBuf,
    /// Mirrors of Docker Hub, `http[s]://host[:port]`, asked before it in this order.
    pub mirrors: Vec<String>,
    /// Further registries, `host[:port]`, that may speak plain HTTP or show an unknown certificate.
    /// Those on a loopback address always may.
    pub insecure: Vec<String>,
    /// How connections are made.
    pub dial: Arc<dyn Dial>,
    /// PEM files with certificate authorities beside the built-in ones; missing files are skipped.
    pub ca_files: Vec<PathBuf>,
    /// Certificate authorities that are found out later.
    pub trust: Trust,
    /// A directory like `/etc/docker/certs.d`: one directory for each registry, `host:port` or `host`, with its authorities
    /// (`*.crt`) and what we show it (`*.cert` with `*.key`).
    pub certs_dir: Option<PathBuf>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// What a layer may at most contain.
    pub limits: Limits,
}

/// How long the registry client waits.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the next byte of anything.
    pub stall: Duration,
    /// Before the first retry; each further retry waits twice as long, up to ten seconds.
    pub retry: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(45),
            retry: Duration::from_millis(250),
        }
    }
}

impl Config {
    /// Makes a configuration with ordinary sockets and the host's certificate authorities.
    pub fn new(root: impl Into<PathBuf>) -> Config {
        Config {
            root: root.into(),
            mirrors: Vec::new(),
            insecure: Vec::new(),
            dial: Arc::new(TcpDial),
            ca_files: ca_files(),
            trust: Trust::default(),
            certs_dir: Some(PathBuf::from("/etc/docker/certs.d")),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}

/// The file that `SSL_CERT_FILE` names, or where the distributions have theirs.
fn ca_files() -> Vec<PathBuf> {
    if let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
        return vec![file.into()];
    }
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]
        .map(PathBuf::from)
        .into()
}
