use std::collections::HashSet;
use std::hash::BuildHasher;

use netlink_packet_route::link::InfoKind;

use crate::netlink::Socket;
use crate::{Error, links};

/// Deletes the interfaces whose name starts with `prefix` and is not in `keep`; returns the names of the deleted ones.
///
/// For the start of an engine: links of containers that died with the previous one. Interfaces that vanish meanwhile are
/// fine.
pub fn remove_stale_links<S: BuildHasher>(
    prefix: &str,
    keep: &HashSet<String, S>,
) -> Result<Vec<String>, Error> {
    let mut socket = Socket::open()?;
    let mut removed = Vec::new();
    for link in links::all(&mut socket)? {
        if !link.name.starts_with(prefix) || keep.contains(&link.name) {
            continue;
        }
        match socket.request(links::delete(&link.name)) {
            Ok(_) => removed.push(link.name),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if !removed.is_empty() {
        tracing::info!(count = removed.len(), "removed links of a previous engine");
    }
    Ok(removed)
}

/// Deletes the bridges of an owner, and what it made for other networks, whose name is not in `keep`; returns the names of the deleted ones.
///
/// For networks that a killed engine was about to make or to remove.
pub fn remove_stale_bridges<S: BuildHasher>(
    owner: &str,
    keep: &HashSet<String, S>,
) -> Result<Vec<String>, Error> {
    let mut socket = Socket::open()?;
    let mut removed = Vec::new();
    for link in links::all(&mut socket)? {
        let is_made =
            matches!(link.kind, Some(InfoKind::Bridge | InfoKind::Vlan | InfoKind::Dummy | InfoKind::Veth));
        if is_made && link.alias.as_deref() == Some(owner) && !keep.contains(&link.name) {
            match socket.request(links::delete(&link.name)) {
                Ok(_) => removed.push(link.name),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}
