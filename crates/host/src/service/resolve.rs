//! `resolve`: a name looked up by the host's own resolver, with its VPNs and split DNS.

use std::{io, net::IpAddr};

use serde_json::json;
use skiff_link::{Incoming, ReplyCode};
use tokio::time::timeout;

use super::NETWORK_DEADLINE;

/// Longest name of the domain name system (RFC 1035, 2.3.4).
const NAME_LIMIT: usize = 253;

pub(super) async fn serve(incoming: Incoming, name: &str) {
    match timeout(NETWORK_DEADLINE, lookup(name.trim_end_matches('.'))).await {
        Ok(Ok(addresses)) => {
            // The answer is in the reply; the stream itself carries nothing.
            drop(incoming.accept(Some(json!({ "addresses": addresses }))).await);
        }
        Ok(Err(error)) => {
            let code = match error.kind() {
                io::ErrorKind::InvalidInput => ReplyCode::Invalid,
                _ => ReplyCode::NotFound,
            };
            incoming.refuse(code, format!("lookup {name}: {error}")).await;
        }
        Err(_) => incoming.refuse(ReplyCode::TimedOut, format!("lookup {name}: i/o timeout")).await,
    }
}

/// Looks a name or the text of an address up; each address comes once.
pub(super) async fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    let valid = !name.is_empty() && name.len() <= NAME_LIMIT && name.bytes().all(|b| b.is_ascii_graphic());
    if !valid {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a host name"));
    }
    let mut addresses = Vec::new();
    for address in tokio::net::lookup_host((name, 0)).await? {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_local_names_resolve_and_nonsense_does_not() {
        assert_eq!(lookup("127.0.0.1").await.unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(lookup("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        for bad in ["", "a b", "a\0b", &"x".repeat(254)] {
            assert_eq!(lookup(bad).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
