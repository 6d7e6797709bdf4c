//! `network create`.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{NetworkCreateRequest, NetworkCreateResponse};
use ipnet::IpNet;
use skiff_network::{Subnet, SubnetLock, choose_subnet, choose_subnet_ipv6};

use super::device::{Device, parent_name, shares_interface};
use super::pools::{Pools, pools};
use super::{Network, configuration, is_user_defined, options};
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::names;
use crate::state::{NetworkRecord, Op, Table};

const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect \
                        this node to swarm and try again.";
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

impl Engine {
    /// Makes a network.
    ///
    /// # Errors
    /// When the name is taken, the driver not known, or the addresses overlap: nothing is left behind then.
    pub async fn create_network(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        let engine = self.clone();
        blocking(move || engine.create_network_blocking(request)).await
    }

    fn create_network_blocking(&self, mut request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        check(&request)?;
        let networks = &self.0.networks;
        let _change = networks.change();
        let all = networks.list();
        if all.iter().any(|network| network.record().name == request.name) {
            return Err(Error::conflict(format!("network with name {} already exists", request.name)));
        }
        if request.config_only == Some(true) {
            return self.create_configuration(request);
        }
        let config_from = configuration::apply(&mut request, &all)?;
        let ipam = request.ipam.unwrap_or_default();
        let ipv4 = request.enable_ipv4.unwrap_or(true);
        let ipv6 = request.enable_ipv6.unwrap_or(false);
        let mut pools = pools(ipam.config.as_deref().unwrap_or_default(), ipv4, ipv6)?;
        let id = names::random_id();
        let mut options = request.options.unwrap_or_default();
        options.retain(|key, _| !key.is_empty());
        let driver =
            request.driver.filter(|driver| !driver.is_empty()).unwrap_or_else(|| "bridge".to_owned());
        let shared = shares_interface(&driver);
        if shared && !networks.shares_interfaces {
            return Err(Error::not_implemented(format!(
                "{driver} networks share an interface of the host, and this engine runs in a guest that has none: use a \
                 bridge network, or the native backend"
            )));
        }
        let bridge = match options.get(BRIDGE_NAME).filter(|name| !name.is_empty()) {
            _ if shared => parent_name(&id, options.get("parent")),
            Some(name) => name.clone(),
            None => format!("br-{}", names::short(&id)),
        };
        if let Some(other) =
            all.iter().find(|other| other.record().bridge == bridge).map(|other| other.record())
        {
            let message = match shared {
                true => format!("network {} is already using parent interface {bridge}", other.name),
                false => format!(
                    "cannot create network {id} ({bridge}): conflicts with network {} ({bridge}): networks have same \
                     bridge name",
                    other.id
                ),
            };
            return Err(Error::new(Code::Forbidden, message));
        }
        // No other engine may choose the same subnet until the bridge has it.
        let refused = |error: skiff_network::Error| Error::internal("failed to create network", &error);
        let lock = SubnetLock::acquire().map_err(refused)?;
        let own = (pools.four.subnet.is_some(), pools.six.subnet.is_some());
        self.fill(&mut pools, &lock, &all, ipv4, ipv6)?;
        let isolated = |subnet: IpNet| options::GatewayMode::is_isolated(&options, subnet);
        let Pools { four, six, dormant } = pools;
        let gateway = four.subnet.filter(|subnet| !isolated(IpNet::V4(*subnet)));
        let gateway6 = six.subnet.filter(|subnet| !isolated(IpNet::V6(*subnet)));
        let record = NetworkRecord {
            id: id.clone(),
            name: request.name,
            created: clock::now_ns(),
            driver,
            bridge,
            subnet: four.subnet,
            range: four.range,
            gateway: gateway.map(|subnet| four.gateway.unwrap_or_else(|| subnet.first_usable())),
            reserved: four.reserved,
            own_subnet: own.0,
            subnet6: six.subnet,
            range6: six.range,
            gateway6: gateway6.map(|subnet| six.gateway.unwrap_or_else(|| subnet.first_usable())),
            reserved6: six.reserved,
            own_subnet6: own.1,
            dormant,
            given: ipam.config.unwrap_or_default(),
            ipam_options: ipam.options,
            internal: request.internal.unwrap_or(false),
            attachable: request.attachable.unwrap_or(false),
            options,
            labels: request.labels.unwrap_or_default(),
            configuration: None,
            config_from,
        };
        self.0.database.commit([Op::put(Table::Networks, &id, &record)])?;
        match self.make_network(record) {
            Ok(network) => {
                drop(lock);
                self.network_event(&network, "create", None);
                Ok(NetworkCreateResponse { id, warning: String::new() })
            }
            Err(error) => {
                self.0.database.commit([Op::delete(Table::Networks, &id)])?;
                Err(error)
            }
        }
    }

    /// Finds subnets where the request names none, and makes sure that those it names are nobody else's.
    fn fill(
        &self,
        pools: &mut Pools,
        lock: &SubnetLock,
        others: &[Arc<Network>],
        ipv4: bool,
        ipv6: bool,
    ) -> Result<()> {
        let taken: Vec<IpNet> = others.iter().flat_map(|network| network.record().subnets()).collect();
        let overlaps =
            |subnet: IpNet| taken.iter().any(|other| other.contains(&subnet) || subnet.contains(other));
        let given = pools.four.subnet.map(IpNet::V4).into_iter().chain(pools.six.subnet.map(IpNet::V6));
        if given.into_iter().any(overlaps) {
            return Err(Error::new(
                Code::Forbidden,
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        let occupied =
            lock.occupied(&taken).map_err(|error| Error::internal("failed to create network", &error))?;
        let exhausted = |error: skiff_network::SubnetError| Error::invalid(error.to_string());
        let ours = &self.0.networks.pools;
        if ipv4 && pools.four.subnet.is_none() {
            pools.four.subnet = Some(choose_subnet(ours, &occupied).map_err(exhausted)?);
        }
        if ipv6 && pools.six.subnet.is_none() {
            pools.six.subnet = Some(choose_subnet_ipv6(ours, &occupied).map_err(exhausted)?);
        }
        Ok(())
    }

    /// Makes the device of a record that is stored, and opens the firewall for it.
    fn make_network(&self, record: NetworkRecord) -> Result<Arc<Network>> {
        let networks = &self.0.networks;
        let refused = |error: skiff_network::Error| Error::internal("failed to create network", &error);
        let device = Device::open(&record, &networks.owner)
            .ok_or_else(|| Error::invalid("the network has no addresses"))?
            .map_err(|error| match error {
                skiff_network::Error::InvalidName { name } => {
                    Error::invalid(format!("invalid bridge name: {name}"))
                }
                error @ skiff_network::Error::NoParent { .. } => {
                    Error::new(Code::Internal, error.to_string())
                }
                error => refused(error),
            })?;
        let id = record.id.clone();
        let network = Arc::new(Network::with_device(record, Ok(device)));
        networks.insert(Arc::clone(&network));
        if let Err(error) = networks.apply_firewall() {
            tracing::warn!(%error, "firewall can't be changed");
            if network.record().internal {
                // A network that promises to be closed must be.
                networks.forget(&id);
                network.close();
                return Err(error);
            }
        }
        Ok(network)
    }
}

/// What does not need other networks to be known.
fn check(request: &NetworkCreateRequest) -> Result<()> {
    let name = request.name.as_str();
    if name.trim().is_empty() {
        return Err(Error::invalid("invalid network name: name is empty"));
    }
    if !is_user_defined(name) {
        let message = format!("operation is not permitted on predefined {name} network");
        return Err(Error::new(Code::Forbidden, message));
    }
    let driver = request.driver.as_deref().unwrap_or("");
    match driver {
        "" | "bridge" | "macvlan" | "ipvlan" => {}
        // What no network is made of needs no driver; Ansible names this one.
        "null" if request.config_only == Some(true) => {}
        "overlay" => return Err(Error::new(Code::Forbidden, NO_SWARM)),
        "host" | "null" => {
            let message = format!("only one instance of \"{driver}\" network is allowed");
            return Err(Error::new(Code::Forbidden, message));
        }
        other => return Err(Error::not_found(format!("plugin \"{other}\" not found"))),
    }
    configuration::check(request)?;
    if request.ingress == Some(true) {
        return Err(Error::new(Code::Forbidden, "Ingress network can only be global scope network"));
    }
    if request.scope.as_deref() == Some("swarm") {
        let message = "cannot create a swarm scoped network when swarm is not active";
        return Err(Error::new(Code::Forbidden, message));
    }
    if request.enable_ipv4 == Some(false) && request.enable_ipv6 != Some(true) {
        return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
    }
    if let Some(driver) = request.ipam.as_ref().and_then(|ipam| ipam.driver.as_deref())
        && !matches!(driver, "" | "default")
    {
        return Err(Error::not_found(format!("plugin \"{driver}\" not found")));
    }
    let empty = HashMap::new();
    options::check(driver, request.options.as_ref().unwrap_or(&empty), request.internal == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut NetworkCreateRequest)) -> Error {
        let mut request = NetworkCreateRequest { name: "net".into(), ..Default::default() };
        change(&mut request);
        check(&request).unwrap_err()
    }

    #[test]
    fn what_is_not_done_is_refused_in_dockers_words() {
        let error = refusal(|request| request.name = "bridge".into());
        assert_eq!(
            (error.code, error.message.as_str()),
            (Code::Forbidden, "operation is not permitted on predefined bridge network")
        );
        assert_eq!(refusal(|request| request.driver = Some("overlay".into())).message, NO_SWARM);
        let error = refusal(|request| request.driver = Some("weave".into()));
        assert_eq!((error.code, error.message.as_str()), (Code::NotFound, "plugin \"weave\" not found"));
        let error = refusal(|request| request.driver = Some("host".into()));
        assert_eq!(error.message, "only one instance of \"host\" network is allowed");
        assert_eq!(refusal(|request| request.name = " ".into()).code, Code::InvalidArgument);
        let configuration = NetworkCreateRequest {
            name: "net".into(),
            driver: Some("null".into()),
            config_only: Some(true),
            ..Default::default()
        };
        check(&configuration).unwrap();
    }
}
