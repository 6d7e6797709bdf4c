//! `ps`: the list of containers and its filters.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerSummary, ContainerSummaryHostConfig, ContainerSummaryNetworkSettings, ContainerSummaryStateEnum,
    PortSummary, PortSummaryTypeEnum,
};

use skiff_images::Reference;

use super::inspect::mount_models;
use super::{status_text, validate};
use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::filters::{Filters, name_matches};
use crate::options::ListContainers;
use crate::state::{MountKind, Record, Status};

const FILTERS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
];

impl Engine {
    /// Lists containers, newest first.
    ///
    /// # Errors
    /// When a filter is not known or names a container that is not there.
    pub async fn list_containers(&self, options: ListContainers) -> Result<Vec<ContainerSummary>> {
        let ListContainers { all, limit, size, filters } = options;
        filters.check(&FILTERS)?;
        let pick = Pick::new(self, &filters, all || limit.is_some_and(|limit| limit > 0))?;
        let mut records: Vec<Arc<Record>> =
            self.0.registry.all().iter().map(|container| container.record()).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.created));
        records.retain(|record| pick.takes(record));
        if let Some(limit) = limit.filter(|limit| *limit > 0) {
            records.truncate(limit);
        }
        let names = self.image_names();
        let mut list = Vec::with_capacity(records.len());
        for record in records {
            let mut summary = self.summary(&record, &names);
            if size {
                let (own, image) = self.sizes(&record).await?;
                (summary.size_rw, summary.size_root_fs) = (Some(own), Some(own + image));
            }
            list.push(summary);
        }
        Ok(list)
    }

    /// Which ids every name of an image stands for now.
    fn image_names(&self) -> HashMap<String, String> {
        let images = self.0.config.images.list();
        let names = images.iter().flat_map(|image| {
            let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            names.map(|name| (name.clone(), image.id.clone()))
        });
        names.collect()
    }

    fn summary(&self, record: &Record, images: &HashMap<String, String>) -> ContainerSummary {
        let reference = record.config.image.clone().unwrap_or_default();
        // A name that means another image by now, or none, would mislead: then the id is shown, as Docker does.
        let digits = reference.strip_prefix("sha256:").unwrap_or(&reference);
        let is_id = !digits.is_empty()
            && record.image_id.strip_prefix("sha256:").is_some_and(|id| id.starts_with(digits));
        let named = Reference::parse(&reference).ok().map(|name| name.or_latest().familiar());
        let meant = named
            .and_then(|name| images.get(&name))
            .or_else(|| images.get(&record.image_id).filter(|_| is_id));
        let moved = meant != Some(&record.image_id);
        let state = match record.state.status {
            Status::Created => ContainerSummaryStateEnum::CREATED,
            Status::Running => ContainerSummaryStateEnum::RUNNING,
            Status::Paused => ContainerSummaryStateEnum::PAUSED,
            Status::Restarting => ContainerSummaryStateEnum::RESTARTING,
            Status::Exited => ContainerSummaryStateEnum::EXITED,
            Status::Dead => ContainerSummaryStateEnum::DEAD,
        };
        ContainerSummary {
            id: Some(record.id.clone()),
            names: Some(vec![format!("/{}", record.name)]),
            image: Some(if moved { record.image_id.clone() } else { reference }),
            image_id: Some(record.image_id.clone()),
            command: Some(command_text(record)),
            created: i64::try_from(record.created / 1_000_000_000).ok(),
            ports: Some(ports(record)),
            labels: Some(record.config.labels.clone().unwrap_or_default()),
            state: Some(state),
            status: Some(status_text(&record.state, clock::now_ns())),
            host_config: Some(ContainerSummaryHostConfig {
                network_mode: record.host_config.network_mode.clone(),
                annotations: record.host_config.annotations.clone(),
            }),
            network_settings: Some(ContainerSummaryNetworkSettings {
                networks: Some(self.networks_model(record)),
            }),
            mounts: Some(mount_models(record)),
            ..ContainerSummary::default()
        }
    }
}

/// The command line; words with spaces are quoted so that they show as one.
fn command_text(record: &Record) -> String {
    let words = std::iter::once(&record.path).chain(&record.args);
    let quoted: Vec<String> =
        words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() }).collect();
    quoted.join(" ")
}

fn ports(record: &Record) -> Vec<PortSummary> {
    if !record.state.is_running() || !record.offers_ports() {
        return Vec::new();
    }
    let typ = |name: &str| match name {
        "udp" => PortSummaryTypeEnum::UDP,
        "sctp" => PortSummaryTypeEnum::SCTP,
        _ => PortSummaryTypeEnum::TCP,
    };
    let mut ports = Vec::new();
    for port in record.config.exposed_ports.iter().flatten() {
        let Ok((number, protocol)) = validate::parse_port(port) else { continue };
        let bindings = record.ports.get(&format!("{number}/{}", protocol.name())).cloned().flatten();
        for binding in bindings.iter().flatten() {
            ports.push(PortSummary {
                ip: binding.host_ip.clone(),
                private_port: number,
                public_port: binding.host_port.as_ref().and_then(|port| port.parse().ok()),
                typ: Some(typ(protocol.name())),
            });
        }
        if bindings.is_none_or(|bindings| bindings.is_empty()) {
            ports.push(PortSummary {
                ip: None,
                private_port: number,
                public_port: None,
                typ: Some(typ(protocol.name())),
            });
        }
    }
    ports
}

/// The filters of a list, read once.
struct Pick<'a> {
    filters: &'a Filters,
    all: bool,
    before: Option<u64>,
    since: Option<u64>,
    exited: Option<Vec<i32>>,
    ancestors: Option<Vec<(String, Option<String>)>>,
    networks: Option<Vec<String>>,
}

impl<'a> Pick<'a> {
    fn new(engine: &Engine, filters: &'a Filters, all: bool) -> Result<Self> {
        for status in filters.get("status").unwrap_or_default() {
            let known = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
            if !known.contains(&status.as_str()) {
                return Err(Error::invalid(format!("invalid filter 'status={status}'")));
            }
        }
        for health in filters.get("health").unwrap_or_default() {
            if !["none", "starting", "healthy", "unhealthy"].contains(&health.as_str()) {
                return Err(Error::invalid(format!("unrecognized filter value for health: {health}")));
            }
        }
        filters.boolean("is-task")?;
        for kind in ["publish", "expose"] {
            for port in filters.get(kind).unwrap_or_default() {
                let range = port.split('/').next().unwrap_or_default();
                if let Some(wrong) = range.split('-').find(|number| number.parse::<u16>().is_err()) {
                    return Err(Error::invalid(format!(
                        "error while looking up for {kind} {port}: strconv.ParseUint: parsing {wrong:?}: invalid syntax"
                    )));
                }
            }
        }
        let created = |name: &str| -> Result<Option<u64>> {
            match filters.get(name).and_then(|values| values.first()) {
                Some(id) => Ok(Some(engine.container(id)?.record().created)),
                None => Ok(None),
            }
        };
        let exited = filters.get("exited").map(|codes| {
            codes
                .iter()
                .map(|code| {
                    code.parse().map_err(|_| {
                        Error::invalid(format!(
                            "invalid filter 'exited={code}': strconv.Atoi: parsing {code:?}: invalid syntax"
                        ))
                    })
                })
                .collect::<Result<Vec<i32>>>()
        });
        let images = &engine.0.config.images;
        let ancestors = filters.get("ancestor").map(|names| {
            names.iter().map(|name| (name.clone(), images.get(name).ok().map(|image| image.id))).collect()
        });
        let networks = filters.get("network").map(|wanted| {
            let name = |wanted: &String| {
                let network = engine.0.networks.find(wanted);
                network.map_or_else(|_| wanted.clone(), |network| network.record().name.clone())
            };
            wanted.iter().map(name).collect()
        });
        Ok(Self {
            filters,
            // Asking for a status means asking for all that have it.
            all: all || filters.get("status").is_some(),
            before: created("before")?,
            since: created("since")?,
            exited: exited.transpose()?,
            ancestors,
            networks,
        })
    }

    fn takes(&self, record: &Record) -> bool {
        let filters = self.filters;
        let state = &record.state;
        let shown = self.all || state.is_running() || state.status == Status::Restarting;
        let config = &record.config;
        shown
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
            && self.exited.as_ref().is_none_or(|codes| {
                state.status == Status::Exited
                    && state.finished_at.is_some()
                    && codes.contains(&state.exit_code)
            })
            && self.ancestors.as_ref().is_none_or(|ancestors| {
                ancestors.iter().any(|(name, id)| {
                    id.as_ref() == Some(&record.image_id) || config.image.as_ref() == Some(name)
                })
            })
            && self.networks.as_ref().is_none_or(|networks| {
                let own = record.networking.endpoints_config.as_ref();
                networks.iter().any(|name| own.is_some_and(|own| own.contains_key(name)))
            })
            && filters.any("id", |wanted| record.id.starts_with(wanted))
            && filters.any("name", |wanted| {
                name_matches(wanted, &record.name) || name_matches(wanted, &format!("/{}", record.name))
            })
            && filters.any("status", |wanted| state.status.name() == wanted)
            && filters.any("health", |wanted| {
                wanted == state.health.as_ref().map_or("none", |health| health.status.name())
            })
            && filters.any("is-task", |wanted| !matches!(wanted, "1" | "true" | "True"))
            && filters.any("isolation", |wanted| wanted == "default")
            && filters.any("volume", |wanted| {
                record.mounts.iter().any(|mount| {
                    mount.kind != MountKind::Tmpfs
                        && (mount.name.as_deref() == Some(wanted)
                            || mount.destination == wanted
                            || mount.source == wanted)
                })
            })
            && filters.any("expose", |wanted| {
                config.exposed_ports.iter().flatten().any(|port| port_matches(wanted, port))
            })
            && filters.any("publish", |wanted| {
                record.ports.iter().any(|(port, bindings)| {
                    let protocol = port.split('/').nth(1).unwrap_or("tcp");
                    bindings.iter().flatten().any(|binding| {
                        let host = binding.host_port.as_deref().unwrap_or("");
                        port_matches(wanted, &format!("{host}/{protocol}"))
                    })
                })
            })
            && filters.labels(config.labels.as_ref())
            && filters.not_labels(config.labels.as_ref())
    }
}

/// Whether `port` (`80/tcp`) is in `wanted` (`80`, `80/tcp`, `8000-8080/tcp`).
fn port_matches(wanted: &str, port: &str) -> bool {
    let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return false };
    validate::parse_port(port)
        .is_ok_and(|(number, kind)| (first..=last).contains(&number) && kind.name() == protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_filters_know_protocols_and_ranges() {
        assert!(port_matches("80", "80/tcp"));
        assert!(port_matches("8000-8080/udp", "8053/udp"));
        assert!(!port_matches("80", "80/udp"));
        assert!(!port_matches("x", "80/tcp"));
    }
}
