//! The network as a whole: ways out, name servers, subnets in each other's way, and every published port.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::{
    port::{HostListener, Lead},
    route::{Route, overlaps},
};
use crate::{
    containers::{Network, printable},
    control::Finding,
    explain::Dialed,
};

/// Addresses of documentation (RFC 5737, RFC 3849): a socket that is connected to them sends nothing.
const SOMEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// What is known about the network.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The address that the host leaves from, for each family that has a way out.
    pub(super) ways: Vec<IpAddr>,
    pub(super) name_servers: Vec<String>,
    pub(super) routes: Vec<Route>,
    /// Variables that name a proxy, with their values.
    pub(super) proxies: Vec<(String, String)>,
    /// Where names are served.
    pub(super) names: Vec<SocketAddr>,
    pub(super) names_wanted: bool,
    /// The port that names should be on, and who has it in their place.
    pub(super) names_port: u16,
    pub(super) names_holders: Vec<HostListener>,
    /// The daemon's own process.
    pub(super) own_pid: u32,
    pub(super) is_virtual: bool,
    pub(super) runs: bool,
    pub(super) engine_error: Option<String>,
    pub(super) networks: Vec<Network>,
    pub(super) leads: Vec<Lead>,
}

/// Finds out from which addresses the host would leave.
pub(super) fn ways_out() -> Vec<IpAddr> {
    let way = |to: &&str| {
        let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    SOMEWHERE.iter().filter_map(way).filter(|ip| !ip.is_loopback()).collect()
}

/// The name servers of `resolv.conf`; nothing on systems without one.
pub(super) fn name_servers() -> Vec<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = |line: &str| line.trim().strip_prefix("nameserver").map(|rest| rest.trim().to_owned());
    text.lines().filter_map(server).filter(|server| !server.is_empty()).collect()
}

/// The proxies that the environment names.
pub(super) fn proxies(variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    let value = |name: &str| variable(name).or_else(|| variable(&name.to_lowercase()));
    names
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), value(name).filter(|value| !value.is_empty())?)))
        .collect()
}

/// Says it.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![ways(facts), servers(facts)];
    for (name, value) in &facts.proxies {
        // A proxy's address may carry a password.
        let value = value.rsplit_once('@').map_or(value.as_str(), |(_, rest)| rest);
        findings.push(Finding::good(format!("{name} is set: {value}")));
    }
    findings.extend(names(facts));
    if facts.is_virtual && !facts.runs {
        findings.push(Finding::note(
            "the machine is stopped: nothing is published, and its networks can't be looked at",
            "start it with `skiff machine start`",
        ));
        return findings;
    }
    if let Some(error) = &facts.engine_error {
        findings.push(Finding::bad(
            format!("the engine does not tell its networks: {error}"),
            "see `skiff machine logs --daemon`",
        ));
    }
    findings.extend(subnets(facts));
    findings.extend(ports(facts));
    findings
}

fn ways(facts: &Facts) -> Finding {
    let shown: Vec<String> = facts.ways.iter().map(ToString::to_string).collect();
    match shown.as_slice() {
        [] => Finding::bad(
            "this host has no way out: neither IPv4 nor IPv6 has a default route",
            "connect it to a network",
        ),
        some => Finding::good(format!("containers leave as this host does, from {}", some.join(" and "))),
    }
}

fn servers(facts: &Facts) -> Finding {
    match facts.name_servers.as_slice() {
        [] if cfg!(target_os = "linux") => Finding::note(
            "/etc/resolv.conf names no server: names outside of containers are not found",
            "add a `nameserver` line",
        ),
        [] => Finding::good("names are asked of this host's own resolver"),
        some => Finding::good(format!("names are asked of this host's own resolver ({})", some.join(", "))),
    }
}

fn names(facts: &Facts) -> Option<Finding> {
    let first = facts.names.iter().find(|address| address.is_ipv4()).or(facts.names.first());
    let Some(port) = first.map(SocketAddr::port) else {
        return facts.names_wanted.then(|| {
            Finding::note(
                "http://CONTAINER.localhost is not served: its ports are taken",
                "free port 80, or set `names.port` in the settings",
            )
        });
    };
    let suffix = if port == 80 { String::new() } else { format!(":{port}") };
    let leads = format!("http://CONTAINER.localhost{suffix} leads to containers");
    let wanted = facts.names_port;
    if port == wanted {
        return Some(Finding::good(leads));
    }
    let holder = facts.names_holders.first().and_then(|listener| listener.owner.as_ref());
    Some(match holder {
        Some(owner) if owner.pid == facts.own_pid => {
            Finding::good(format!("{leads} (port {wanted} is published by a container)"))
        }
        Some(owner) => Finding::note(
            format!("{leads}: port {wanted} is taken by {owner}"),
            "end that to have the names without a port",
        ),
        None if !facts.names_holders.is_empty() => Finding::note(
            format!("{leads}: port {wanted} is taken by a process of another user"),
            "end that to have the names without a port",
        ),
        None if !facts.is_virtual => Finding::good(format!(
            "{leads} (port {wanted} is left to the engine on this host; `\"names\": {{\"port\": {wanted}}}` in the settings takes it)"
        )),
        None => Finding::note(
            format!("{leads}: port {wanted} is not for this user"),
            "as root, `sysctl net.ipv4.ip_unprivileged_port_start=80` lets every user have it",
        ),
    })
}

/// Networks of containers that hide a part of the host's network from them. A guest has networks of its own, but packets
/// to those never leave it.
fn subnets(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ours = |route: &Route| {
        let (network, prefix, _) = route;
        facts
            .networks
            .iter()
            .flat_map(|network| &network.subnets)
            .any(|known| *known == format!("{network}/{prefix}"))
    };
    for network in &facts.networks {
        for subnet in &network.subnets {
            let clash = facts.routes.iter().find(|route| {
                // On a native engine the network's own bridge is a route of the host.
                overlaps(subnet, route) && (facts.is_virtual || !ours(route))
            });
            if let Some((base, prefix, interface)) = clash {
                findings.push(Finding::note(
                    format!(
                        "network {} ({}) hides {base}/{prefix} from containers, which this host reaches through {interface}",
                        printable(&network.name),
                        printable(subnet)
                    ),
                    "make the network anew with another --subnet if containers need to get there",
                ));
            }
        }
    }
    findings
}

fn ports(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let dead =
        |lead: &&Lead| matches!(lead.dialed, Some(Dialed::Refused | Dialed::Silent | Dialed::Failed(_)));
    for lead in facts.leads.iter().filter(dead) {
        let (name, host) = (printable(&lead.name), lead.binding.host);
        findings.push(Finding::note(
            format!("{host} leads to port {} of container {name}, where connections die", lead.binding.port),
            format!("see `skiff explain port {}`", host.port()),
        ));
    }
    let alive = facts.leads.len() - findings.len();
    if !facts.leads.is_empty() {
        findings.insert(
            0,
            Finding::good(format!("{alive} of {} published ports lead to a listener", facts.leads.len())),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use skiff_link::Protocol;

    use super::*;
    use crate::containers::Binding;

    fn facts() -> Facts {
        Facts {
            ways: vec!["192.168.1.5".parse().unwrap()],
            name_servers: vec!["192.168.1.1".into()],
            is_virtual: true,
            runs: true,
            ..Facts::default()
        }
    }

    fn said(facts: &Facts) -> Vec<String> {
        judge(facts).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_network_that_is_well_is_short() {
        assert_eq!(
            said(&facts()),
            [
                "containers leave as this host does, from 192.168.1.5",
                "names are asked of this host's own resolver (192.168.1.1)",
            ]
        );
    }

    #[test]
    fn a_host_without_a_way_out_and_a_stopped_machine_are_told() {
        let facts = Facts { ways: Vec::new(), runs: false, ..facts() };
        let said = said(&facts);
        assert_eq!(said[0], "this host has no way out: neither IPv4 nor IPv6 has a default route");
        assert_eq!(
            said[2],
            "the machine is stopped: nothing is published, and its networks can't be looked at"
        );
    }

    #[test]
    fn networks_that_hide_what_the_host_reaches_are_named() {
        let network = Network { name: "front".into(), subnets: vec!["172.18.0.0/16".into()] };
        let route = |base: &str, prefix| (base.parse().unwrap(), prefix, "tun0".to_owned());
        let mut facts = Facts { networks: vec![network], routes: vec![route("172.18.5.0", 24)], ..facts() };
        assert_eq!(
            said(&facts)[2],
            "network front (172.18.0.0/16) hides 172.18.5.0/24 from containers, which this host reaches through tun0"
        );
        facts.routes = vec![route("172.18.0.0", 16)];
        assert_eq!(said(&facts).len(), 3, "a guest's network is not the host's");
        facts.is_virtual = false;
        assert_eq!(said(&facts).len(), 2, "that is its own bridge");
    }

    #[test]
    fn names_on_another_port_say_why() {
        let with = |change: &dyn Fn(&mut Facts)| {
            let names = vec!["127.0.0.1:8065".parse().unwrap()];
            let mut facts = Facts { names, names_port: 80, own_pid: 7, ..facts() };
            change(&mut facts);
            said(&facts).into_iter().find(|line| line.contains("CONTAINER.localhost")).unwrap()
        };
        let holder = |pid, name: &str| HostListener {
            transport: skiff_listeners::Transport::Tcp,
            address: "0.0.0.0:80".parse().unwrap(),
            owner: Some(skiff_listeners::Owner { pid, name: name.into() }),
        };
        let leads = "http://CONTAINER.localhost:8065 leads to containers";
        assert_eq!(with(&|facts| facts.names_port = 8065), leads);
        assert_eq!(with(&|_| ()), format!("{leads}: port 80 is not for this user"));
        assert!(with(&|facts| facts.is_virtual = false).contains("port 80 is left to the engine"));
        let nginx = |facts: &mut Facts| facts.names_holders = vec![holder(42, "nginx")];
        assert_eq!(with(&nginx), format!("{leads}: port 80 is taken by nginx, pid 42"));
        let own = |facts: &mut Facts| facts.names_holders = vec![holder(7, "skiff")];
        assert_eq!(with(&own), format!("{leads} (port 80 is published by a container)"));
    }

    #[test]
    fn dead_ports_are_pointed_out_and_secrets_are_not() {
        let lead = |dialed| Lead {
            name: "web".into(),
            binding: Binding { host: "0.0.0.0:8080".parse().unwrap(), port: 80, protocol: Protocol::Tcp },
            target: None,
            inside: None,
            dialed: Some(dialed),
            from_host: None,
            is_paused: false,
        };
        let facts = Facts {
            leads: vec![lead(Dialed::Accepted), lead(Dialed::Refused)],
            proxies: proxies(|name| {
                (name == "https_proxy").then(|| "http://me:secret@proxy:3128".to_owned())
            }),
            names: vec!["127.0.0.1:80".parse().unwrap()],
            names_port: 80,
            ..facts()
        };
        assert_eq!(
            said(&facts)[2..],
            [
                "HTTPS_PROXY is set: proxy:3128",
                "http://CONTAINER.localhost leads to containers",
                "1 of 2 published ports lead to a listener",
                "0.0.0.0:8080 leads to port 80 of container web, where connections die",
            ]
        );
    }

    #[test]
    fn names_that_are_not_served_are_told_unless_they_are_off() {
        let facts = Facts { names_wanted: true, ..facts() };
        assert!(said(&facts)[2].starts_with("http://CONTAINER.localhost is not served"));
    }
}
