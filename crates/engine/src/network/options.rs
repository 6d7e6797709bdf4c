//! The options of the bridge driver and of endpoints: checked once, in Docker's words where they make no sense.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::IpNet;

use crate::error::{Error, Result};
use crate::state::NetworkRecord;

/// Options of the bridge driver that are true or false.
const SWITCHES: [&str; 3] = [
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.bridge.inhibit_ipv4",
];
const MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
/// The option of an endpoint that sets kernel settings of its interface.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// What stands for the interface's name in them.
const PLACEHOLDER: &str = "IFNAME";

/// How a network's gateway deals with the outside, as dockerd 28 knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GatewayMode {
    /// Containers leave with the host's address; published ports lead in.
    Nat,
    /// The same, and everything may come in.
    NatUnprotected,
    /// Containers leave with their own addresses; published ports are open, not translated.
    Routed,
    /// The bridge has no address.
    Isolated,
}

impl GatewayMode {
    /// The mode of a network for the family of one of its subnets.
    pub fn of(record: &NetworkRecord, subnet: IpNet) -> Self {
        Self::wanted(&record.options, subnet)
    }

    /// Whether a network with these options has no address of its own.
    pub fn is_isolated(options: &HashMap<String, String>, subnet: IpNet) -> bool {
        Self::wanted(options, subnet) == Self::Isolated
    }

    fn wanted(options: &HashMap<String, String>, subnet: IpNet) -> Self {
        let key = if matches!(subnet, IpNet::V6(_)) { MODE_IPV6 } else { MODE_IPV4 };
        options.get(key).and_then(|mode| Self::parse(mode)).unwrap_or(Self::Nat)
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "nat" => Self::Nat,
            "nat-unprotected" => Self::NatUnprotected,
            "routed" => Self::Routed,
            "isolated" => Self::Isolated,
            _ => return None,
        })
    }
}

/// Checks the options of a new network.
///
/// # Errors
/// For the first value that makes no sense.
pub(super) fn check(driver: &str, options: &HashMap<String, String>, internal: bool) -> Result<()> {
    if matches!(driver, "macvlan" | "ipvlan") {
        return check_shared(driver, options);
    }
    let mut sorted: Vec<_> = options.iter().collect();
    sorted.sort();
    for (key, value) in sorted {
        let is_mode = matches!(key.as_str(), MODE_IPV4 | MODE_IPV6);
        // What Go says about the value.
        let complaint = match key.as_str() {
            key if SWITCHES.contains(&key) && !is_boolean(value) => {
                format!("strconv.ParseBool: parsing {value:?}: invalid syntax")
            }
            "com.docker.network.driver.mtu" => match value.parse::<i64>() {
                Err(_) => format!("strconv.Atoi: parsing {value:?}: invalid syntax"),
                Ok(mtu) if !(0..=65_535).contains(&mtu) => {
                    return Err(Error::invalid(format!("invalid MTU number: {mtu}")));
                }
                Ok(_) => String::new(),
            },
            "com.docker.network.bridge.host_binding_ipv4" if value.parse::<Ipv4Addr>().is_err() => {
                "nil ip".to_owned()
            }
            _ => String::new(),
        };
        if !complaint.is_empty() {
            return Err(Error::invalid(format!("failed to parse {key} value: {value} ({complaint})")));
        }
        match is_mode.then(|| GatewayMode::parse(value)) {
            Some(None) => return Err(Error::invalid(format!("unknown gateway mode {value}"))),
            Some(Some(GatewayMode::Isolated)) if !internal => {
                return Err(Error::invalid(
                    "gateway mode 'isolated' can only be used for an internal network",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the options of a new network whose containers share an interface.
fn check_shared(driver: &str, options: &HashMap<String, String>) -> Result<()> {
    let option = |key: &str| options.get(key).map_or("", String::as_str);
    let one_of = |key: &str, what: &str, known: &[&str]| {
        let value = option(key);
        if value.is_empty() || known.contains(&value) {
            return Ok(());
        }
        let default = known[0];
        let default = if what == "ipvlan flag" {
            format!("'{default}' is the ipvlan driver default")
        } else {
            format!("'{default}' mode is the {driver} driver default")
        };
        Err(Error::invalid(format!("requested {what} '{value}' is not valid, {default}")))
    };
    if option("parent") == "lo" {
        return Err(Error::invalid(format!("loopback interface is not a valid {driver} parent link")));
    }
    match driver {
        "macvlan" => one_of("macvlan_mode", "macvlan mode", &["bridge", "private", "vepa", "passthru"]),
        _ => {
            one_of("ipvlan_mode", "ipvlan mode", &["l2", "l3", "l3s"])?;
            one_of("ipvlan_flag", "ipvlan flag", &["bridge", "private", "vepa"])
        }
    }
}

/// What Go reads as a boolean (`strconv.ParseBool`).
fn is_boolean(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True" | "0" | "f" | "F" | "false" | "FALSE" | "False")
}

/// The kernel settings that an endpoint's options name, as paths below `/proc/sys/net`.
///
/// # Errors
/// When one of them is not a setting of the interface.
pub(super) fn interface_settings(
    options: Option<&HashMap<String, String>>,
    ifname: &str,
) -> Result<Vec<(String, String)>> {
    let Some(text) = options.and_then(|options| options.get(SYSCTLS)) else { return Ok(Vec::new()) };
    text.split(',').map(|entry| one_setting(entry, ifname)).collect()
}

fn one_setting(entry: &str, ifname: &str) -> Result<(String, String)> {
    let Some((name, value)) = entry.split_once('=') else {
        return Err(Error::invalid(format!(
            "sysctl must be of the form 'net.X.Y.IFNAME.Z=value': {entry:?}"
        )));
    };
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        // The docker CLI sends everything in lower case.
        ["net", family @ ("ipv4" | "ipv6" | "mpls"), area @ ("conf" | "neigh"), name, setting]
            if name.eq_ignore_ascii_case(PLACEHOLDER)
                && !setting.is_empty()
                && !setting.contains('/')
                && setting != ".." =>
        {
            Ok((format!("{family}/{area}/{ifname}/{setting}"), value.to_owned()))
        }
        ["net", ..] if !parts.iter().any(|part| part.eq_ignore_ascii_case(PLACEHOLDER)) => {
            Err(Error::invalid(format!(
                "sysctl must use 'IFNAME' as a placeholder for the interface name: {entry:?}"
            )))
        }
        _ => Err(Error::invalid(format!("unrecognised network interface sysctl '{name}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(key: &str, value: &str) -> HashMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn values_that_make_no_sense_are_refused_in_dockers_words() {
        let refusal =
            |key: &str, value: &str| check("bridge", &options(key, value), false).unwrap_err().message;
        assert_eq!(
            refusal("com.docker.network.bridge.enable_icc", "maybe"),
            "failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing \"maybe\": \
             invalid syntax)"
        );
        assert_eq!(refusal(MODE_IPV4, "bent"), "unknown gateway mode bent");
        assert_eq!(
            refusal(MODE_IPV6, "isolated"),
            "gateway mode 'isolated' can only be used for an internal network"
        );
        assert!(check("bridge", &options(MODE_IPV6, "isolated"), true).is_ok());
        assert!(check("bridge", &options(MODE_IPV4, "routed"), false).is_ok());
        assert!(check("bridge", &options("com.docker.network.driver.mtu", "9000"), false).is_ok());
    }

    #[test]
    fn modes_of_shared_interfaces_are_checked() {
        let refusal = |driver: &str, key: &str, value: &str| {
            check(driver, &options(key, value), false).unwrap_err().message
        };
        assert_eq!(
            refusal("macvlan", "macvlan_mode", "wide"),
            "requested macvlan mode 'wide' is not valid, 'bridge' mode is the macvlan driver default"
        );
        assert_eq!(
            refusal("ipvlan", "ipvlan_mode", "l4"),
            "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default"
        );
        assert_eq!(
            refusal("ipvlan", "ipvlan_flag", "flat"),
            "requested ipvlan flag 'flat' is not valid, 'bridge' is the ipvlan driver default"
        );
        assert_eq!(
            refusal("macvlan", "parent", "lo"),
            "loopback interface is not a valid macvlan parent link"
        );
        assert!(check("ipvlan", &options("ipvlan_mode", "l3s"), false).is_ok());
    }

    #[test]
    fn settings_of_an_interface_name_it_by_a_placeholder() {
        let read = |text: &str| interface_settings(Some(&options(SYSCTLS, text)), "eth3");
        assert_eq!(
            read("net.ipv4.conf.ifname.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2").unwrap(),
            [
                ("ipv4/conf/eth3/log_martians".to_owned(), "1".to_owned()),
                ("ipv6/conf/eth3/accept_ra".to_owned(), "2".to_owned())
            ]
        );
        assert_eq!(interface_settings(None, "eth0").unwrap(), []);
        for (wrong, complaint) in [
            ("net.ipv4.conf.IFNAME.log_martians", "sysctl must be of the form"),
            ("net.ipv4.conf.eth0.log_martians=1", "sysctl must use 'IFNAME' as a placeholder"),
            ("kernel.IFNAME=1", "unrecognised network interface sysctl 'kernel.IFNAME'"),
            ("net.ipv4.conf.IFNAME.../x=1", "unrecognised network interface sysctl"),
        ] {
            assert!(read(wrong).unwrap_err().message.starts_with(complaint), "{wrong}");
        }
    }
}
