//! What the shell sees of daemon and engine: enough for the tray and for notifications.

use serde::Deserialize;
use skiff_host::control::MachineState;

/// Containers that are looked at; the tray shows few, and notifications of more help nobody.
const MOST: usize = 10_000;

/// One look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The guest's state; `None` while there is no daemon.
    pub machine: Option<MachineState>,
    /// Why it is in this state, where that is worth telling.
    pub reason: Option<String>,
    /// Containers, if they could be asked for.
    pub containers: Option<Vec<Container>>,
}

/// A container as `GET /containers/json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its names, each with a slash.
    #[serde(default)]
    pub names: Vec<String>,
    /// `running`, `exited` and so on.
    #[serde(default)]
    pub state: String,
    /// The same for people, with exit code and health.
    #[serde(default)]
    pub status: String,
}

impl Container {
    /// Its first name, else the short id.
    pub fn name(&self) -> &str {
        let name =
            self.names.first().map(|name| name.trim_start_matches('/')).filter(|name| !name.is_empty());
        name.or_else(|| self.id.get(..12)).unwrap_or(&self.id)
    }

    /// Whether its processes run.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Whether its health check fails.
    pub fn is_unhealthy(&self) -> bool {
        self.is_running() && self.status.ends_with("(unhealthy)")
    }

    /// What it ended with.
    pub fn exit_code(&self) -> Option<i64> {
        let code = self.status.strip_prefix("Exited (")?.split(')').next()?;
        code.parse().ok()
    }
}

/// Reads the engine's list; `None` for what is none.
pub fn containers(json: &[u8]) -> Option<Vec<Container>> {
    let mut list: Vec<Container> = serde_json::from_slice(json).ok()?;
    list.truncate(MOST);
    Some(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_of_the_engine_s_is_read() {
        let json = br#"[{"Id":"0123456789abcdef","Names":["/web"],"State":"exited","Status":"Exited (3) 2 hours ago","Ports":[]},
            {"Id":"0123456789abcdef","Names":[],"State":"running","Status":"Up 2 minutes (unhealthy)"}]"#;
        let list = containers(json).unwrap();
        assert_eq!((list[0].name(), list[0].exit_code(), list[0].is_running()), ("web", Some(3), false));
        assert_eq!(
            (list[1].name(), list[1].exit_code(), list[1].is_unhealthy()),
            ("0123456789ab", None, true)
        );
        assert_eq!(containers(b"{}"), None);
    }

    proptest! {
        #[test]
        fn no_list_panics(id in ".{0,20}", name in ".{0,9}", state in "running|exited|", status in ".{0,30}|Exited \\(.{0,5}") {
            let json = serde_json::json!([{ "Id": id, "Names": [name], "State": state, "Status": status }]).to_string();
            for container in containers(json.as_bytes()).unwrap() {
                let _ = (container.name(), container.exit_code(), container.is_unhealthy());
            }
        }
    }
}
