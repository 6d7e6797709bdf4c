//! What the host's routing table reaches.

use std::net::Ipv4Addr;

/// A route of the host: network, prefix length, interface.
pub(super) type Route = (Ipv4Addr, u32, String);

/// The host's IPv4 routes, default routes left out; nothing on systems without `/proc`.
pub(super) fn host_routes() -> Vec<Route> {
    parse(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

/// Reads `/proc/net/route`: addresses are words in the host's byte order.
fn parse(text: &str) -> Vec<Route> {
    let word =
        |text: &str| u32::from_str_radix(text, 16).ok().map(|word| u32::from_be_bytes(word.to_ne_bytes()));
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (network, mask) = (word(fields.get(1)?)?, word(fields.get(7)?)?);
        Some((Ipv4Addr::from(network), mask.leading_ones(), (*fields.first()?).to_owned()))
    };
    text.lines().skip(1).filter_map(line).filter(|(_, prefix, _)| *prefix > 0).collect()
}

/// Whether a subnet, as text, and a route share an address.
pub(super) fn overlaps(subnet: &str, (network, prefix, _): &Route) -> bool {
    let Some((base, length)) = subnet.split_once('/') else { return false };
    let (Ok(base), Ok(length)) = (base.parse::<Ipv4Addr>(), length.parse::<u32>()) else { return false };
    let bits = 32u32.saturating_sub(length.min(*prefix));
    u64::from(u32::from(base) ^ u32::from(*network)) >> bits == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_default_routes_left_out() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                    eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\n\
                    tun0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\n\
                    nonsense\n";
        if cfg!(target_endian = "little") {
            assert_eq!(parse(text), [(Ipv4Addr::new(172, 18, 0, 0), 16, "tun0".to_owned())]);
        }
    }

    #[test]
    fn overlaps_are_found_in_both_directions() {
        let route = |text: &str, prefix| (text.parse().unwrap(), prefix, String::new());
        assert!(overlaps("172.18.0.0/16", &route("172.18.5.0", 24)));
        assert!(overlaps("172.18.5.0/24", &route("172.16.0.0", 12)));
        assert!(!overlaps("172.18.0.0/16", &route("172.19.0.0", 16)));
        assert!(!overlaps("fd00::/64", &route("172.19.0.0", 16)) && !overlaps("x", &route("10.0.0.0", 8)));
        assert!(overlaps("0.0.0.0/0", &route("10.0.0.0", 8)));
    }
}
