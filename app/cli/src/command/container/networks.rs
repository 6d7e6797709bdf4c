//! The flags of `run` and `create` about networks.

use std::collections::HashMap;

use bollard_stubs::models::{EndpointIpamConfig, EndpointSettings, NetworkingConfig};
use clap::Args;

use crate::error::Error;
use crate::options::mount;

/// Networks, and a container's place on them.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkFlags {
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, value_name = "string")]
    ip: Option<String>,
    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long, value_name = "string")]
    ip6: Option<String>,
    /// Add link to another container
    #[arg(long, value_name = "list")]
    link: Vec<String>,
    /// Container IPv4/IPv6 link-local addresses
    #[arg(long, value_name = "list")]
    link_local_ip: Vec<String>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long, value_name = "string")]
    mac_address: Option<String>,
    /// Connect a container to a network
    #[arg(long, alias = "net", value_name = "network", value_parser = attachment)]
    network: Vec<Attachment>,
    /// Add network-scoped alias for the container
    #[arg(long, alias = "net-alias", value_name = "list")]
    network_alias: Vec<String>,
}

/// One `--network`: a name, or `name=…,alias=…,ip=…`.
#[derive(Debug, Clone, Default, PartialEq)]
struct Attachment {
    name: String,
    settings: EndpointSettings,
}

impl Attachment {
    fn ipam(&mut self) -> &mut EndpointIpamConfig {
        self.settings.ipam_config.get_or_insert_default()
    }
}

fn attachment(text: &str) -> Result<Attachment, String> {
    let mut all = Attachment::default();
    if !text.contains('=') {
        text.clone_into(&mut all.name);
        return Ok(all);
    }
    for field in mount::fields(text)? {
        let Some((key, value)) =
            field.split_once('=').map(|(key, value)| (key.to_ascii_lowercase(), value.trim().to_owned()))
        else {
            return Err(format!("invalid field {field}"));
        };
        match key.trim() {
            "name" => all.name = value,
            "alias" => all.settings.aliases.get_or_insert_default().push(value),
            "ip" => all.ipam().ipv4_address = Some(value),
            "ip6" => all.ipam().ipv6_address = Some(value),
            "link-local-ip" => all.ipam().link_local_ips.get_or_insert_default().push(value),
            "mac-address" => all.settings.mac_address = Some(value),
            "driver-opt" => {
                let Some((name, value)) = value.split_once('=') else {
                    return Err("invalid key value pair format in driver options".to_owned());
                };
                all.settings
                    .driver_opts
                    .get_or_insert_default()
                    .insert(name.trim().to_ascii_lowercase(), value.trim().to_ascii_lowercase());
            }
            "gw-priority" => {
                all.settings.gw_priority = Some(
                    value.parse().map_err(|_| format!("invalid gw-priority ({value}): invalid syntax"))?,
                );
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if all.name.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(all)
}

/// Whether a network was made by a user, as far as its name tells.
fn is_user_defined(name: &str) -> bool {
    !matches!(name, "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

impl NetworkFlags {
    /// The network mode: the first network.
    pub fn mode(&self) -> String {
        self.network.first().map_or_else(|| "default".to_owned(), |first| first.name.clone())
    }

    /// The links, which are the host configuration's.
    pub fn links(&self) -> Option<Vec<String>> {
        (!self.link.is_empty()).then(|| self.link.clone())
    }

    /// The endpoints; the flags beside `--network` are about the first one.
    pub fn networking(&self) -> Result<Option<NetworkingConfig>, Error> {
        let mut all = self.network.clone();
        if all.is_empty() {
            all.push(Attachment { name: self.mode(), ..Attachment::default() });
        }
        let (users, others): (Vec<_>, Vec<_>) =
            all.iter().partition(|network| is_user_defined(&network.name));
        if !users.is_empty() && !others.is_empty() || others.len() > 1 {
            return Err(Error::plain(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ));
        }
        self.complete(&mut all[0])?;
        let plain = all.len() == 1 && all[0].settings == EndpointSettings::default();
        if plain {
            return Ok(None);
        }
        let mut endpoints = HashMap::new();
        for network in all {
            let name = network.name.clone();
            if endpoints.insert(network.name, network.settings).is_some() {
                return Err(Error::plain(format!("network {name:?} is specified multiple times")));
            }
        }
        Ok(Some(NetworkingConfig { endpoints_config: Some(endpoints) }))
    }

    /// Adds the flags to the first network.
    fn complete(&self, first: &mut Attachment) -> Result<(), Error> {
        let conflict = |flag: &str, what: &str| {
            Err(Error::plain(format!(
                "conflicting options: cannot specify both --{flag} and per-network {what}"
            )))
        };
        if !self.network_alias.is_empty() {
            if first.settings.aliases.is_some() {
                return conflict("network-alias", "alias");
            }
            first.settings.aliases = Some(self.network_alias.clone());
        }
        if !self.link.is_empty() && is_user_defined(&first.name) {
            first.settings.links = Some(self.link.clone());
        }
        let ipam = first.settings.ipam_config.clone().unwrap_or_default();
        if let Some(ip) = &self.ip {
            if ipam.ipv4_address.is_some() {
                return conflict("ip", "IPv4 address");
            }
            first.ipam().ipv4_address = Some(ip.clone());
        }
        if let Some(ip) = &self.ip6 {
            if ipam.ipv6_address.is_some() {
                return conflict("ip6", "IPv6 address");
            }
            first.ipam().ipv6_address = Some(ip.clone());
        }
        if !self.link_local_ip.is_empty() {
            if ipam.link_local_ips.is_some() {
                return conflict("link-local-ip", "link-local IP addresses");
            }
            first.ipam().link_local_ips = Some(self.link_local_ip.clone());
        }
        if let Some(address) = &self.mac_address {
            if first.settings.mac_address.is_some() {
                return conflict("mac-address", "MAC address");
            }
            first.settings.mac_address = Some(address.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(networks: &[&str]) -> NetworkFlags {
        let network = networks.iter().map(|text| attachment(text).unwrap()).collect();
        NetworkFlags { network, ..NetworkFlags::default() }
    }

    #[test]
    fn a_plain_network_is_just_the_mode() {
        assert_eq!(flags(&[]).mode(), "default");
        assert_eq!(flags(&["host"]).mode(), "host");
        assert!(flags(&["front"]).networking().unwrap().is_none());
    }

    #[test]
    fn every_network_has_its_own_settings() {
        let all = flags(&["name=front,alias=web,ip=10.0.0.9,driver-opt=a=b", "back"]);
        assert_eq!(all.mode(), "front");
        let endpoints = all.networking().unwrap().unwrap().endpoints_config.unwrap();
        let front = &endpoints["front"];
        assert_eq!(front.aliases, Some(vec!["web".to_owned()]));
        assert_eq!(front.ipam_config.as_ref().unwrap().ipv4_address.as_deref(), Some("10.0.0.9"));
        assert_eq!(front.driver_opts.as_ref().unwrap()["a"], "b");
        assert_eq!(endpoints["back"], EndpointSettings::default());
    }

    #[test]
    fn flags_are_about_the_first_network() {
        let all = NetworkFlags { ip: Some("10.0.0.8".to_owned()), ..flags(&["front", "back"]) };
        let endpoints = all.networking().unwrap().unwrap().endpoints_config.unwrap();
        assert!(endpoints["front"].ipam_config.is_some() && endpoints["back"].ipam_config.is_none());
        let both = NetworkFlags { ip: Some("10.0.0.8".to_owned()), ..flags(&["name=front,ip=10.0.0.9"]) };
        assert!(both.networking().unwrap_err().to_string().contains("--ip and per-network IPv4 address"));
        assert!(flags(&["front", "host"]).networking().is_err());
        assert!(flags(&["front", "front"]).networking().is_err());
        assert!(attachment("alias=x").is_err() && attachment("name=a,nonesuch=1").is_err());
    }
}
