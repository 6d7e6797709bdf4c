use std::net::Ipv4Addr;

/// One container's place on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the outer end of the veth pair (at most 15 bytes). It should be new for every start of a container: the
    /// previous link of that name may still be on its way out.
    pub host_name: String,
    /// Name of the interface inside the container: `eth0`.
    pub container_ifname: String,
    /// The container's address.
    pub ip: Ipv4Addr,
    /// The length of the subnet's prefix.
    pub prefix_len: u8,
    /// The hardware address of the inner interface.
    pub mac: [u8; 6],
    /// Where the default route leads; `None` for a network without a way out.
    pub gateway: Option<Ipv4Addr>,
}

impl Endpoint {
    /// Describes an `eth0` with the hardware address that belongs to `ip`.
    pub fn new(host_name: impl Into<String>, ip: Ipv4Addr, prefix_len: u8, gateway: Ipv4Addr) -> Self {
        Self {
            host_name: host_name.into(),
            container_ifname: "eth0".into(),
            ip,
            prefix_len,
            mac: mac_of(ip),
            gateway: Some(gateway),
        }
    }

    /// Formats the hardware address as `02:42:ac:11:00:02`.
    pub fn mac_text(&self) -> String {
        let [a, b, c, d, e, f] = self.mac;
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Derives the hardware address of an IPv4 address as Docker does: `02:42` and the four bytes.
///
/// The same address always has the same hardware address, so neighbours' ARP caches stay true when an address goes from
/// one container to the next.
pub fn mac_of(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hardware_address_is_the_one_docker_gives() {
        let endpoint = Endpoint::new("veth1", Ipv4Addr::new(172, 17, 0, 2), 16, Ipv4Addr::new(172, 17, 0, 1));
        assert_eq!(endpoint.mac_text(), "02:42:ac:11:00:02");
    }
}
