//! The addresses that the request for a network names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bollard_stubs::models::IpamConfig;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skiff_network::Subnet;

use crate::error::{Code, Error, Result};

/// What is wanted of one family.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pool<N: Subnet> {
    pub subnet: Option<N>,
    pub range: Option<N>,
    pub gateway: Option<N::Address>,
    pub reserved: BTreeMap<String, N::Address>,
}

impl<N: Subnet> Default for Pool<N> {
    fn default() -> Self {
        Self { subnet: None, range: None, gateway: None, reserved: BTreeMap::new() }
    }
}

/// What is wanted of both.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pools {
    pub four: Pool<Ipv4Net>,
    pub six: Pool<Ipv6Net>,
    /// Subnets of a family that is off, as they were given.
    pub dormant: Vec<IpamConfig>,
}

/// A subnet of either family with what lies in it.
struct Any {
    subnet: IpNet,
    range: Option<IpNet>,
    gateway: Option<IpAddr>,
    reserved: BTreeMap<String, IpAddr>,
}

/// Reads the addresses of a request; every mistake is told, as dockerd does. Subnets of a family that is off are kept
/// aside.
///
/// # Errors
/// With every mistake, or when there are two subnets of one family.
pub(super) fn pools(configs: &[IpamConfig], ipv4: bool, ipv6: bool) -> Result<Pools> {
    let mut errors = Vec::new();
    let mut all = Vec::new();
    let mut dormant = Vec::new();
    for config in configs {
        let text = config.subnet.as_deref().unwrap_or("");
        let Ok(subnet) = text.parse::<IpNet>() else {
            errors.push(format!("invalid subnet {text}: invalid CIDR block notation"));
            continue;
        };
        let is_on = if matches!(subnet, IpNet::V6(_)) { ipv6 } else { ipv4 };
        if is_on {
            all.push(one(subnet, config, &mut errors));
        } else {
            dormant.push(config.clone());
        }
    }
    if !errors.is_empty() {
        return Err(Error::invalid(format!("invalid network config:\n{}", errors.join("\n"))));
    }
    let mut pools = Pools { dormant, ..Pools::default() };
    for Any { subnet, range, gateway, reserved } in all {
        let twice = match subnet {
            IpNet::V4(_) => pools.four.subnet.is_some(),
            IpNet::V6(_) => pools.six.subnet.is_some(),
        };
        if twice {
            return Err(Error::new(Code::Forbidden, "bridge driver doesn't support multiple subnets"));
        }
        match subnet {
            IpNet::V4(subnet) => {
                pools.four = Pool {
                    subnet: Some(subnet),
                    range: range.and_then(|net| if let IpNet::V4(net) = net { Some(net) } else { None }),
                    gateway: gateway.and_then(four),
                    reserved: reserved.into_iter().filter_map(|(name, ip)| Some((name, four(ip)?))).collect(),
                }
            }
            IpNet::V6(subnet) => {
                pools.six = Pool {
                    subnet: Some(subnet),
                    range: range.and_then(|net| if let IpNet::V6(net) = net { Some(net) } else { None }),
                    gateway: gateway.and_then(six),
                    reserved: reserved.into_iter().filter_map(|(name, ip)| Some((name, six(ip)?))).collect(),
                }
            }
        }
    }
    Ok(pools)
}

fn four(ip: IpAddr) -> Option<std::net::Ipv4Addr> {
    if let IpAddr::V4(ip) = ip { Some(ip) } else { None }
}

fn six(ip: IpAddr) -> Option<std::net::Ipv6Addr> {
    if let IpAddr::V6(ip) = ip { Some(ip) } else { None }
}

fn is_same_family(subnet: &IpNet, ip: IpAddr) -> bool {
    subnet.addr().is_ipv6() == ip.is_ipv6()
}

fn one(subnet: IpNet, config: &IpamConfig, errors: &mut Vec<String>) -> Any {
    let family = if subnet.addr().is_ipv6() { "IPv6" } else { "IPv4" };
    if subnet != subnet.trunc() {
        errors.push(format!("invalid subnet {subnet}: it should be {}", subnet.trunc()));
    }
    let mut range = None;
    if let Some(text) = config.ip_range.as_deref().filter(|text| !text.is_empty()) {
        match text.parse::<IpNet>() {
            Err(_) => errors.push(format!("invalid ip-range {text}: invalid CIDR block notation")),
            Ok(net) if !is_same_family(&subnet, net.addr()) => {
                errors.push(format!("invalid ip-range {text}: parent subnet is an {family} block"));
            }
            Ok(net) if net.prefix_len() < subnet.prefix_len() => errors.push(format!(
                "invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
            )),
            Ok(net) if net != net.trunc() => {
                errors.push(format!("invalid ip-range {text}: it should be {}", net.trunc()));
            }
            Ok(net) if !subnet.contains(&net) => errors
                .push(format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")),
            Ok(net) => range = Some(net),
        }
    }
    let mut address = |what: &str, text: &str| match text.parse::<IpAddr>() {
        Err(_) => {
            errors.push(format!("invalid {what} {text}: invalid address"));
            None
        }
        Ok(ip) if !is_same_family(&subnet, ip) => {
            errors.push(format!("invalid {what} {text}: parent subnet is an {family} block"));
            None
        }
        Ok(ip) if !subnet.contains(&ip) => {
            errors
                .push(format!("invalid {what} {text}: parent subnet {subnet} doesn't contain this address"));
            None
        }
        Ok(ip) => Some(ip),
    };
    let gateway = config.gateway.as_deref().filter(|text| !text.is_empty());
    let gateway = gateway.and_then(|text| address("gateway", text));
    let mut reserved = BTreeMap::new();
    let mut named: Vec<_> = config.auxiliary_addresses.iter().flatten().collect();
    named.sort();
    for (name, text) in named {
        if let Some(ip) = address("auxiliary address", text) {
            reserved.insert(name.clone(), ip);
        }
    }
    Any { subnet, range, gateway, reserved }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subnet: &str, range: &str, gateway: &str) -> IpamConfig {
        IpamConfig {
            subnet: Some(subnet.into()),
            ip_range: Some(range.into()),
            gateway: Some(gateway.into()),
            auxiliary_addresses: None,
        }
    }

    fn bad(configs: &[IpamConfig]) -> String {
        pools(configs, true, true).unwrap_err().message
    }

    #[test]
    fn each_family_has_its_addresses() {
        let mut four = config("10.1.0.0/16", "10.1.5.0/24", "10.1.0.254");
        four.auxiliary_addresses = Some([("router".to_owned(), "10.1.0.9".to_owned())].into());
        let six = config("fd00:1::/64", "fd00:1::1:0/112", "");
        let good = pools(&[six.clone(), four.clone()], true, true).unwrap();
        assert_eq!(good.four.gateway, Some("10.1.0.254".parse().unwrap()));
        assert_eq!(good.four.range, Some("10.1.5.0/24".parse().unwrap()));
        assert_eq!(good.four.reserved["router"], "10.1.0.9".parse::<std::net::Ipv4Addr>().unwrap());
        assert_eq!(good.six.subnet, Some("fd00:1::/64".parse().unwrap()));
        assert_eq!((good.six.gateway, good.six.range), (None, Some("fd00:1::1:0/112".parse().unwrap())));
        let only_four = pools(&[six, four], true, false).unwrap();
        assert_eq!(only_four.six, Pool::default(), "a subnet of a family that is off gives no addresses");
        assert_eq!(only_four.dormant[0].subnet.as_deref(), Some("fd00:1::/64"));
    }

    #[test]
    fn every_mistake_is_told_in_dockers_words() {
        assert_eq!(
            bad(&[config("10.1.0.0/16", "10.2.5.0/24", "10.2.0.1")]),
            "invalid network config:\n\
             invalid ip-range 10.2.5.0/24: parent subnet 10.1.0.0/16 doesn't contain ip-range\n\
             invalid gateway 10.2.0.1: parent subnet 10.1.0.0/16 doesn't contain this address"
        );
        assert_eq!(
            bad(&[config("10.1.2.3/16", "", "")]),
            "invalid network config:\ninvalid subnet 10.1.2.3/16: it should be 10.1.0.0/16"
        );
        assert_eq!(
            bad(&[config("nonsense", "", ""), config("fd00::/64", "10.0.0.0/24", "10.0.0.1")]),
            "invalid network config:\n\
             invalid subnet nonsense: invalid CIDR block notation\n\
             invalid ip-range 10.0.0.0/24: parent subnet is an IPv6 block\n\
             invalid gateway 10.0.0.1: parent subnet is an IPv6 block"
        );
        let two = [config("10.1.0.0/16", "", ""), config("10.2.0.0/16", "", "")];
        assert_eq!(bad(&two), "bridge driver doesn't support multiple subnets");
    }
}
