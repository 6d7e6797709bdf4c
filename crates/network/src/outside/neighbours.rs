//! Which addresses belong to one card.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};

use crate::Error;
use crate::netlink::Socket;

/// The hardware addresses that the kernel knows behind the addresses of its neighbours, of both families.
///
/// # Errors
/// When the kernel does not answer.
pub fn neighbours() -> Result<HashMap<IpAddr, [u8; 6]>, Error> {
    let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    Ok(Socket::open()?.dump(message, "list neighbours")?.into_iter().filter_map(read).collect())
}

fn read(message: RouteNetlinkMessage) -> Option<(IpAddr, [u8; 6])> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    })?;
    let card = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    })?;
    Some((ip, card))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_neighbour_with_a_card_is_passed_over() {
        let with = |attributes: Vec<NeighbourAttribute>| {
            let mut message = NeighbourMessage::default();
            message.attributes = attributes;
            read(RouteNetlinkMessage::NewNeighbour(message))
        };
        let ip = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
        let destination = || NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip));
        let card = |bytes: &[u8]| NeighbourAttribute::LinkLayerAddress(bytes.to_vec());
        let mac = [2, 0x42, 0xac, 17, 0, 2];
        assert_eq!(with(vec![destination(), card(&mac)]), Some((ip.into(), mac)));
        assert_eq!(with(vec![destination()]), None);
        assert_eq!(with(vec![card(&mac)]), None);
        // A tunnel's neighbours have addresses of other lengths.
        assert_eq!(with(vec![destination(), card(&[10, 0, 0, 1])]), None);
    }
}
