//! `network connect` and `network disconnect`.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard_stubs::models::EndpointSettings;
use skiff_network::NetNs;

use super::attach::{check_modes, choose_default_route, next_number};
use super::{Network, Resolver, configuration, is_user_defined, settings};
use crate::container::{Bound, Container, Targets};
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result, chain};
use crate::state::{Endpoint, Record, Status};

/// How long a port that was closed may still be taken.
const PORTS_CLOSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Puts a container on a network, running or not.
    ///
    /// # Errors
    /// When it is on it already, or the settings make no sense.
    pub async fn connect_network(
        &self,
        network: &str,
        container: &str,
        settings: Option<EndpointSettings>,
    ) -> Result<()> {
        let container = self.container(container)?;
        let found = self.0.networks.find(network);
        let _operation = container.operation.lock().await;
        let record = container.record();
        if container.removed() || record.state.status == Status::Dead {
            return Err(Error::conflict(format!(
                "container is marked for removal and cannot be connected or disconnected to the network: {}",
                record.id
            )));
        }
        let mut settings = settings.unwrap_or_default();
        let network = match found {
            Err(error) if error.code == Code::NotFound && !record.state.is_running() => {
                // A container that does not run remembers also what is not there yet, as with dockerd: its start tells.
                let record = container.change(|record| {
                    let all = record.networking.endpoints_config.get_or_insert_default();
                    all.insert(network.to_owned(), settings);
                });
                return self.store_soon(record).await;
            }
            other => other?,
        };
        let name = network.record().name.clone();
        settings::check(&name, Some(&network), &settings)?;
        check_modes(&record, &network)?;
        let is_there = record.networking.endpoints_config.as_ref().is_some_and(|all| all.contains_key(&name));
        if is_there && record.state.is_running() {
            return Err(Error::new(
                Code::Forbidden,
                format!("endpoint with name {} already exists in network {name}", record.name),
            ));
        }
        if record.state.is_running() {
            configuration::refuse_endpoint(&network)?;
            settings.network_id = Some(network.record().id.clone());
        }
        if record.state.is_running() && network.has_interfaces() {
            let others = &record.endpoints;
            let least = see_numbers(&container, others);
            let endpoint = self.allocate_endpoint(&record, &network, &settings, others, least).await?;
            let (engine, ours, net) = (self.clone(), Arc::clone(&container), Arc::clone(&network));
            let (wanted, id) = (settings.clone(), endpoint.clone());
            let joined = blocking(move || engine.join(&ours, &net, wanted, endpoint)).await;
            if let Err(error) = joined {
                let (net, engine) = (Arc::clone(&network), self.clone());
                engine.0.runtime.spawn_blocking(move || net.release(&id));
                return Err(error);
            }
            self.publish_by_default_route(&container).await;
        } else {
            let record = container.change(|record| {
                record.networking.endpoints_config.get_or_insert_default().insert(name, settings);
            });
            self.store_soon(record).await?;
        }
        self.network_event(&network, "connect", Some(&record.id));
        Ok(())
    }

    /// The part of connecting a running container that blocks.
    fn join(
        &self,
        container: &Arc<Container>,
        network: &Network,
        settings: EndpointSettings,
        endpoint: Endpoint,
    ) -> Result<()> {
        let failed =
            |error: skiff_network::Error| Error::internal("failed to set up container networking", &error);
        let netns = container.netns()?;
        let name = network.record().name.clone();
        let old = container.record();
        let record = container.change(|record| {
            record.networking.endpoints_config.get_or_insert_default().insert(name.clone(), settings);
            record.endpoints.push(endpoint.clone());
        });
        let attempt = || {
            let mut endpoints = record.endpoints.clone();
            choose_default_route(&self.attachments(&record)?, &mut endpoints);
            // Its link comes without a route: that is set for all interfaces together.
            network.attach(
                &Endpoint { default_route: false, default_route6: false, ..endpoint.clone() },
                netns.as_fd(),
            )?;
            self.route(&netns, &endpoints).map_err(failed)?;
            let changed = container.change(|record| record.endpoints.clone_from(&endpoints));
            self.store(&changed)?;
            if is_user_defined(&name) && container.run().as_ref().is_none_or(|run| run.resolver.is_none()) {
                let resolver = Resolver::start(self, &record.id, &netns)?;
                if let Some(run) = container.run().as_mut() {
                    run.resolver = Some(resolver);
                }
                self.write_resolv_conf(&changed)?;
            }
            self.add_host(&changed, &endpoint)
        };
        attempt().inspect_err(|_| {
            container.change(|record| {
                record.networking.clone_from(&old.networking);
                record.endpoints.clone_from(&old.endpoints);
            });
        })
    }

    /// Takes a container from a network, running or not. `force` is for endpoints of containers that Docker's own state
    /// has forgotten, which does not happen here.
    ///
    /// # Errors
    /// When it is not on it.
    pub async fn disconnect_network(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let found = self.0.networks.find(network);
        let container = match self.container(container) {
            Err(error) if force && error.code == Code::NotFound => {
                found?;
                return Err(Error::not_found(format!("endpoint {container} not found")));
            }
            other => other?,
        };
        let _operation = container.operation.lock().await;
        let record = container.record();
        let name =
            found.as_ref().map_or_else(|_| network.to_owned(), |network| network.record().name.clone());
        let is_there = record.networking.endpoints_config.as_ref().is_some_and(|all| all.contains_key(&name));
        if !is_there {
            // A network that is gone can still be in a stopped container's settings.
            found?;
            return Err(Error::new(
                Code::Forbidden,
                format!("container {} is not connected to network {name}", record.id),
            ));
        }
        if name == "host" && record.state.is_running() {
            return Err(Error::invalid(
                "cannot disconnect container from host network - container was created in host network mode",
            ));
        }
        see_numbers(&container, &record.endpoints);
        let mut gone = None;
        let changed = container.change(|record| {
            if let Some(all) = record.networking.endpoints_config.as_mut() {
                all.remove(&name);
            }
            let id = found.as_ref().map_or("", |network| &network.record().id);
            if let Some(at) = record.endpoints.iter().position(|endpoint| endpoint.network == id) {
                gone = Some(record.endpoints.remove(at));
            }
        });
        if let (Some(endpoint), Ok(network)) = (gone, &found) {
            let (engine, ours, net) = (self.clone(), Arc::clone(&container), Arc::clone(network));
            blocking(move || {
                if !net.is_bridge() {
                    engine.take_interface(&ours, &endpoint);
                }
                net.release(&endpoint);
                engine.depart(&ours, &endpoint)
            })
            .await?;
            self.publish_by_default_route(&container).await;
        } else {
            self.store_soon(changed).await?;
        }
        if let Ok(network) = &found {
            self.network_event(network, "disconnect", Some(&record.id));
        }
        Ok(())
    }

    /// Takes a container's part of a shared interface away, which can't be seen from outside.
    fn take_interface(&self, container: &Container, endpoint: &Endpoint) {
        let Ok(netns) = container.netns() else { return };
        let taken = netns.delete_interface(&endpoint.ifname);
        if let Err(error) = taken {
            tracing::warn!(error = chain(&error), container = container.id, "interface can't be removed");
        }
    }

    /// Sends the default route of a running container another way, and stores what is left.
    fn depart(&self, container: &Container, gone: &Endpoint) -> Result<()> {
        let record = container.record();
        let mut endpoints = record.endpoints.clone();
        choose_default_route(&self.attachments(&record)?, &mut endpoints);
        if let Ok(netns) = container.netns() {
            let routed = self.route(&netns, &endpoints);
            if let Err(error) = routed {
                // It may be ending in this moment.
                tracing::debug!(
                    error = chain(&error),
                    container = container.id,
                    "default route can't be changed"
                );
            }
        }
        let changed = container.change(|record| record.endpoints.clone_from(&endpoints));
        self.remove_host(&changed, gone)?;
        self.store(&changed)
    }

    fn route(&self, netns: &NetNs, endpoints: &[Endpoint]) -> Result<(), skiff_network::Error> {
        let way = endpoints.iter().find(|endpoint| endpoint.default_route);
        netns.set_default_route(way.and_then(|way| Some((way.ifname.as_str(), way.gateway?))))?;
        let six = endpoints.iter().find(|endpoint| endpoint.default_route6);
        match six.and_then(|way| Some((way.ifname.as_str(), way.gateway6?))) {
            Some((ifname, gateway)) => netns.set_default_route_ipv6(ifname, gateway),
            None => Ok(()),
        }
    }

    /// Published ports lead to the address on the network that is the way out: after a change, to the new one.
    async fn publish_by_default_route(&self, container: &Arc<Container>) {
        let record = container.record();
        let targets = self.targets(&record.endpoints);
        let leads_there = container.run().as_ref().is_none_or(|run| run.ports_lead_to == targets);
        if record.host_config.port_bindings.as_ref().is_none_or(|ports| ports.is_empty())
            && record.host_config.publish_all_ports != Some(true)
            || leads_there
        {
            return;
        }
        // The addresses must be free before they are bound again.
        if let Some(run) = container.run().as_mut() {
            run.ports.clear();
            run.ports_lead_to.clone_from(&targets);
        }
        let record = container.change(|record| record.ports.clear());
        let (ports, published) = match &targets {
            Some(targets) => self.publish_moved(&record, targets).await,
            None => Default::default(),
        };
        if let Some(run) = container.run().as_mut() {
            run.ports = ports;
        }
        let record = container.change(|record| record.ports = published);
        self.store_later(&record);
    }

    /// Binds the ports of a container anew that have been closed in this moment: a host may let go of them a little later.
    async fn publish_moved(&self, record: &Record, targets: &Targets) -> Bound {
        let deadline = Instant::now() + PORTS_CLOSE;
        loop {
            match self.publish(record, targets).await {
                Ok(bound) => return bound,
                Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => {
                    tracing::warn!(%error, container = record.id, "ports can't be published again");
                    return Bound::default();
                }
            }
        }
    }

    async fn store_soon(&self, record: Arc<Record>) -> Result<()> {
        let engine = self.clone();
        blocking(move || engine.store(&record)).await
    }
}

/// Remembers which numbers the interfaces of a running container have had, and returns the next one: as with dockerd, none
/// is given twice, so that what was said about one interface never holds for another.
fn see_numbers(container: &Container, endpoints: &[Endpoint]) -> u32 {
    let next = next_number(endpoints);
    container.run().as_mut().map_or(next, |run| {
        run.next_interface = run.next_interface.max(next);
        run.next_interface
    })
}
