//! The published ports of a container.

use bollard_stubs::models::{PortBinding, PortMap};

use super::validate;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::publish::{PublishError, PublishRequest, PublishedPort};
use crate::state::{Endpoint, Record};

impl Engine {
    /// Binds every published port of a container.
    pub(crate) async fn publish(
        &self,
        record: &Record,
        endpoint: &Endpoint,
    ) -> Result<(Vec<Box<dyn PublishedPort>>, PortMap)> {
        let (mut guards, mut published) = (Vec::new(), PortMap::new());
        let host = &record.host_config;
        let any = vec![PortBinding { host_ip: None, host_port: None }];
        for port in record.config.exposed_ports.iter().flatten() {
            let (number, protocol) = validate::parse_port(port)?;
            let key = format!("{number}/{}", protocol.name());
            let bindings = host.port_bindings.as_ref().and_then(|map| {
                map.get(&key).or_else(|| map.get(&number.to_string()).filter(|_| key.ends_with("/tcp")))
            });
            let bindings = match bindings {
                Some(Some(bindings)) if !bindings.is_empty() => bindings,
                Some(_) => &any,
                None if host.publish_all_ports == Some(true) => &any,
                None => continue,
            };
            for binding in bindings {
                let target = (endpoint.ip, number).into();
                let (guard, binding) = self.publish_one(record, endpoint, protocol, target, binding).await?;
                guards.push(guard);
                published.entry(key.clone()).or_default().get_or_insert_default().push(binding);
            }
        }
        Ok((guards, published))
    }

    async fn publish_one(
        &self,
        record: &Record,
        endpoint: &Endpoint,
        protocol: crate::publish::Protocol,
        target: std::net::SocketAddr,
        binding: &PortBinding,
    ) -> Result<(Box<dyn PublishedPort>, PortBinding)> {
        let ip = binding.host_ip.as_deref().filter(|ip| !ip.is_empty());
        let network = self.network_of(endpoint)?;
        let host_ip = ip.and_then(|ip| ip.parse().ok());
        let host_ip = host_ip.or_else(|| network.option("com.docker.network.bridge.host_binding_ipv4"));
        let host_ip = host_ip.unwrap_or(self.0.config.publish_default_ip);
        let (first, last) = validate::parse_host_port(binding.host_port.as_deref().unwrap_or(""))?;
        let mut refusal = None;
        for host_port in first..=last {
            let request =
                PublishRequest { host_ip, host_port, protocol, container: record.name.clone(), target };
            match self.0.config.publisher.publish(request).await {
                Ok(guard) => {
                    let binding = PortBinding {
                        host_ip: Some(host_ip.to_string()),
                        host_port: Some(guard.host_port().to_string()),
                    };
                    return Ok((guard, binding));
                }
                Err(error) => refusal = Some((host_port, error)),
            }
        }
        let (port, error) = refusal.expect("a range has at least one port");
        let address = std::net::SocketAddr::new(host_ip, port);
        let reason = match &error {
            PublishError::AddressInUse { .. } if self.is_ours(&host_ip.to_string(), port) => {
                format!("Bind for {address} failed: port is already allocated")
            }
            PublishError::AddressInUse { message }
            | PublishError::PermissionDenied { message }
            | PublishError::Failed { message } => {
                let message = message.strip_prefix("bind: ").unwrap_or(message);
                format!("failed to bind host port for {address}:{target}/{}: {message}", protocol.name())
            }
        };
        Err(Error::new(
            Code::Internal,
            format!(
                "failed to set up container networking: driver failed programming external connectivity on endpoint \
                 {} ({}): {reason}",
                record.name, endpoint.id
            ),
        ))
    }

    /// Whether a container of ours has published this port.
    fn is_ours(&self, ip: &str, port: u16) -> bool {
        let port = port.to_string();
        self.0.registry.all().iter().any(|container| {
            container.record().ports.values().flatten().flatten().any(|binding| {
                binding.host_port.as_ref() == Some(&port)
                    && (binding.host_ip.as_deref() == Some(ip)
                        || ip == "0.0.0.0"
                        || binding.host_ip.as_deref() == Some("0.0.0.0"))
            })
        })
    }
}
