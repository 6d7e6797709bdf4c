//! `network create`.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bollard_stubs::models::{IpamConfig, NetworkCreateRequest, NetworkCreateResponse};
use ipnet::{IpNet, Ipv4Net};
use skiff_network::{Bridge, SubnetLock};

use super::one::bridge_config;
use super::{Network, is_user_defined};
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::names;
use crate::state::{NetworkRecord, Op, Table};

const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect \
                        this node to swarm and try again.";
/// Options of the bridge driver that are true or false.
const SWITCHES: [&str; 2] =
    ["com.docker.network.bridge.enable_icc", "com.docker.network.bridge.enable_ip_masquerade"];
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// The addresses that a request wants.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pool {
    subnet: Option<Ipv4Net>,
    range: Option<Ipv4Net>,
    gateway: Option<Ipv4Addr>,
    reserved: BTreeMap<String, Ipv4Addr>,
}

impl Engine {
    /// Makes a network.
    ///
    /// # Errors
    /// When the name is taken, the driver not known, or the addresses overlap: nothing is left behind then.
    pub async fn create_network(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        let engine = self.clone();
        blocking(move || engine.create_network_blocking(request)).await
    }

    fn create_network_blocking(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        check(&request)?;
        let networks = &self.0.networks;
        let _change = networks.change();
        let all = networks.list();
        if all.iter().any(|network| network.record().name == request.name) {
            return Err(Error::conflict(format!("network with name {} already exists", request.name)));
        }
        let ipam = request.ipam.unwrap_or_default();
        let pool = pool(ipam.config.as_deref().unwrap_or_default())?;
        let id = names::random_id();
        let mut options = request.options.unwrap_or_default();
        options.retain(|key, _| !key.is_empty());
        let bridge = match options.get(BRIDGE_NAME).filter(|name| !name.is_empty()) {
            Some(name) => name.clone(),
            None => format!("br-{}", names::short(&id)),
        };
        if let Some(other) = all.iter().find(|other| other.record().bridge == bridge) {
            return Err(Error::new(
                Code::Forbidden,
                format!(
                    "cannot create network {id} ({bridge}): conflicts with network {} ({bridge}): networks have same \
                     bridge name",
                    other.record().id
                ),
            ));
        }
        let taken: Vec<Ipv4Net> = all.iter().filter_map(|network| network.record().subnet).collect();
        if let Some(subnet) = pool.subnet
            && taken.iter().any(|other| other.contains(&subnet) || subnet.contains(other))
        {
            return Err(Error::new(
                Code::Forbidden,
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        // No other engine may choose the same subnet until the bridge has it.
        let refused = |error: skiff_network::Error| Error::internal("failed to create network", &error);
        let lock = SubnetLock::acquire().map_err(refused)?;
        let subnet = match pool.subnet {
            Some(subnet) => subnet,
            None => lock.choose_beside(&bridge, None, &taken).map_err(|error| match error {
                skiff_network::Error::Subnet(error) => Error::invalid(error.to_string()),
                error => refused(error),
            })?,
        };
        let gateway = pool.gateway.or_else(|| subnet.hosts().next()).unwrap_or(subnet.addr());
        let record = NetworkRecord {
            id: id.clone(),
            name: request.name,
            created: clock::now_ns(),
            driver: "bridge".to_owned(),
            bridge,
            subnet: Some(subnet),
            range: pool.range,
            gateway: Some(gateway),
            reserved: pool.reserved,
            own_subnet: pool.subnet.is_some(),
            ipam_options: ipam.options,
            internal: request.internal.unwrap_or(false),
            attachable: request.attachable.unwrap_or(false),
            options,
            labels: request.labels.unwrap_or_default(),
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

    /// Makes the bridge of a record that is stored, and opens the firewall for it.
    fn make_network(&self, record: NetworkRecord) -> Result<Arc<Network>> {
        let networks = &self.0.networks;
        let refused = |error: skiff_network::Error| Error::internal("failed to create network", &error);
        let config = bridge_config(&record, &networks.owner)
            .ok_or_else(|| Error::invalid("the network has no addresses"))?;
        let bridge = Bridge::ensure(&config).map_err(|error| match error {
            skiff_network::Error::InvalidName { name } => {
                Error::invalid(format!("invalid bridge name: {name}"))
            }
            error => refused(error),
        })?;
        let id = record.id.clone();
        let network = Arc::new(Network::with_bridge(record, Ok(bridge)));
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
    if name.contains(['/', '\0', '\n']) {
        return Err(Error::invalid(format!("invalid network name: {name}")));
    }
    if !is_user_defined(name) {
        let message = format!("operation is not permitted on predefined {name} network");
        return Err(Error::new(Code::Forbidden, message));
    }
    let driver = request.driver.as_deref().unwrap_or("");
    match driver {
        "" | "bridge" => {}
        "overlay" => return Err(Error::new(Code::Forbidden, NO_SWARM)),
        "host" | "null" => {
            let message = format!("only one instance of \"{driver}\" network is allowed");
            return Err(Error::new(Code::Forbidden, message));
        }
        other => return Err(Error::not_found(format!("plugin \"{other}\" not found"))),
    }
    if request.ingress == Some(true) || request.scope.as_deref() == Some("swarm") {
        return Err(Error::new(Code::Forbidden, NO_SWARM));
    }
    if request.enable_ipv6 == Some(true) || request.enable_ipv4 == Some(false) {
        return Err(Error::not_implemented("networks with IPv6 are not supported"));
    }
    let from = request.config_from.as_ref().and_then(|from| from.network.as_deref());
    if request.config_only == Some(true) || from.is_some_and(|from| !from.is_empty()) {
        return Err(Error::not_implemented("configuration-only networks are not supported"));
    }
    if let Some(driver) = request.ipam.as_ref().and_then(|ipam| ipam.driver.as_deref())
        && !matches!(driver, "" | "default")
    {
        return Err(Error::not_found(format!("plugin \"{driver}\" not found")));
    }
    let empty = HashMap::new();
    for (key, value) in request.options.as_ref().unwrap_or(&empty) {
        let fine = match key.as_str() {
            key if SWITCHES.contains(&key) => matches!(value.as_str(), "true" | "false" | "1" | "0"),
            "com.docker.network.driver.mtu" => value.parse::<u16>().is_ok(),
            "com.docker.network.bridge.host_binding_ipv4" => value.parse::<IpAddr>().is_ok(),
            _ => true,
        };
        if !fine {
            return Err(Error::invalid(format!("failed to parse {key} value: {value:?}")));
        }
    }
    Ok(())
}

/// Reads the addresses of a request; every mistake is told, as dockerd does.
fn pool(configs: &[IpamConfig]) -> Result<Pool> {
    let mut errors = Vec::new();
    let mut pools = Vec::new();
    for config in configs {
        match one_pool(config, &mut errors) {
            Some(pool) if errors.is_empty() => pools.push(pool),
            _ => {}
        }
    }
    if !errors.is_empty() {
        return Err(Error::invalid(format!("invalid network config:\n{}", errors.join("\n"))));
    }
    if pools.len() > 1 {
        return Err(Error::new(Code::Forbidden, "bridge driver doesn't support multiple subnets"));
    }
    Ok(pools.pop().unwrap_or_default())
}

fn one_pool(config: &IpamConfig, errors: &mut Vec<String>) -> Option<Pool> {
    let text = config.subnet.as_deref().unwrap_or("");
    let subnet = match text.parse::<IpNet>() {
        Ok(IpNet::V4(subnet)) => subnet,
        Ok(IpNet::V6(_)) => {
            errors.push(format!("invalid subnet {text}: networks with IPv6 are not supported"));
            return None;
        }
        Err(_) => {
            errors.push(format!("invalid subnet {text}: invalid CIDR block notation"));
            return None;
        }
    };
    if subnet != subnet.trunc() {
        errors.push(format!("invalid subnet {text}: it should be {}", subnet.trunc()));
        return None;
    }
    let mut range = None;
    if let Some(text) = config.ip_range.as_deref().filter(|text| !text.is_empty()) {
        match text.parse::<IpNet>() {
            Ok(IpNet::V4(net)) if net != net.trunc() => {
                errors.push(format!("invalid ip-range {text}: it should be {}", net.trunc()));
            }
            Ok(IpNet::V4(net)) if net.prefix_len() < subnet.prefix_len() => errors.push(format!(
                "invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
            )),
            Ok(IpNet::V4(net)) if !subnet.contains(&net) => errors
                .push(format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")),
            Ok(IpNet::V4(net)) => range = Some(net),
            Ok(IpNet::V6(_)) => {
                errors.push(format!("invalid ip-range {text}: parent subnet is an IPv4 block"))
            }
            Err(_) => errors.push(format!("invalid ip-range {text}: invalid CIDR block notation")),
        }
    }
    let mut address = |what: &str, text: &str| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if subnet.contains(&ip) => Some(ip),
        Ok(IpAddr::V4(_)) => {
            errors
                .push(format!("invalid {what} {text}: parent subnet {subnet} doesn't contain this address"));
            None
        }
        Ok(IpAddr::V6(_)) => {
            errors.push(format!("invalid {what} {text}: parent subnet is an IPv4 block"));
            None
        }
        Err(_) => {
            errors.push(format!("invalid {what} {text}: invalid address"));
            None
        }
    };
    let gateway = config.gateway.as_deref().filter(|text| !text.is_empty());
    let gateway = gateway.and_then(|text| address("gateway", text));
    let mut reserved = BTreeMap::new();
    for (name, text) in config.auxiliary_addresses.iter().flatten() {
        if let Some(ip) = address("auxiliary address", text) {
            reserved.insert(name.clone(), ip);
        }
    }
    Some(Pool { subnet: Some(subnet), range, gateway, reserved })
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
    }

    #[test]
    fn addresses_must_lie_in_their_subnet() {
        let config = |subnet: &str, range: &str, gateway: &str| IpamConfig {
            subnet: Some(subnet.into()),
            ip_range: Some(range.into()),
            gateway: Some(gateway.into()),
            auxiliary_addresses: Some([("router".to_owned(), "10.1.0.9".to_owned())].into()),
        };
        let good = pool(&[config("10.1.0.0/16", "10.1.5.0/24", "10.1.0.254")]).unwrap();
        assert_eq!(good.gateway, Some(Ipv4Addr::new(10, 1, 0, 254)));
        assert_eq!(good.range, Some("10.1.5.0/24".parse().unwrap()));
        assert_eq!(good.reserved["router"], Ipv4Addr::new(10, 1, 0, 9));
        let bad = |configs: &[IpamConfig]| pool(configs).unwrap_err().message;
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
            bad(&[config("nonsense", "", "")]),
            "invalid network config:\ninvalid subnet nonsense: invalid CIDR block notation"
        );
        let two = [
            config("10.1.0.0/16", "", ""),
            IpamConfig { auxiliary_addresses: None, ..config("10.2.0.0/16", "", "") },
        ];
        assert_eq!(bad(&two), "bridge driver doesn't support multiple subnets");
    }
}
