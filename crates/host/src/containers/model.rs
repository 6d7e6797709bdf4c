//! Containers and networks, as far as the daemon cares.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use serde_json::Value;
use skiff_link::Protocol;

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// Without the slash.
    pub(crate) name: String,
    /// `running`, `exited` and so on.
    pub(crate) state: String,
    pub(crate) labels: HashMap<String, String>,
    /// Its addresses; none while it does not run, or in the network of somebody else.
    pub(crate) ips: Vec<IpAddr>,
    /// Whether it uses the engine's own network.
    pub(crate) host_network: bool,
    /// The TCP ports that it or its image names.
    pub(crate) exposed: Vec<u16>,
    /// Where it is published.
    pub(crate) bindings: Vec<Binding>,
}

/// A port of the host that leads to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding {
    /// The host's address.
    pub(crate) host: SocketAddr,
    /// The port inside.
    pub(crate) port: u16,
    /// Tcp or udp.
    pub(crate) protocol: Protocol,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) name: String,
    /// Its subnets, as text.
    pub(crate) subnets: Vec<String>,
}

impl Container {
    /// Reads one element of `GET /containers/json`.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let labels = value["Labels"].as_object().into_iter().flatten();
        let networks = value["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
        let addresses =
            networks.flat_map(|(_, network)| ["IPAddress", "GlobalIPv6Address"].map(|key| &network[key]));
        let ports: Vec<&Value> = value["Ports"].as_array().into_iter().flatten().collect();
        let mut ips: Vec<IpAddr> = addresses.filter_map(|ip| ip.as_str()?.parse().ok()).collect();
        ips.sort_unstable();
        let mut exposed: Vec<u16> = ports
            .iter()
            .filter(|port| port["Type"] == "tcp")
            .filter_map(|port| number(&port["PrivatePort"]))
            .collect();
        exposed.sort_unstable();
        exposed.dedup();
        Some(Self {
            id: text(&value["Id"])?,
            name: value["Names"][0].as_str()?.trim_start_matches('/').to_owned(),
            state: text(&value["State"])?,
            labels: labels.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect(),
            ips,
            host_network: value["HostConfig"]["NetworkMode"] == "host",
            exposed,
            bindings: ports.into_iter().filter_map(Binding::read).collect(),
        })
    }

    /// Whether its processes run.
    pub(crate) fn runs(&self) -> bool {
        self.state == "running"
    }

    /// Whether its processes stand still.
    pub(crate) fn is_paused(&self) -> bool {
        self.state == "paused"
    }
}

impl Binding {
    fn read(port: &Value) -> Option<Self> {
        let protocol = match port["Type"].as_str()? {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let host = SocketAddr::new(port["IP"].as_str()?.parse().ok()?, number(&port["PublicPort"])?);
        Some(Self { host, port: number(&port["PrivatePort"])?, protocol })
    }

    /// Reads `HostConfig.PortBindings` of an inspection: what would be published if the container ran.
    pub(crate) fn read_wanted(inspection: &Value) -> Vec<(u16, Protocol, u16)> {
        let all = inspection["HostConfig"]["PortBindings"].as_object().into_iter().flatten();
        all.flat_map(|(key, bindings)| {
            let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
            let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
            let port: Option<u16> = port.parse().ok();
            let bindings = bindings.as_array().into_iter().flatten();
            bindings.filter_map(move |binding| {
                Some((binding["HostPort"].as_str()?.parse().ok()?, protocol, port?))
            })
        })
        .collect()
    }
}

impl Network {
    /// Reads one element of `GET /networks`.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let configs = value["IPAM"]["Config"].as_array().into_iter().flatten();
        Some(Self {
            name: value["Name"].as_str()?.to_owned(),
            subnets: configs.filter_map(|config| Some(config["Subnet"].as_str()?.to_owned())).collect(),
        })
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

/// A text of the guest's that is to be shown: short, and nothing that steers a terminal.
pub(crate) fn printable(text: &str) -> String {
    const MOST: usize = 200;
    text.chars().filter(|character| !character.is_control()).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_listed_container_is_read() {
        let value = json!({
            "Id": "abc", "Names": ["/web"], "State": "running", "Labels": {"a": "b"},
            "HostConfig": {"NetworkMode": "front"},
            "Ports": [
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"PrivatePort": 443, "Type": "tcp"},
                {"PrivatePort": 53, "Type": "udp"},
            ],
            "NetworkSettings": {"Networks": {"front": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd00::2"}}},
        });
        let container = Container::read(&value).unwrap();
        assert_eq!((container.name.as_str(), container.runs(), container.host_network), ("web", true, false));
        assert_eq!(container.exposed, [80, 443]);
        assert_eq!(container.ips.len(), 2);
        assert_eq!(container.bindings.len(), 2);
        assert_eq!(container.bindings[0].host.to_string(), "0.0.0.0:8080");
        assert_eq!(Container::read(&json!({"Id": 7})), None);
    }

    #[test]
    fn wanted_bindings_are_read_from_an_inspection() {
        let value = json!({"HostConfig": {"PortBindings": {
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}], "53/udp": [{"HostPort": "x"}], "81/tcp": null,
        }}});
        assert_eq!(Binding::read_wanted(&value), [(8080, Protocol::Tcp, 80)]);
    }

    #[test]
    fn texts_are_cut_and_cleaned_before_they_are_shown() {
        assert_eq!(printable("web\x1b[31m\n"), "web[31m");
        assert_eq!(printable(&"x".repeat(500)).len(), 200);
    }
}
