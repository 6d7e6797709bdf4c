//! Who has a name, as one container sees it.

use std::net::IpAddr;
use std::sync::Arc;

use super::{is_user_defined, settings};
use crate::engine::Engine;
use crate::state::Record;

impl Engine {
    /// Who asks: a container, or the step of a build.
    pub(super) fn asking(&self, id: &str) -> Option<Arc<Record>> {
        match self.0.registry.by_id(id) {
            Some(container) => Some(container.record()),
            None => self.0.steps.record(id),
        }
    }

    /// The addresses, IPv4 first, behind a name on the user-defined networks of a container; `None` when nobody there has it.
    ///
    /// A name is a container's, an alias, a short id or a host name, on the network or followed by its name; an alias of
    /// the asking container's own links comes first.
    pub(super) fn resolve_name(&self, asker: &str, wanted: &str) -> Option<Vec<IpAddr>> {
        let asker = self.asking(asker)?;
        let mut found = Vec::new();
        for (network, settings) in self.attachments(&asker).ok()? {
            let network_name = network.record().name.as_str();
            if !is_user_defined(network_name) {
                continue;
            }
            let suffix = format!(".{}", network_name.to_lowercase());
            let bare = wanted.strip_suffix(&suffix).unwrap_or(wanted);
            let linked = settings.links.iter().flatten().find_map(|link| {
                let (target, alias) = link.split_once(':').unwrap_or((link, link));
                (alias.eq_ignore_ascii_case(bare)).then(|| target.to_owned())
            });
            for member in network.members() {
                let Some(other) = self.0.registry.by_id(&member.container) else { continue };
                let other = other.record();
                let fits = match &linked {
                    Some(target) => other.name == *target || other.id.starts_with(target.as_str()),
                    None => names_on(&other, network_name)
                        .iter()
                        .any(|name| name.eq_ignore_ascii_case(bare) || name.eq_ignore_ascii_case(wanted)),
                };
                if fits {
                    found.extend(&member.ips);
                }
            }
            // Networks are asked in order; the first that knows the name answers.
            if !found.is_empty() {
                break;
            }
        }
        found.sort_unstable();
        (!found.is_empty()).then_some(found)
    }

    /// The name of an address on the user-defined networks of a container.
    pub(super) fn resolve_address(&self, asker: &str, ip: IpAddr) -> Option<String> {
        let asker = self.asking(asker)?;
        for (network, _) in self.attachments(&asker).ok()? {
            let network_name = &network.record().name;
            if !is_user_defined(network_name) {
                continue;
            }
            if let Some(member) = network.members().into_iter().find(|member| member.ips.contains(&ip))
                && let Some(other) = self.0.registry.by_id(&member.container)
            {
                return Some(format!("{}.{network_name}", other.record().name));
            }
        }
        None
    }
}

fn names_on(record: &Record, network: &str) -> Vec<String> {
    let settings = record.networking.endpoints_config.as_ref().and_then(|all| all.get(network));
    settings::dns_names(record, settings)
}
