//! Which networks a container is put on when it starts, and which of them is its way out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard_stubs::models::EndpointSettings;

use super::{Network, configuration, is_user_defined};
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::state::{Endpoint, Record};

/// The option that names the interface inside the container.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";
/// What the names of all other interfaces begin with.
const NUMBERED: &str = "eth";
/// How long to wait for an address whose last container is just leaving.
const ADDRESS_RETURNS: Duration = Duration::from_secs(2);

/// A network and what the container says about it.
pub(crate) type Attachment = (Arc<Network>, EndpointSettings);

impl Engine {
    /// The networks of a container in the order of its interfaces: that of its network mode, then by name.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub(crate) fn attachments(&self, record: &Record) -> Result<Vec<Attachment>> {
        let mode = record.host_config.network_mode.as_deref().unwrap_or("");
        if mode.starts_with("container:") {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for (name, settings) in record.networking.endpoints_config.iter().flatten() {
            let id = settings.network_id.as_deref().filter(|id| !id.is_empty() && is_user_defined(name));
            // A network of the same name that was made later is another one.
            all.push((self.0.networks.find(id.unwrap_or(name))?, settings.clone()));
        }
        let first = |network: &Network| network.record().name == mode || network.record().id == mode;
        all.sort_by(|(a, _), (b, _)| (!first(a), &a.record().name).cmp(&(!first(b), &b.record().name)));
        Ok(all)
    }

    /// Takes an address on every network of a container. What was taken before an error is in `taken`.
    ///
    /// # Errors
    /// When a network is missing or has no address.
    pub(crate) async fn allocate_endpoints(&self, record: &Record, taken: &mut Vec<Endpoint>) -> Result<()> {
        let attachments = self.attachments(record)?;
        attachments.iter().try_for_each(|(network, _)| configuration::refuse_endpoint(network))?;
        for (network, settings) in attachments.iter().filter(|(network, _)| network.has_interfaces()) {
            taken.push(self.allocate_endpoint(record, network, settings, taken, 0).await?);
        }
        choose_default_route(&attachments, taken);
        Ok(())
    }

    /// Takes an address on one network. The interface has the first free number from `least` on, or a name of its own.
    pub(super) async fn allocate_endpoint(
        &self,
        record: &Record,
        network: &Network,
        settings: &EndpointSettings,
        others: &[Endpoint],
        least: u32,
    ) -> Result<Endpoint> {
        let wanted = settings.driver_opts.as_ref().and_then(|options| options.get(INTERFACE)).cloned();
        let free = (least..).map(|number| format!("{NUMBERED}{number}"));
        let mut free = free.filter(|name| others.iter().all(|other| other.ifname != *name));
        let ifname = wanted.or_else(|| free.next()).expect("the numbers are endless");
        let deadline = Instant::now() + ADDRESS_RETURNS;
        loop {
            match network.allocate(record, settings, self.0.networks.prefix(), ifname.clone()) {
                Err(error)
                    if error.code == Code::Forbidden
                        && Instant::now() < deadline
                        && network.is_returning(settings) =>
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// The network of an endpoint.
    ///
    /// # Errors
    /// When it has been removed, which it can't be while the endpoint is there.
    pub(crate) fn network_of(&self, endpoint: &Endpoint) -> Result<Arc<Network>> {
        self.0.networks.find(&endpoint.network)
    }

    /// Gives endpoints back: links, then addresses. Blocks.
    pub(crate) fn release_endpoints(&self, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            if let Ok(network) = self.network_of(endpoint) {
                network.release(endpoint);
            }
        }
    }
}

/// The number after those of all interfaces.
pub(super) fn next_number(endpoints: &[Endpoint]) -> u32 {
    let number = |endpoint: &Endpoint| endpoint.ifname.strip_prefix(NUMBERED)?.parse::<u32>().ok();
    endpoints.iter().filter_map(number).max().map_or(0, |last| last.saturating_add(1))
}

/// Sends the default routes the way of the highest gateway priority; among equals the first name wins, as in Docker. Each
/// family goes its own way where networks lack one.
pub(super) fn choose_default_route(attachments: &[Attachment], endpoints: &mut [Endpoint]) {
    let rank = |endpoint: &Endpoint| {
        let (network, settings) =
            attachments.iter().find(|(network, _)| network.record().id == endpoint.network)?;
        Some((-settings.gw_priority.unwrap_or(0), network.record().name.clone()))
    };
    let best = |has_way: fn(&Endpoint) -> bool| {
        let ways = endpoints.iter().filter(|endpoint| has_way(endpoint));
        ways.filter_map(|endpoint| Some((rank(endpoint)?, endpoint.id.clone()))).min().map(|(_, id)| id)
    };
    let four = best(|endpoint| endpoint.ip.is_some() && endpoint.gateway.is_some());
    let six = best(|endpoint| endpoint.ip6.is_some() && endpoint.gateway6.is_some());
    for endpoint in endpoints {
        endpoint.default_route = four.as_ref() == Some(&endpoint.id);
        endpoint.default_route6 = six.as_ref() == Some(&endpoint.id);
    }
}

/// What is said to those who want a container of another network namespace on a network.
pub(super) fn check_modes(record: &Record, network: &Network) -> Result<()> {
    let mode = record.host_config.network_mode.as_deref().unwrap_or("");
    let name = network.record().name.as_str();
    let shares = "container sharing network namespace with another container or host cannot be connected to any other \
                  network";
    if mode.starts_with("container:") {
        return Err(Error::invalid(shares));
    }
    if mode != "host" && name == "host" {
        return Err(Error::invalid(
            "cannot connect container to host network - container must be created in host network mode",
        ));
    }
    if mode == "host" && name != "host" {
        return Err(Error::invalid(shares));
    }
    let others = record.networking.endpoints_config.iter().flatten().any(|(other, _)| other != name);
    let has_none = record.networking.endpoints_config.as_ref().is_some_and(|all| all.contains_key("none"));
    if others && (name == "none" || has_none) {
        return Err(Error::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    Ok(())
}
