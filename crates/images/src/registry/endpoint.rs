//! Where a repository is asked for: mirrors first, then the registry itself; and over which protocol.

use std::net::IpAddr;

use crate::error::Error;
use crate::reference::{DEFAULT_DOMAIN, Reference};

use super::connect::bare_host;

const DOCKER_HUB: &str = "registry-1.docker.io";

/// How to find out whether a registry speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Https,
    /// TLS if it will, else plain HTTP.
    Either,
}

/// One server that may have a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `host[:port]`.
    pub authority: String,
    pub protocol: Protocol,
    /// Mirrors get no credentials.
    pub mirror: bool,
}

/// Which servers to ask, and which of them are insecure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoints {
    mirrors: Vec<Endpoint>,
    insecure: Vec<String>,
}

impl Endpoints {
    pub fn new(mirrors: &[String], insecure: &[String]) -> Result<Endpoints, Error> {
        let mirrors = mirrors.iter().map(|url| parse_mirror(url)).collect::<Result<_, _>>()?;
        Ok(Endpoints { mirrors, insecure: insecure.to_vec() })
    }

    /// Lists the servers for a reference in the order to ask them.
    pub fn of(&self, reference: &Reference) -> Vec<Endpoint> {
        if reference.domain() == DEFAULT_DOMAIN {
            let hub = Endpoint { authority: DOCKER_HUB.to_owned(), protocol: Protocol::Https, mirror: false };
            return self.mirrors.iter().cloned().chain([hub]).collect();
        }
        let authority = reference.domain().to_owned();
        let protocol = if self.is_insecure(&authority) { Protocol::Either } else { Protocol::Https };
        vec![Endpoint { authority, protocol, mirror: false }]
    }

    /// Says whether a registry, `host` or `host:port`, may do without a valid certificate.
    pub fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        is_loopback(host)
            || self.insecure.iter().any(|entry| entry == authority || entry == host || covers(entry, host))
    }

    /// The same for a connection, whose port is always known.
    pub fn is_insecure_at(&self, host: &str, port: u16) -> bool {
        let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        // What was named without a port stands for any.
        self.is_insecure(&name)
    }
}

fn parse_mirror(url: &str) -> Result<Endpoint, Error> {
    let wrong = || Error::Invalid {
        message: format!(
            "invalid registry mirror \"{url}\": wanted http://host[:port] or https://host[:port]"
        ),
    };
    let (protocol, rest) = match url.split_once("://") {
        Some(("http", rest)) => (Protocol::Http, rest),
        Some(("https", rest)) => (Protocol::Https, rest),
        _ => return Err(wrong()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
    if parsed.host().is_empty() || authority.contains('@') {
        return Err(wrong());
    }
    Ok(Endpoint { authority: authority.to_owned(), protocol, mirror: true })
}

/// Takes the port and the brackets off.
pub(crate) fn host_of(authority: &str) -> &str {
    if authority.starts_with('[') {
        return bare_host(authority.split_inclusive(']').next().unwrap_or(authority));
    }
    match authority.split_once(':') {
        // More than one colon: an IPv6 address without brackets.
        Some((host, port)) if !port.contains(':') => host,
        _ => authority,
    }
}

/// Says whether an entry is a network (`10.0.0.0/8`) that an address is of.
fn covers(entry: &str, host: &str) -> bool {
    let Some((network, bits)) = entry.split_once('/') else { return false };
    let (Ok(network), Ok(bits), Ok(host)) =
        (network.parse::<IpAddr>(), bits.parse::<u32>(), host.parse::<IpAddr>())
    else {
        return false;
    };
    let (network, host, width) = match (network, host) {
        (IpAddr::V4(network), IpAddr::V4(host)) => {
            (u128::from(network.to_bits()), u128::from(host.to_bits()), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(host)) => (network.to_bits(), host.to_bits(), 128),
        _ => return false,
    };
    bits <= width && (network ^ host).checked_shr(width - bits).unwrap_or(0) == 0
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_serve_docker_hub_only() {
        let endpoints = Endpoints::new(&["http://m:5000/".to_owned()], &[]).unwrap();
        let names = |r: &str| -> Vec<String> {
            let reference = Reference::parse(r).unwrap();
            endpoints.of(&reference).into_iter().map(|e| e.authority).collect()
        };
        assert_eq!(names("busybox"), ["m:5000", DOCKER_HUB]);
        assert_eq!(names("ghcr.io/x/y"), ["ghcr.io"]);
        for wrong in ["m:5000", "ftp://m", "http://", "http://m/path"] {
            assert!(Endpoints::new(&[wrong.to_owned()], &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn loopback_registries_are_insecure() {
        let insecure = ["reg.test:5000", "any.test", "10.1.0.0/16", "fd00::/8"].map(str::to_owned);
        let endpoints = Endpoints::new(&[], &insecure).unwrap();
        for name in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.3.2.1",
            "[::1]:5000",
            "reg.test:5000",
            "any.test:7",
            "10.1.255.1:5000",
            "[fd12::1]:5000",
        ] {
            assert!(endpoints.is_insecure(name), "{name}");
        }
        assert!(endpoints.is_insecure_at("reg.test", 5000) && !endpoints.is_insecure_at("reg.test", 443));
        assert!(endpoints.is_insecure_at("fd12::1", 443));
        for name in
            ["reg.test", "ghcr.io", "128.0.0.1:5000", "localhost.example", "10.2.0.1:5000", "[fe80::1]:1"]
        {
            assert!(!endpoints.is_insecure(name), "{name}");
        }
    }
}
