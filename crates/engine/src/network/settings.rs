//! What a container says about its networks: checked, and brought into one form.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard_stubs::models::{EndpointSettings, NetworkingConfig};
use ipnet::IpNet;

use super::options::interface_settings;
use super::{Network, Networks, is_user_defined, network_name};
use crate::error::{Error, Result};
use crate::names;
use crate::state::{NetworkRecord, Record};

const ONLY_OWN_SUBNETS: &str =
    "user specified IP address is supported only when connecting to networks with user configured subnets";

impl Networks {
    /// Names every network of a new container by its name, the one of its network mode included.
    ///
    /// A network that does not exist keeps the name it was given: that it is missing is told at the start.
    ///
    /// # Errors
    /// When the settings for one of them make no sense.
    pub fn settle(&self, mode: &str, given: NetworkingConfig) -> Result<NetworkingConfig> {
        let mut all = HashMap::new();
        if mode.starts_with("container:") {
            return Ok(NetworkingConfig { endpoints_config: Some(all) });
        }
        for (name, mut settings) in given.endpoints_config.unwrap_or_default() {
            let name = network_name(&name);
            let network = self.find(name).ok();
            let name = network.as_ref().map_or(name, |network| &network.record().name).to_owned();
            check(&name, network.as_deref(), &settings).map_err(|error| {
                Error::new(error.code, format!("invalid config for network {name}: {error}"))
            })?;
            clear(&mut settings);
            all.insert(name, settings);
        }
        let own = self.find(mode).map_or_else(|_| mode.to_owned(), |network| network.record().name.clone());
        all.entry(own).or_default();
        Ok(NetworkingConfig { endpoints_config: Some(all) })
    }
}

/// Leaves only what a user chooses: clients send back what an inspection told them.
fn clear(settings: &mut EndpointSettings) {
    *settings = EndpointSettings {
        ipam_config: settings.ipam_config.take(),
        links: settings.links.take(),
        mac_address: settings.mac_address.take(),
        aliases: settings.aliases.take(),
        driver_opts: settings.driver_opts.take(),
        gw_priority: settings.gw_priority.take(),
        ..EndpointSettings::default()
    };
}

/// Checks a container's settings for one network, in Docker's words.
///
/// # Errors
/// With every mistake.
pub(super) fn check(name: &str, network: Option<&Network>, settings: &EndpointSettings) -> Result<()> {
    let mut errors = Vec::new();
    let ipam = settings.ipam_config.as_ref();
    let given = |value: Option<&String>| value.filter(|value| !value.is_empty()).cloned();
    let four = given(ipam.and_then(|ipam| ipam.ipv4_address.as_ref()));
    let six = given(ipam.and_then(|ipam| ipam.ipv6_address.as_ref()));
    if !is_user_defined(name) {
        if four.is_some() || six.is_some() {
            errors.push("user specified IP address is supported on user defined networks only".to_owned());
        }
        if settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            errors.push(
                "network-scoped alias is supported only for containers in user defined networks".to_owned(),
            );
        }
    }
    if let Some(text) = &four {
        match (text.parse::<Ipv4Addr>(), network.map(Network::record)) {
            (Err(_), _) => errors.push(format!("invalid IPv4 address: {text}")),
            (Ok(ip), _) if ip.is_unspecified() => errors.push(format!("invalid IPv4 address: {text}")),
            (Ok(ip), Some(record)) if is_user_defined(name) => {
                if !record.own_subnet {
                    errors.push(ONLY_OWN_SUBNETS.to_owned());
                } else if !record.subnet.is_some_and(|subnet| subnet.contains(&ip)) {
                    errors.push(format!("no configured subnet or ip-range contain the IP address {ip}"));
                }
            }
            _ => {}
        }
    }
    if let Some(text) = &six {
        match (text.parse::<Ipv6Addr>(), network.map(Network::record)) {
            (Err(_), _) => errors.push(format!("invalid IPv6 address: {text}")),
            (Ok(ip), _) if ip.is_unspecified() => errors.push(format!("invalid IPv6 address: {text}")),
            (Ok(ip), Some(record)) if is_user_defined(name) => {
                if !record.own_subnet6 && record.subnet6.is_some() {
                    errors.push(ONLY_OWN_SUBNETS.to_owned());
                } else if !record.subnet6.is_some_and(|subnet| subnet.contains(&ip))
                    && !is_dormant(record, ip.into())
                {
                    errors.push(format!("no configured subnet or ip-range contain the IP address {ip}"));
                }
            }
            _ => {}
        }
    }
    if let Err(error) = interface_settings(settings.driver_opts.as_ref(), "eth0") {
        errors.push(error.message);
    }
    if let Some(mac) = given(settings.mac_address.as_ref())
        && parse_mac(&mac).is_none()
    {
        return Err(Error::invalid(format!("invalid MAC address {mac}")));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid endpoint settings:\n{}", list(&errors))))
}

/// Several mistakes as Docker lists them.
pub(super) fn list(errors: &[String]) -> String {
    match errors {
        [only] => only.clone(),
        several => several.iter().map(|error| format!("* {error}")).collect::<Vec<_>>().join("\n"),
    }
}

/// Whether an address lies in a subnet of a family that is off, which dockerd lets pass.
fn is_dormant(record: &NetworkRecord, ip: IpAddr) -> bool {
    let subnets = record.dormant.iter().filter_map(|config| config.subnet.as_deref());
    subnets.filter_map(|subnet| subnet.parse::<IpNet>().ok()).any(|subnet| subnet.contains(&ip))
}

/// The names that a container has on a user-defined network; the first one answers reverse lookups.
pub(crate) fn dns_names(record: &Record, settings: Option<&EndpointSettings>) -> Vec<String> {
    let mut all = vec![record.name.clone()];
    all.extend(settings.and_then(|settings| settings.aliases.clone()).unwrap_or_default());
    all.push(names::short(&record.id).to_owned());
    all.extend(record.config.hostname.clone().filter(|hostname| !hostname.is_empty()));
    let mut seen = std::collections::HashSet::new();
    all.retain(|name| seen.insert(name.clone()));
    all
}

/// The six bytes of `02:42:ac:11:00:02`.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None })
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use bollard_stubs::models::EndpointIpamConfig;

    use super::*;

    #[test]
    fn hardware_addresses_are_six_pairs_of_digits() {
        assert_eq!(parse_mac("02:42:ac:11:00:02"), Some([2, 0x42, 0xac, 0x11, 0, 2]));
        for wrong in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "0g:42:ac:11:00:02", "2:42:ac:11:00:02"] {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_mistake_is_told_in_dockers_words() {
        let settings = EndpointSettings {
            aliases: Some(vec!["db".into()]),
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: Some("172.17.0.9".into()),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        };
        assert_eq!(
            check("bridge", None, &settings).unwrap_err().message,
            "invalid endpoint settings:\n* user specified IP address is supported on user defined networks only\n\
             * network-scoped alias is supported only for containers in user defined networks"
        );
        assert!(check("front", None, &settings).is_ok());
        let settings =
            EndpointSettings { mac_address: Some("nonsense".into()), ..EndpointSettings::default() };
        assert_eq!(check("front", None, &settings).unwrap_err().message, "invalid MAC address nonsense");
    }
}
