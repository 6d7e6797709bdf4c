use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// One container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the outer end of the veth pair (at most 15 bytes). It should be new for every start of a container: the
    /// previous link of that name may still be on its way out.
    pub host_name: String,
    /// Name of the interface inside the container: `eth0`.
    pub container_ifname: String,
    /// The container's addresses with the prefixes of their subnets.
    pub addresses: Vec<IpNet>,
    /// The hardware address of the inner interface.
    pub mac: [u8; 6],
    /// Where the default routes lead, one for each family that has a way out.
    pub gateways: Vec<IpAddr>,
    /// Families (`true` for IPv6) whose default route leads out of the interface without a gateway.
    pub device_routes: Vec<bool>,
    /// Kernel settings of the interface, by their paths below `/proc/sys/net`.
    pub settings: Vec<(String, String)>,
}

impl Endpoint {
    /// Describes an `eth0` with the hardware address that belongs to `ip`.
    pub fn new(host_name: impl Into<String>, ip: Ipv4Addr, prefix_len: u8, gateway: Ipv4Addr) -> Self {
        Self {
            host_name: host_name.into(),
            container_ifname: "eth0".into(),
            addresses: Ipv4Net::new(ip, prefix_len).map(IpNet::V4).into_iter().collect(),
            mac: mac_of(ip),
            gateways: vec![gateway.into()],
            device_routes: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// The IPv4 address, if there is one.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(net.addr()),
            IpNet::V6(_) => None,
        })
    }

    /// Whether it has an IPv6 address.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|net| matches!(net, IpNet::V6(_)))
    }
}

/// Formats a hardware address as `02:42:ac:11:00:02`.
pub fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Derives the hardware address of an IPv4 address as Docker does: `02:42` and the four bytes.
///
/// The same address always has the same hardware address, so neighbours' ARP caches stay true when an address goes from
/// one container to the next.
pub fn mac_of(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

/// The same for an IPv6 address: the last four bytes stand for it.
pub fn mac_of_ipv6(ip: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hardware_address_is_the_one_docker_gives() {
        let endpoint = Endpoint::new("veth1", Ipv4Addr::new(172, 17, 0, 2), 16, Ipv4Addr::new(172, 17, 0, 1));
        assert_eq!(mac_text(endpoint.mac), "02:42:ac:11:00:02");
    }
}
