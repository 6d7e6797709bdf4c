//! Legacy links: on the default network, which has no names, a container can be told of another under an alias.
//!
//! A link is a line in `/etc/hosts` and variables in the environment, both as things are when the container starts.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{EndpointSettings, HostConfig, NetworkingConfig};

use super::is_user_defined;
use crate::container::parse_port;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::state::Record;

/// A link that is ready for use.
pub(crate) struct Link {
    /// The name that the container wants.
    pub alias: String,
    /// Whom it stands for.
    pub target: Arc<Record>,
    /// The target's address on the default network.
    pub ip: String,
}

/// `name:alias`; without an alias, the name is it.
fn parse(text: &str) -> Result<(&str, &str)> {
    let text = text.strip_prefix('/').unwrap_or(text);
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    // An inspection shows "/name:/container/alias".
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    if name.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(Error::invalid(format!("bad format for links: {text}")));
    }
    Ok((name, alias))
}

impl Engine {
    /// Takes the links of a new container: each target is remembered by its id. On a user-defined network they are
    /// names for its resolver.
    ///
    /// # Errors
    /// When a target is not there, or the network mode has no links.
    pub(crate) fn settle_links(
        &self,
        host: &mut HostConfig,
        networking: &mut NetworkingConfig,
    ) -> Result<()> {
        let links = host.links.take().unwrap_or_default();
        if links.is_empty() {
            return Ok(());
        }
        let mode = host.network_mode.as_deref().unwrap_or("");
        if mode == "host" || mode.starts_with("container:") {
            return Err(Error::invalid(format!(
                "conflicting options: {} can't be used with links. This would result in undefined behavior",
                if mode == "host" { "host type networking" } else { "container type network" }
            )));
        }
        let mut kept = Vec::new();
        for link in &links {
            let (name, alias) = parse(link)?;
            let target = self.container(name).map_err(|error| {
                Error::invalid(format!("could not get container for {name}: {}", error.message))
            })?;
            kept.push(match is_user_defined(mode) {
                true => format!("{name}:{alias}"),
                false => format!("{}:{alias}", target.id),
            });
        }
        if is_user_defined(mode) {
            let all = networking.endpoints_config.get_or_insert_with(HashMap::new);
            let settings: &mut EndpointSettings = all.entry(mode.to_owned()).or_default();
            settings.links.get_or_insert_default().extend(kept);
        } else {
            host.links = Some(kept);
        }
        Ok(())
    }

    /// The links of a container that is about to start.
    ///
    /// # Errors
    /// When a target does not run.
    pub(crate) fn links(&self, record: &Record) -> Result<Vec<Link>> {
        let bridge = &self.0.networks.default_network().record().id;
        let mut links = Vec::new();
        for link in record.host_config.links.iter().flatten() {
            let (id, alias) = parse(link)?;
            // A target that was removed is no link any more, as with dockerd.
            let Some(target) = self.0.registry.by_id(id) else { continue };
            let target = target.record();
            let endpoint = target.endpoints.iter().find(|endpoint| endpoint.network == *bridge);
            if endpoint.is_none() && target.state.is_running() {
                let name = &target.name;
                return Err(Error::invalid(format!(
                    "Cannot link to /{name}, as it does not belong to the default network"
                )));
            }
            let Some(endpoint) = endpoint.filter(|_| target.state.is_running()) else {
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!(
                        "Cannot link to a non running container: /{} AS /{}/{alias}",
                        target.name, record.name
                    ),
                ));
            };
            let Some(ip) = endpoint.ips().next().map(|ip| ip.to_string()) else { continue };
            links.push(Link { alias: alias.to_owned(), target, ip });
        }
        Ok(links)
    }

    /// The links as an inspection shows them: `/target:/container/alias`.
    pub(crate) fn links_model(&self, record: &Record) -> Option<Vec<String>> {
        let links = record.host_config.links.as_ref()?;
        let shown = links.iter().filter_map(|link| {
            let (id, alias) = parse(link).ok()?;
            let target = self.0.registry.by_id(id)?.record();
            Some(format!("/{}:/{}/{alias}", target.name, record.name))
        });
        Some(shown.collect())
    }

    /// Forgets a link, named `container/alias`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn remove_link(&self, name: &str) -> Result<()> {
        let bare = name.trim_start_matches('/');
        let missing = || Error::invalid(format!("Cannot get parent / for name /{bare}"));
        let (container, alias) = bare.split_once('/').ok_or_else(missing)?;
        let container = self.container(container)?;
        let mut found = false;
        let record = container.change(|record| {
            if let Some(links) = &mut record.host_config.links {
                let before = links.len();
                links.retain(|link| parse(link).is_ok_and(|(_, other)| other != alias));
                found = links.len() < before;
            }
        });
        if found { self.store(&record) } else { Err(missing()) }
    }
}

impl Link {
    /// The line of `/etc/hosts`.
    pub fn host_line(&self) -> String {
        let hostname = self.target.config.hostname.as_deref().unwrap_or("");
        let mut names = vec![self.alias.as_str(), hostname, self.target.name.as_str()];
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| !name.is_empty() && seen.insert(*name));
        format!("{}\t{}\n", self.ip, names.join(" "))
    }

    /// The variables of the environment, as dockerd names them.
    pub fn environment(&self, container: &str) -> Vec<String> {
        let alias = self.alias.replace('-', "_").to_uppercase();
        let mut env = Vec::new();
        let mut ports: Vec<(u16, &str)> = self
            .target
            .config
            .exposed_ports
            .iter()
            .flatten()
            .filter_map(|port| parse_port(port).ok())
            .map(|(number, protocol)| (number, protocol.name()))
            .collect();
        // TCP first, then by number: the first port is the container's own.
        ports.sort_by_key(|(number, protocol)| (*protocol != "tcp", *number));
        if let Some((number, protocol)) = ports.first() {
            env.push(format!("{alias}_PORT={protocol}://{}:{number}", self.ip));
        }
        for (number, protocol) in &ports {
            let name = format!("{alias}_PORT_{number}_{}", protocol.to_uppercase());
            env.push(format!("{name}={protocol}://{}:{number}", self.ip));
            env.push(format!("{name}_ADDR={}", self.ip));
            env.push(format!("{name}_PORT={number}"));
            env.push(format!("{name}_PROTO={protocol}"));
        }
        env.push(format!("{alias}_NAME=/{container}/{}", self.alias));
        for entry in self.target.config.env.iter().flatten() {
            match entry.split_once('=') {
                Some((name, value)) if !matches!(name, "HOME" | "PATH") => {
                    env.push(format!("{alias}_ENV_{name}={value}"));
                }
                _ => {}
            }
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_in_every_form() {
        for (text, expected) in
            [("db", ("db", "db")), ("db:sql", ("db", "sql")), ("/db:/web/sql", ("db", "sql"))]
        {
            assert_eq!(parse(text).unwrap(), expected);
        }
        for wrong in ["", ":", "db:", ":sql", "a:b:c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
