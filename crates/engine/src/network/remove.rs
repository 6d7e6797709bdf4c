//! `network rm` and `network prune`.

use std::sync::Arc;

use bollard_stubs::models::NetworkPruneResponse;

use super::{Network, configuration, is_user_defined};
use crate::container::until;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::events::Kind;
use crate::filters::Filters;
use crate::names;
use crate::state::{Op, Table};

impl Engine {
    /// Removes a network.
    ///
    /// # Errors
    /// When it is built in or a running container is on it.
    pub async fn remove_network(&self, wanted: &str) -> Result<()> {
        let network = self.0.networks.find(wanted)?;
        let engine = self.clone();
        blocking(move || engine.remove_network_blocking(&network)).await
    }

    fn remove_network_blocking(&self, network: &Arc<Network>) -> Result<()> {
        let record = network.record();
        if !is_user_defined(&record.name) {
            let message = format!("{} is a pre-defined network and cannot be removed", record.name);
            return Err(Error::new(Code::Forbidden, message));
        }
        let networks = &self.0.networks;
        let _change = networks.change();
        configuration::refuse_removal(record, &networks.list())?;
        if let Err(endpoints) = network.seal() {
            return Err(Error::new(Code::Forbidden, self.in_use(&record.name, endpoints)));
        }
        // The bridge first: after a kill in between the network is whole again.
        network.close();
        if let Err(error) = self.0.database.commit([Op::delete(Table::Networks, &record.id)]) {
            network.unseal();
            return Err(error);
        }
        networks.forget(&record.id);
        if let Err(error) = networks.apply_firewall() {
            tracing::warn!(%error, "firewall can't be changed");
        }
        self.network_event(network, "destroy", None);
        Ok(())
    }

    fn in_use(&self, name: &str, mut endpoints: Vec<(String, String)>) -> String {
        endpoints.sort_by(|a, b| a.1.cmp(&b.1));
        let list: Vec<String> = endpoints
            .iter()
            .map(|(id, container)| {
                let container = self.0.registry.by_id(container);
                let holder = container.map_or_else(String::new, |container| container.record().name.clone());
                format!("name:\"{holder}\" id:\"{}\"", names::short(id))
            })
            .collect();
        format!("error while removing network: network {name} has active endpoints ({})", list.join(", "))
    }

    /// Removes all networks of users that no running container is on.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn prune_networks(&self, filters: Filters) -> Result<NetworkPruneResponse> {
        filters.check(&["label", "label!", "until"])?;
        let until = until(&filters)?;
        let mut deleted = Vec::new();
        for network in self.0.networks.list() {
            let record = network.record();
            let labels = Some(&record.labels);
            if !is_user_defined(&record.name)
                || record.configuration.is_some()
                || !network.members().is_empty()
                || !filters.labels(labels)
                || !filters.not_labels(labels)
                || until.is_some_and(|until| record.created >= until)
            {
                continue;
            }
            match self.remove_network(&record.id).await {
                Ok(()) => deleted.push(record.name.clone()),
                Err(error) => tracing::debug!(%error, "network is not pruned"),
            }
        }
        let attributes = [("reclaimed".to_owned(), "0".to_owned())].into();
        self.0.events.publish(Kind::Network, "prune", "", attributes);
        Ok(NetworkPruneResponse { networks_deleted: Some(deleted) })
    }

    /// Publishes an event about a network, and the container that comes or goes.
    pub(crate) fn network_event(&self, network: &Network, action: &str, container: Option<&str>) {
        let record = network.record();
        let mut attributes = vec![("name", record.name.clone()), ("type", record.driver.clone())];
        attributes.extend(container.map(|id| ("container", id.to_owned())));
        let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        self.0.events.publish(Kind::Network, action, &record.id, attributes);
    }
}
