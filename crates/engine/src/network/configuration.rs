//! Networks that are configurations for others (`--config-only`), and those that have theirs from one (`--config-from`).

use std::sync::Arc;

use bollard_stubs::models::{Ipam, NetworkCreateRequest, NetworkCreateResponse};

use super::{Network, built_in, pools::pools};
use crate::clock;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::names;
use crate::state::{Families, NetworkRecord, Op, Table};

/// The network that a request wants its configuration from.
fn wanted(request: &NetworkCreateRequest) -> Option<&str> {
    request.config_from.as_ref()?.network.as_deref().filter(|name| !name.is_empty())
}

fn forbidden(message: impl Into<String>) -> Error {
    Error::new(Code::Forbidden, message)
}

/// Checks what a request says about configurations, apart from whether they are there.
///
/// # Errors
/// In dockerd's words, when things are asked for that don't go together.
pub(super) fn check(request: &NetworkCreateRequest) -> Result<()> {
    let set = |switch: Option<bool>| switch == Some(true);
    if set(request.config_only) {
        if wanted(request).is_some() {
            return Err(forbidden("a configuration network cannot depend on another configuration network"));
        }
        let scope = request.scope.as_deref().is_some_and(|scope| !scope.is_empty());
        if set(request.ingress) || set(request.internal) || set(request.attachable) || scope {
            return Err(forbidden(
                "configuration network can only contain network specific fields. Network operator fields like [ ingress | \
                 internal | attachable | scope ] are not supported.",
            ));
        }
    }
    if wanted(request).is_some() {
        if request.options.as_ref().is_some_and(|options| !options.is_empty()) {
            return Err(forbidden(
                "network driver options are not supported if the network depends on a configuration network",
            ));
        }
        let ipam = request.ipam.as_ref();
        let addresses = ipam.and_then(|ipam| ipam.config.as_ref()).is_some_and(|all| !all.is_empty())
            || ipam.and_then(|ipam| ipam.options.as_ref()).is_some_and(|all| !all.is_empty());
        let labels = request.labels.as_ref().is_some_and(|labels| !labels.is_empty());
        if addresses || labels || set(request.enable_ipv6) {
            return Err(forbidden(
                "user specified configurations are not supported if the network depends on a configuration network",
            ));
        }
    }
    Ok(())
}

/// Fills a request with the configuration that it names, and returns that one's name.
///
/// # Errors
/// When there is no such configuration.
pub(super) fn apply(request: &mut NetworkCreateRequest, all: &[Arc<Network>]) -> Result<Option<String>> {
    let Some(name) = wanted(request).map(str::to_owned) else { return Ok(None) };
    let found = all.iter().map(|network| network.record()).find(|record| record.name == name);
    let found = found.and_then(|record| Some((record, record.configuration?)));
    let (record, families) =
        found.ok_or_else(|| Error::not_found(format!("configuration network \"{name}\" does not exist")))?;
    request.ipam = Some(Ipam {
        config: Some(record.given.clone()),
        options: record.ipam_options.clone(),
        ..Ipam::default()
    });
    request.options = Some(record.options.clone());
    request.labels = Some(record.labels.clone());
    (request.enable_ipv4, request.enable_ipv6) = (Some(families.ipv4), Some(families.ipv6));
    Ok(Some(name))
}

impl Engine {
    /// Remembers a configuration. Nobody else may make or remove networks meanwhile.
    pub(super) fn create_configuration(
        &self,
        request: NetworkCreateRequest,
    ) -> Result<NetworkCreateResponse> {
        let ipam = request.ipam.unwrap_or_default();
        let families = Families {
            ipv4: request.enable_ipv4.unwrap_or(true),
            ipv6: request.enable_ipv6.unwrap_or(false),
        };
        let given = ipam.config.unwrap_or_default();
        // Whether a driver can have so many subnets is for the networks to say.
        if let Err(error) = pools(&given, families.ipv4, families.ipv6)
            && error.code == Code::InvalidArgument
        {
            return Err(error);
        }
        let mut options = request.options.unwrap_or_default();
        options.retain(|key, _| !key.is_empty());
        let id = names::random_id();
        let record = NetworkRecord {
            id: id.clone(),
            created: clock::now_ns(),
            given,
            ipam_options: ipam.options,
            options,
            labels: request.labels.unwrap_or_default(),
            configuration: Some(families),
            // As with dockerd: no driver has anything to do with it.
            ..built_in(&self.0.facts, &request.name, "null")
        };
        self.0.database.commit([Op::put(Table::Networks, &id, &record)])?;
        let network = Arc::new(Network::without_device(record));
        self.0.networks.insert(Arc::clone(&network));
        self.network_event(&network, "create", None);
        Ok(NetworkCreateResponse { id, warning: String::new() })
    }
}

/// What those are told who want a container on a configuration.
///
/// # Errors
/// When the network is one.
pub(super) fn refuse_endpoint(network: &Network) -> Result<()> {
    match network.record().configuration {
        Some(_) => Err(forbidden("cannot create endpoint on configuration-only network")),
        None => Ok(()),
    }
}

/// What those are told who want to remove a configuration that others have.
///
/// # Errors
/// When there are others.
pub(super) fn refuse_removal(record: &NetworkRecord, all: &[Arc<Network>]) -> Result<()> {
    let name = record.name.as_str();
    let is_used = all.iter().any(|network| network.record().config_from.as_deref() == Some(name));
    if record.configuration.is_some() && is_used {
        let message = format!("error while removing network: configuration network \"{name}\" is in use");
        return Err(forbidden(message));
    }
    Ok(())
}
