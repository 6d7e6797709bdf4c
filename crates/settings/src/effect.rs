//! What has to start anew before a changed setting is true.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Settings;

/// What has to start anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The guest, or the engine where there is none.
    Guest,
    /// The daemon, and with it the guest.
    Daemon,
}

/// Every setting by its place in the file.
const EFFECTS: &[(&str, Effect)] = &[
    ("machine.cpus", Effect::Guest),
    ("machine.memory_mib", Effect::Guest),
    ("machine.disk_gib", Effect::Guest),
    ("machine.backend", Effect::Daemon),
    ("machine.template", Effect::Guest),
    ("daemon.idle_stop_seconds", Effect::Guest),
    ("daemon.idle", Effect::Guest),
    ("daemon.socket", Effect::Daemon),
    ("network.host_loopback", Effect::Daemon),
    ("network.proxy", Effect::Daemon),
    ("files.shares", Effect::Daemon),
    ("files.read_only", Effect::Daemon),
    ("registry_mirrors", Effect::Guest),
    ("publish_default_ip", Effect::Guest),
    ("default_address_pools", Effect::Guest),
    ("names.enabled", Effect::Daemon),
    ("names.port", Effect::Daemon),
    ("names.fallback_port", Effect::Daemon),
    ("names.tls", Effect::Daemon),
    ("names.tls_port", Effect::Daemon),
    ("names.fallback_tls_port", Effect::Daemon),
];

impl Settings {
    /// Tells of every setting, by its place in the file, what has to start anew when it is changed.
    pub fn effects() -> BTreeMap<String, Effect> {
        EFFECTS.iter().map(|(place, effect)| ((*place).to_owned(), *effect)).collect()
    }

    /// Tells what has to start anew for these settings where the other ones are true now; both may.
    pub fn pending(&self, now: &Settings, effect: Effect) -> bool {
        let (wanted, now) = (written(self), written(now));
        EFFECTS.iter().any(|(place, of)| *of == effect && at(&wanted, place) != at(&now, place))
    }
}

fn written(settings: &Settings) -> Value {
    serde_json::to_value(settings).expect("settings have only string keys")
}

fn at<'a>(settings: &'a Value, place: &str) -> Option<&'a Value> {
    place.split('.').try_fold(settings, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_says_what_it_restarts() {
        let settings = written(&Settings::default());
        let mut places = Vec::new();
        for (name, value) in settings.as_object().unwrap() {
            match value {
                Value::Object(section) => {
                    places.extend(section.keys().map(|field| format!("{name}.{field}")))
                }
                _ => places.push(name.clone()),
            }
        }
        places.sort();
        assert_eq!(places, Settings::effects().into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn a_change_is_pending_until_what_it_is_about_has_started_anew() {
        let now = Settings::default();
        let mut wanted = now.clone();
        let pending =
            |wanted: &Settings| [Effect::Guest, Effect::Daemon].map(|effect| wanted.pending(&now, effect));
        assert_eq!(pending(&wanted), [false, false]);
        wanted.machine.cpus = Some(3);
        assert_eq!(pending(&wanted), [true, false]);
        wanted.network.proxy.http = Some("http://p:1".to_owned());
        assert_eq!(pending(&wanted), [true, true]);
    }
}
