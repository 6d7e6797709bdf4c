//! The published ports of a container.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bollard_stubs::models::{PortBinding, PortMap};

use super::validate;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::publish::{Protocol, PublishError, PublishRequest, PublishedPort};
use crate::state::{Endpoint, Record};

/// How often a free port is looked for that both families have.
const TRIES: usize = 64;

/// The addresses that published ports lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Targets {
    four: Option<Ipv4Addr>,
    six: Option<Ipv6Addr>,
    endpoint: String,
    bridge: String,
    host_ip: IpAddr,
    /// Whether the network's gateway translates: otherwise ports are opened, and nothing is bound.
    translated: [bool; 2],
}

/// The ports of a container that are bound now.
pub(crate) type Bound = (Vec<Box<dyn PublishedPort>>, PortMap);

impl Targets {
    /// Where connections to a host address go: to the container's address of the same family, if it has one.
    fn of(&self, host: IpAddr) -> Option<IpAddr> {
        let (four, six) = (self.four.map(IpAddr::from), self.six.map(IpAddr::from));
        if host.is_ipv6() { six.or(four) } else { four.or(six) }
    }

    /// The host addresses of a binding that names none: those of both families, or what is set.
    fn every(&self) -> Vec<IpAddr> {
        match self.host_ip {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
                vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            }
            ip => vec![ip],
        }
    }
}

impl Engine {
    /// Where the ports of a container lead: to the networks that are its ways out.
    pub(crate) fn targets(&self, endpoints: &[Endpoint]) -> Option<Targets> {
        let four = endpoints.iter().find(|endpoint| endpoint.default_route);
        let six = endpoints.iter().find(|endpoint| endpoint.default_route6);
        let way = four.or(six)?;
        // Containers that share an interface have addresses of their own outside: dockerd publishes nothing there either.
        let network = self.network_of(way).ok().filter(|network| network.is_bridge())?;
        let host_ip = network.option("com.docker.network.bridge.host_binding_ipv4");
        Some(Targets {
            four: four.and_then(|endpoint| endpoint.ip),
            // Both lead through one bridge: the packet filter and the listener must mean the same container.
            six: six.filter(|six| six.network == way.network).and_then(|endpoint| endpoint.ip6),
            endpoint: way.id.clone(),
            bridge: network.record().bridge.clone(),
            host_ip: host_ip.unwrap_or(self.0.config.publish_default_ip),
            translated: network.is_translated(),
        })
    }

    /// Binds every published port of a container.
    ///
    /// # Errors
    /// When one of them can't be bound; then none is.
    pub(crate) async fn publish(&self, record: &Record, targets: &Targets) -> Result<Bound> {
        let (mut guards, mut published) = (Vec::new(), PortMap::new());
        let mut open = Vec::new();
        for (number, protocol, bindings) in wanted(record)? {
            let key = format!("{number}/{}", protocol.name());
            let direct = direct(targets, number, protocol);
            open.extend(direct);
            for binding in bindings {
                let made = self.publish_one(record, targets, protocol, number, &binding, &published).await?;
                for (guard, binding) in made {
                    guards.extend(guard);
                    published.entry(key.clone()).or_default().get_or_insert_default().push(binding);
                }
            }
        }
        self.0.networks.open_ports(&record.id, open)?;
        if !guards.is_empty() {
            self.0.config.publisher.settle().await;
        }
        Ok((guards, published))
    }

    /// Binds one published port: on one address, or on every address of both families.
    async fn publish_one(
        &self,
        record: &Record,
        targets: &Targets,
        protocol: Protocol,
        number: u16,
        binding: &PortBinding,
        published: &PortMap,
    ) -> Result<Vec<(Option<Box<dyn PublishedPort>>, PortBinding)>> {
        let given = binding.host_ip.as_deref().filter(|ip| !ip.is_empty()).map(parse_host_ip).transpose()?;
        let ips = given.map_or_else(|| targets.every(), |ip| vec![ip]);
        let (first, last) = validate::parse_host_port(binding.host_port.as_deref().unwrap_or(""))?;
        // Any free port of the first address may be somebody's on the second.
        let tries = if first == 0 && ips.len() > 1 { TRIES } else { 1 };
        let candidates = (0..tries).flat_map(|_| first..=last);
        let mut refusal = None;
        for host_port in candidates {
            match self.bind_all(record, targets, protocol, number, &ips, host_port, given.is_none()).await {
                Ok(bound) => return Ok(bound),
                Err((address, error @ PublishError::AddressInUse { .. })) => refusal = Some((address, error)),
                Err(other) => {
                    refusal = Some(other);
                    break;
                }
            }
        }
        let (address, error) = refusal.expect("a range has at least one port");
        let target = targets.of(address.ip()).map(|ip| SocketAddr::new(ip, number));
        let is_ours = || has_published(published, address, protocol) || self.is_ours(address, protocol);
        let reason = match error {
            // Docker's words for a range that has no free port.
            PublishError::AddressInUse { .. } if first < last && is_ours() => {
                "all ports are allocated".to_owned()
            }
            PublishError::AddressInUse { .. } if is_ours() => {
                format!("Bind for {address} failed: port is already allocated")
            }
            PublishError::AddressInUse { message } if message.starts_with("Bind for ") => message,
            error => {
                let target = target.map(|target| format!(":{target}")).unwrap_or_default();
                format!("failed to bind host port for {address}{target}/{}: {error}", protocol.name())
            }
        };
        Err(Error::new(
            Code::Internal,
            format!(
                "failed to set up container networking: driver failed programming external connectivity on endpoint \
                 {} ({}): {reason}",
                record.name, targets.endpoint
            ),
        ))
    }

    /// Binds one port on all these addresses, or on none.
    #[expect(clippy::too_many_arguments, reason = "all of them describe one binding")]
    async fn bind_all(
        &self,
        record: &Record,
        targets: &Targets,
        protocol: Protocol,
        number: u16,
        ips: &[IpAddr],
        host_port: u16,
        is_default: bool,
    ) -> Result<Vec<(Option<Box<dyn PublishedPort>>, PortBinding)>, (SocketAddr, PublishError)> {
        let mut bound: Vec<(Option<Box<dyn PublishedPort>>, PortBinding)> = Vec::new();
        let mut port = host_port;
        for ip in ips {
            let binding =
                |port: u16| PortBinding { host_ip: Some(ip.to_string()), host_port: Some(port.to_string()) };
            let Some(target) = targets.of(*ip) else { continue };
            if target.is_ipv6() == ip.is_ipv6() && !targets.translated[usize::from(ip.is_ipv6())] {
                // Reached at its own address: dockerd shows port 0.
                bound.push((None, binding(0)));
                continue;
            }
            let request = PublishRequest {
                host_ip: *ip,
                host_port: port,
                protocol,
                container: record.name.clone(),
                target: SocketAddr::new(target, number),
                bridge: targets.bridge.clone(),
            };
            match self.0.config.publisher.publish(request).await {
                Ok(guard) => {
                    port = guard.host_port();
                    bound.push((Some(guard), binding(port)));
                }
                // A host without IPv6 has only the other half of "every address".
                Err(PublishError::NoAddress { .. }) if is_default && ip.is_ipv6() && !bound.is_empty() => {}
                Err(error) => return Err((SocketAddr::new(*ip, port), error)),
            }
        }
        Ok(bound)
    }

    /// Whether a container of ours has published this port.
    fn is_ours(&self, address: SocketAddr, protocol: Protocol) -> bool {
        self.0
            .registry
            .all()
            .iter()
            .any(|container| has_published(&container.record().ports, address, protocol))
    }

    /// Closes what was opened to the outside for a container.
    pub(crate) fn close_ports(&self, container: &str) {
        if let Err(error) = self.0.networks.open_ports(container, Vec::new()) {
            tracing::warn!(%error, container, "ports can't be closed");
        }
    }

    /// Binds the ports of a container that runs already, where they were.
    pub(crate) async fn publish_again(
        &self,
        record: &Record,
        targets: &Targets,
    ) -> Vec<Box<dyn PublishedPort>> {
        let mut guards: Vec<Box<dyn PublishedPort>> = Vec::new();
        let mut open = Vec::new();
        for (port, bindings) in &record.ports {
            let Ok((number, protocol)) = validate::parse_port(port) else { continue };
            open.extend(direct(targets, number, protocol));
            for binding in bindings.iter().flatten() {
                let ip: Option<IpAddr> = binding.host_ip.as_deref().and_then(|ip| ip.parse().ok());
                let host_port = binding.host_port.as_deref().and_then(|port| port.parse().ok());
                let (Some(host_ip), Some(host_port @ 1..)) = (ip, host_port) else { continue };
                let Some(target) = targets.of(host_ip) else { continue };
                let request = PublishRequest {
                    host_ip,
                    host_port,
                    protocol,
                    container: record.name.clone(),
                    target: SocketAddr::new(target, number),
                    bridge: targets.bridge.clone(),
                };
                match self.0.config.publisher.publish(request).await {
                    Ok(guard) => guards.push(guard),
                    Err(error) => {
                        tracing::warn!(%error, container = record.id, port = host_port, "port can't be published again");
                    }
                }
            }
        }
        if let Err(error) = self.0.networks.open_ports(&record.id, open) {
            tracing::warn!(%error, container = record.id, "ports can't be opened again");
        }
        if !guards.is_empty() {
            self.0.config.publisher.settle().await;
        }
        guards
    }
}

/// The addresses of a port that the packet filter opens because they are not translated.
fn direct(targets: &Targets, number: u16, protocol: Protocol) -> Vec<(skiff_network::Protocol, SocketAddr)> {
    let protocol = match protocol {
        Protocol::Tcp => skiff_network::Protocol::Tcp,
        Protocol::Udp => skiff_network::Protocol::Udp,
        Protocol::Sctp => return Vec::new(),
    };
    let four = targets.four.filter(|_| !targets.translated[0]).map(IpAddr::from);
    let six = targets.six.filter(|_| !targets.translated[1]).map(IpAddr::from);
    four.into_iter().chain(six).map(|ip| (protocol, SocketAddr::new(ip, number))).collect()
}

/// Every port that is to be published, with its bindings: by number, so that the outcome does not depend on chance.
fn wanted(record: &Record) -> Result<Vec<(u16, Protocol, Vec<PortBinding>)>> {
    let host = &record.host_config;
    let any = || vec![PortBinding { host_ip: None, host_port: None }];
    let mut given: HashMap<(u16, Protocol), Option<Vec<PortBinding>>> = HashMap::new();
    for (port, bindings) in host.port_bindings.iter().flatten() {
        given.insert(validate::parse_port(port)?, bindings.clone());
    }
    let exposed = record.config.exposed_ports.iter().flatten().map(|port| validate::parse_port(port));
    let mut ports: HashSet<(u16, Protocol)> = exposed.collect::<Result<_>>()?;
    ports.extend(given.keys());
    let mut ports: Vec<_> = ports.into_iter().collect();
    ports.sort_unstable();
    let all = ports.into_iter().filter_map(|port| {
        let bindings = match given.remove(&port) {
            Some(Some(bindings)) if !bindings.is_empty() => bindings,
            Some(_) => any(),
            None if host.publish_all_ports == Some(true) => any(),
            None => return None,
        };
        Some((port.0, port.1, bindings))
    });
    Ok(all.collect())
}

fn parse_host_ip(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid(format!("invalid host IP address: {text}")))
}

/// Whether one of these ports is this one.
fn has_published(ports: &PortMap, address: SocketAddr, protocol: Protocol) -> bool {
    ports.iter().any(|(port, bindings)| {
        validate::parse_port(port).is_ok_and(|(_, other)| other == protocol)
            && bindings.iter().flatten().any(|binding| clashes(binding, address))
    })
}

fn clashes(binding: &PortBinding, address: SocketAddr) -> bool {
    let ip: Option<IpAddr> = binding.host_ip.as_deref().and_then(|ip| ip.parse().ok());
    binding.host_port.as_deref().and_then(|port| port.parse().ok()) == Some(address.port())
        && ip.is_some_and(|ip| {
            ip == address.ip()
                || ip.is_ipv4() == address.is_ipv4() && (ip.is_unspecified() || address.ip().is_unspecified())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(four: Option<&str>, six: Option<&str>, host: &str) -> Targets {
        Targets {
            four: four.map(|ip| ip.parse().unwrap()),
            six: six.map(|ip| ip.parse().unwrap()),
            endpoint: String::new(),
            bridge: String::new(),
            host_ip: host.parse().unwrap(),
            translated: [true; 2],
        }
    }

    #[test]
    fn a_host_address_leads_to_its_own_family_where_the_container_has_it() {
        let both = targets(Some("172.17.0.2"), Some("fd00::2"), "0.0.0.0");
        let leads = |targets: &Targets, host: &str| targets.of(host.parse().unwrap()).unwrap().to_string();
        assert_eq!(leads(&both, "0.0.0.0"), "172.17.0.2");
        assert_eq!(leads(&both, "::"), "fd00::2");
        let four = targets(Some("172.17.0.2"), None, "0.0.0.0");
        assert_eq!(leads(&four, "::1"), "172.17.0.2");
        let six = targets(None, Some("fd00::2"), "0.0.0.0");
        assert_eq!(leads(&six, "127.0.0.1"), "fd00::2");
    }

    #[test]
    fn without_an_address_both_families_are_meant_unless_one_is_set() {
        let every = |host: &str| {
            let all = targets(None, None, host).every();
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(every("0.0.0.0"), "0.0.0.0 ::");
        assert_eq!(every("127.0.0.1"), "127.0.0.1");
        assert_eq!(every("::1"), "::1");
    }

    #[test]
    fn bindings_clash_within_their_family() {
        let binding = |ip: &str| PortBinding { host_ip: Some(ip.into()), host_port: Some("80".into()) };
        let clash = |ip: &str, address: &str| clashes(&binding(ip), address.parse().unwrap());
        assert!(clash("0.0.0.0", "127.0.0.1:80") && clash("127.0.0.1", "0.0.0.0:80"));
        assert!(clash("::", "[::1]:80"));
        assert!(!clash("::", "127.0.0.1:80") && !clash("127.0.0.1", "127.0.0.1:81"));
    }
}
