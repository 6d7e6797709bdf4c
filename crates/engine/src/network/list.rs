//! `network ls` and `network inspect`.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard_stubs::models::{
    ConfigReference, EndpointResource, Ipam as IpamModel, IpamConfig, Network as NetworkModel, NetworkInspect,
};

use ipnet::IpNet;

use super::{Network, is_user_defined};
use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::filters::{Filters, name_matches};
use crate::state::{Families, NetworkRecord, Record};

impl Engine {
    /// Lists the networks.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn list_networks(&self, filters: Filters) -> Result<Vec<NetworkModel>> {
        filters.check(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = filters.boolean("dangling").map_err(|_| {
            Error::invalid(
                "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
            )
        })?;
        if let Some(kind) = filters
            .get("type")
            .and_then(|kinds| kinds.iter().find(|kind| !matches!(kind.as_str(), "builtin" | "custom")))
        {
            return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
        }
        let fits = |network: &Network| {
            let record = network.record();
            let own = is_user_defined(&record.name);
            filters.any("name", |wanted| name_matches(wanted, &record.name))
                && filters.any("id", |wanted| name_matches(wanted, &record.id))
                && filters.any("driver", |wanted| record.driver == wanted)
                && filters.any("scope", |wanted| wanted == "local")
                && filters.any("type", |wanted| (wanted == "custom") == own)
                && filters.labels(Some(&record.labels))
                && dangling.is_none_or(|wanted| wanted == (own && network.members().is_empty()))
        };
        let networks = self.0.networks.list();
        Ok(networks.iter().filter(|network| fits(network)).map(|network| model(network)).collect())
    }

    /// Describes a network, by name, id or unique beginning of an id.
    ///
    /// # Errors
    /// When there is none, or none of this scope.
    pub async fn inspect_network(&self, wanted: &str, scope: Option<&str>) -> Result<NetworkInspect> {
        let network = self.0.networks.find(wanted)?;
        if scope.is_some_and(|scope| scope != "local") {
            return Err(Error::not_found(format!("network {wanted} not found")));
        }
        let model = model(&network);
        let members = self.0.registry.all().into_iter().map(|container| container.record());
        let containers: HashMap<String, EndpointResource> = members
            .filter(|record| record.state.is_running())
            .filter_map(|record| Some((record.id.clone(), endpoint_resource(&network, &record)?)))
            .collect();
        Ok(NetworkInspect {
            name: model.name,
            id: model.id,
            created: model.created,
            scope: model.scope,
            driver: model.driver,
            enable_ipv4: model.enable_ipv4,
            enable_ipv6: model.enable_ipv6,
            ipam: model.ipam,
            internal: model.internal,
            attachable: model.attachable,
            ingress: model.ingress,
            config_from: model.config_from,
            config_only: model.config_only,
            options: model.options,
            labels: model.labels,
            peers: None,
            containers: Some(containers),
            ..NetworkInspect::default()
        })
    }
}

/// The addresses of a network: what was asked for before what was chosen, and of both IPv4 first.
///
/// What was given is shown as it was, also for a family that is off, and a gateway only if it was given: so does dockerd.
fn configs(record: &NetworkRecord) -> Vec<IpamConfig> {
    let is_six = |config: &IpamConfig| config.subnet.as_deref().is_some_and(|subnet| subnet.contains(':'));
    let (six, four): (Vec<_>, Vec<_>) = record.given.iter().cloned().partition(is_six);
    let made = |subnet: IpNet, gateway: Option<IpAddr>| IpamConfig {
        subnet: Some(subnet.to_string()),
        gateway: gateway.map(|ip| ip.to_string()),
        ..IpamConfig::default()
    };
    let chosen4 = record.subnet.filter(|_| four.is_empty());
    let chosen6 = record.subnet6.filter(|_| six.is_empty());
    let chosen4 = chosen4.map(|subnet| made(subnet.into(), record.gateway.map(IpAddr::V4)));
    let chosen6 = chosen6.map(|subnet| made(subnet.into(), record.gateway6.map(IpAddr::V6)));
    four.into_iter().chain(six).chain(chosen4).chain(chosen6).collect()
}

fn model(network: &Network) -> NetworkModel {
    let record = network.record();
    let configs = match record.configuration {
        Some(_) => Some(record.given.clone()).filter(|given| !given.is_empty()),
        None => (record.driver != "host" && record.driver != "null").then(|| configs(record)),
    };
    let families = record.configuration.unwrap_or(Families {
        // The built-in networks without addresses say so too, as with dockerd.
        ipv4: record.subnet.is_some() || record.subnet6.is_none(),
        ipv6: record.subnet6.is_some(),
    });
    NetworkModel {
        name: Some(record.name.clone()),
        id: Some(record.id.clone()),
        created: Some(clock::rfc3339(Some(record.created))),
        scope: Some("local".to_owned()),
        driver: Some(record.driver.clone()),
        enable_ipv4: Some(families.ipv4),
        enable_ipv6: Some(families.ipv6),
        ipam: Some(IpamModel {
            driver: Some("default".to_owned()),
            config: configs,
            options: record.ipam_options.clone(),
        }),
        internal: Some(record.internal),
        attachable: Some(record.attachable),
        ingress: Some(false),
        config_from: Some(ConfigReference { network: Some(record.config_from.clone().unwrap_or_default()) }),
        config_only: Some(record.configuration.is_some()),
        options: Some(record.options.clone()),
        labels: Some(record.labels.clone()),
        peers: None,
    }
}

/// A running container's place on a network; `None` when it is not on it.
fn endpoint_resource(network: &Network, record: &Record) -> Option<EndpointResource> {
    let endpoint = record.endpoints.iter().find(|endpoint| endpoint.network == network.record().id);
    let shares = !network.has_interfaces()
        && record
            .networking
            .endpoints_config
            .as_ref()
            .is_some_and(|all| all.contains_key(&network.record().name));
    if endpoint.is_none() && !shares {
        return None;
    }
    let text = |value: Option<String>| Some(value.unwrap_or_default());
    Some(EndpointResource {
        name: Some(record.name.clone()),
        endpoint_id: text(endpoint.map(|endpoint| endpoint.id.clone())),
        mac_address: text(endpoint.map(|endpoint| endpoint.mac.clone())),
        ipv4_address: text(
            endpoint.and_then(|endpoint| Some(format!("{}/{}", endpoint.ip?, endpoint.prefix_len))),
        ),
        ipv6_address: text(
            endpoint.and_then(|endpoint| Some(format!("{}/{}", endpoint.ip6?, endpoint.prefix_len6))),
        ),
    })
}
