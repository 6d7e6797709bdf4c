//! A port of the host: who listens, where it leads, and where a connection dies.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use skiff_link::Protocol;
use skiff_listeners::{Owner, Transport};
use skiff_machine::control::Listening;

use super::Dialed;
use crate::{
    containers::{Binding, printable},
    control::Finding,
};

/// What is known about a port.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) port: u16,
    /// Who listens on it on the host.
    pub(super) listeners: Vec<HostListener>,
    /// The daemon's own process.
    pub(super) own_pid: u32,
    /// Where the daemon has bound it for a guest.
    pub(super) published: Vec<SocketAddr>,
    /// Where the daemon serves names on it.
    pub(super) names_proxy: Option<SocketAddr>,
    pub(super) is_virtual: bool,
    /// Whether the guest, or the engine, runs.
    pub(super) runs: bool,
    pub(super) engine_error: Option<String>,
    /// The containers that the engine says it leads to.
    pub(super) leads: Vec<Lead>,
    /// Containers that would have it if they ran.
    pub(super) resting: Vec<Resting>,
    /// Containers that listen on it without being reached from the host.
    pub(super) unpublished: Vec<Unpublished>,
}

/// A socket of the host that waits.
#[derive(Debug, Clone)]
pub(super) struct HostListener {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    pub(super) owner: Option<Owner>,
}

/// A published port, followed into its container.
#[derive(Debug, Clone)]
pub(super) struct Lead {
    pub(super) name: String,
    pub(super) binding: Binding,
    /// The container's address and port.
    pub(super) target: Option<SocketAddr>,
    /// Who listens inside; `None` when that is not told.
    pub(super) inside: Option<Vec<Listening>>,
    /// What came of a connection; `None` when none was tried.
    pub(super) dialed: Option<Dialed>,
    /// What came of a connection to the host's own socket; `None` when none was tried.
    pub(super) from_host: Option<Dialed>,
    /// Whether the container is paused: its system accepts connections, and nobody answers.
    pub(super) is_paused: bool,
}

/// A container that listens on a port which is not published.
#[derive(Debug, Clone)]
pub(super) struct Unpublished {
    pub(super) name: String,
    /// Whether it listens in the engine's own network.
    pub(super) host_network: bool,
    /// Whether nobody but the container itself reaches it.
    pub(super) is_loopback_only: bool,
}

/// A container that does not run.
#[derive(Debug, Clone)]
pub(super) struct Resting {
    pub(super) name: String,
    pub(super) state: String,
}

/// Finds the sockets of the host that wait on a port. Looks through all processes.
pub(super) fn host_listeners(port: u16) -> Vec<HostListener> {
    let mut all = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        let found = skiff_listeners::of_process(Path::new("/proc/self"), transport).into_iter();
        all.extend(found.filter(|listener| listener.address.port() == port).map(|listener| HostListener {
            transport,
            address: listener.address,
            owner: skiff_listeners::owner(&listener),
        }));
    }
    all
}

/// Says it.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let port = facts.port;
    let mut findings = Vec::new();
    if let Some(address) = facts.names_proxy {
        findings
            .push(Finding::good(format!("{address} is where Skiff serves http://CONTAINER.localhost names")));
    }
    if let Some(error) = &facts.engine_error {
        findings.push(Finding::bad(
            format!("the engine does not say which containers have port {port}: {error}"),
            "see `skiff machine logs --daemon`",
        ));
    }
    for lead in &facts.leads {
        findings.push(Finding::good(format!(
            "{}/{} leads to container {}{}",
            lead.binding.host,
            lead.binding.protocol,
            printable(&lead.name),
            lead.target.map_or_else(String::new, |target| format!(", {target}")),
        )));
        findings.extend(bound(facts, lead));
        findings.push(inside(lead));
        findings.extend(stopped_on_the_way(lead));
    }
    let ours = |listener: &&HostListener| {
        !facts.leads.iter().any(|lead| is_of(listener, &lead.binding))
            && facts.names_proxy != Some(listener.address)
    };
    // A native container in the host's own network is a process of this host like others.
    let is_ours = !facts.is_virtual && facts.unpublished.iter().any(|container| container.host_network);
    for listener in facts.listeners.iter().filter(ours).filter(|_| !is_ours) {
        findings.push(stranger(listener, facts));
    }
    for container in &facts.resting {
        findings.push(resting(container, port));
    }
    findings.extend(facts.unpublished.iter().map(|container| unpublished(container, facts)));
    if findings.is_empty() {
        findings.push(nothing(facts));
    }
    findings
}

/// Whether a socket of the host is the one of a binding.
fn is_of(listener: &HostListener, binding: &Binding) -> bool {
    let transport = match binding.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    listener.transport == transport && listener.address == binding.host
}

/// Whether the host's half of a published port is there. Systems that don't tell who listens say nothing.
fn bound(facts: &Facts, lead: &Lead) -> Option<Finding> {
    let host = lead.binding.host;
    let here = facts.listeners.iter().find(|listener| is_of(listener, &lead.binding));
    if facts.listeners.is_empty() && !cfg!(target_os = "linux") || here.is_some() {
        return here.map(|listener| match &listener.owner {
            Some(owner) => Finding::good(format!("{host} is listened on by {owner}{}", for_whom(host))),
            None => Finding::good(format!("{host} is listened on{}", for_whom(host))),
        });
    }
    let what = format!("nobody listens on {host} of this host, although the engine has it published");
    let way_out = if facts.is_virtual && !facts.published.contains(&host) {
        "the way from the guest to the host broke: it is bound again within seconds, else see `skiff machine logs --daemon`"
    } else {
        "restart the container"
    };
    Some(Finding::bad(what, way_out))
}

/// Who reaches an address, where that is not everybody.
fn for_whom(host: SocketAddr) -> &'static str {
    if host.ip().is_loopback() { ", for programs on this host only" } else { "" }
}

/// A connection that the container would accept and that does not get there.
fn stopped_on_the_way(lead: &Lead) -> Option<Finding> {
    if lead.dialed != Some(Dialed::Accepted) {
        return None;
    }
    let fate = match lead.from_host.as_ref()? {
        Dialed::Accepted => return None,
        Dialed::Silent => "get no answer".to_owned(),
        Dialed::Refused => "are refused".to_owned(),
        Dialed::Failed(reason) => format!("fail ({})", printable(reason)),
    };
    Some(Finding::bad(
        format!("connections from this host to {} {fate} before they get there", lead.binding.host),
        "a firewall of this host stands in the way: see `nft list ruleset` or `iptables -S`",
    ))
}

/// A container that publishes the port and does not run.
fn resting(container: &Resting, port: u16) -> Finding {
    let (name, state) = (printable(&container.name), printable(&container.state));
    let way_out = match container.state.as_str() {
        "restarting" => format!("it ends again and again: see why with `skiff logs {name}`"),
        "removing" | "dead" => format!("remove it with `skiff rm -f {name}` and make it anew"),
        _ => format!("start it with `skiff start {name}`"),
    };
    Finding::note(format!("container {name} publishes port {port}, but it is not running ({state})"), way_out)
}

/// A container that listens on the port for itself.
fn unpublished(container: &Unpublished, facts: &Facts) -> Finding {
    let (name, port) = (printable(&container.name), facts.port);
    let publish = format!("make it anew with `-p {port}:{port}`");
    match container {
        Unpublished { host_network: true, .. } if facts.is_virtual => Finding::note(
            format!(
                "container {name} listens on port {port} in the network of the guest (`--network host`), which is not this host's"
            ),
            format!("make it anew with `-p {port}:{port}` in the place of `--network host`"),
        ),
        Unpublished { host_network: true, .. } => Finding::good(format!(
            "container {name} listens on port {port} in this host's own network (`--network host`)"
        )),
        Unpublished { is_loopback_only: true, .. } => Finding::note(
            format!(
                "container {name} listens on port {port} at its own 127.0.0.1 only, and does not publish it"
            ),
            format!("let the program listen on 0.0.0.0, and {publish}"),
        ),
        Unpublished { .. } => Finding::note(
            format!("container {name} listens on port {port}, but does not publish it"),
            publish,
        ),
    }
}

/// What happens to a connection inside the container.
fn inside(lead: &Lead) -> Finding {
    let name = printable(&lead.name);
    let (port, protocol) = (lead.binding.port, lead.binding.protocol);
    let transport = protocol.to_string();
    let listening: Vec<&Listening> =
        lead.inside.iter().flatten().filter(|listener| listener.transport == transport).collect();
    let here: Vec<IpAddr> = listening
        .iter()
        .filter(|listener| listener.address.port() == port)
        .map(|listener| listener.address.ip().to_canonical())
        .collect();
    if lead.is_paused {
        return Finding::bad(
            format!("container {name} is paused: connections to port {port} wait, and nobody answers"),
            format!("let it go on with `skiff unpause {name}`"),
        );
    }
    match (&lead.dialed, &lead.inside) {
        (Some(Dialed::Accepted), _) => {
            Finding::good(format!("container {name} accepts connections on port {port}"))
        }
        (_, Some(_)) if !here.is_empty() && here.iter().all(IpAddr::is_loopback) => Finding::bad(
            format!(
                "inside container {name}, port {port} is listened on at {} only: nothing from outside the container arrives",
                here[0]
            ),
            "let the program listen on 0.0.0.0 (every address) instead",
        ),
        (_, Some(_)) if here.is_empty() => {
            let mut others: Vec<String> = listening
                .iter()
                .filter(|listener| !listener.address.ip().to_canonical().is_loopback())
                .map(|listener| listener.address.port().to_string())
                .collect();
            others.sort();
            others.dedup();
            let way_out = match others.as_slice() {
                [] => format!("see what it does with `skiff logs {name}`"),
                [one] => format!(
                    "it listens on port {one}: publish that with `-p {}:{one}`",
                    lead.binding.host.port()
                ),
                several => format!("it listens on the ports {}: publish one of those", several.join(", ")),
            };
            Finding::bad(format!("inside container {name}, nobody listens on port {port}"), way_out)
        }
        (Some(Dialed::Refused), _) => Finding::bad(
            format!("container {name} refuses connections on port {port}"),
            format!("see what it does with `skiff logs {name}`"),
        ),
        (Some(Dialed::Silent), _) => Finding::bad(
            format!("container {name} does not answer on port {port}"),
            format!("it may be busy, paused, or filter packets: see `skiff logs {name}`"),
        ),
        (Some(Dialed::Failed(reason)), _) => Finding::bad(
            format!("container {name} can't be reached on port {port}: {}", printable(reason)),
            "see `skiff doctor network`",
        ),
        (None, Some(_)) => {
            Finding::good(format!("inside container {name}, port {port} ({protocol}) is listened on"))
        }
        (None, None) => Finding::note(
            format!("whether container {name} listens on port {port} is not known"),
            format!("see what it does with `skiff logs {name}`"),
        ),
    }
}

/// A socket of the host that is no container's.
fn stranger(listener: &HostListener, facts: &Facts) -> Finding {
    let transport = match listener.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let address = listener.address;
    match &listener.owner {
        Some(owner) if owner.pid == facts.own_pid => Finding::note(
            format!(
                "{address}/{transport} is listened on by the Skiff daemon, for a container that has just gone"
            ),
            "it is released within seconds",
        ),
        Some(owner) => Finding::note(
            format!("{address}/{transport} is listened on by {owner}, which is not a container of Skiff"),
            "end it, or publish the container on another port",
        ),
        None => Finding::note(
            format!("{address}/{transport} is listened on by a process of another user"),
            "end it, or publish the container on another port",
        ),
    }
}

/// Nobody has anything to do with the port.
fn nothing(facts: &Facts) -> Finding {
    let port = facts.port;
    if facts.is_virtual && !facts.runs {
        return Finding::bad(
            format!("nobody listens on port {port}: the machine is stopped, and with it every container"),
            "start it with `skiff machine start`",
        );
    }
    Finding::bad(
        format!("nobody listens on port {port}, and no container publishes it"),
        format!("publish a container's port with `skiff run -p {port}:PORT`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Grade;

    fn facts() -> Facts {
        Facts { port: 8080, own_pid: 7, is_virtual: true, runs: true, ..Facts::default() }
    }

    fn listener(address: &str, pid: u32, name: &str) -> HostListener {
        let owner = Some(Owner { pid, name: name.into() });
        HostListener { transport: Transport::Tcp, address: address.parse().unwrap(), owner }
    }

    fn lead(inside: &[&str], dialed: Option<Dialed>) -> Lead {
        Lead {
            name: "web".into(),
            binding: Binding { host: "0.0.0.0:8080".parse().unwrap(), port: 80, protocol: Protocol::Tcp },
            target: Some("172.17.0.2:80".parse().unwrap()),
            inside: Some(
                inside
                    .iter()
                    .map(|address| Listening { transport: "tcp".into(), address: address.parse().unwrap() })
                    .collect(),
            ),
            dialed,
            from_host: None,
            is_paused: false,
        }
    }

    fn said(facts: &Facts) -> Vec<String> {
        let sign = |grade| match grade {
            Grade::Good => "+",
            Grade::Note => "o",
            Grade::Bad => "-",
        };
        let line = |finding: Finding| match finding.way_out {
            Some(way_out) => format!("{} {} → {way_out}", sign(finding.grade), finding.what),
            None => format!("{} {}", sign(finding.grade), finding.what),
        };
        judge(facts).into_iter().map(line).collect()
    }

    #[test]
    fn a_port_that_works_is_followed_to_its_end() {
        let facts = Facts {
            listeners: vec![listener("0.0.0.0:8080", 7, "skiff")],
            leads: vec![lead(&["0.0.0.0:80"], Some(Dialed::Accepted))],
            ..facts()
        };
        assert_eq!(
            said(&facts),
            [
                "+ 0.0.0.0:8080/tcp leads to container web, 172.17.0.2:80",
                "+ 0.0.0.0:8080 is listened on by skiff, pid 7",
                "+ container web accepts connections on port 80",
            ]
        );
    }

    #[test]
    fn a_listener_on_loopback_alone_is_named() {
        let mut facts = Facts {
            listeners: vec![listener("0.0.0.0:8080", 7, "skiff")],
            leads: vec![lead(&["127.0.0.1:80", "0.0.0.0:22"], Some(Dialed::Refused))],
            ..facts()
        };
        assert_eq!(
            said(&facts)[2],
            "- inside container web, port 80 is listened on at 127.0.0.1 only: nothing from outside the container \
             arrives → let the program listen on 0.0.0.0 (every address) instead"
        );
        facts.leads = vec![lead(&["127.0.0.1:80", "[::]:80"], Some(Dialed::Accepted))];
        assert_eq!(said(&facts)[2], "+ container web accepts connections on port 80");
    }

    #[test]
    fn a_wrong_port_inside_is_told_with_the_right_one() {
        let with = |inside: &[&str]| {
            let facts = Facts {
                listeners: vec![listener("0.0.0.0:8080", 7, "skiff")],
                leads: vec![lead(inside, Some(Dialed::Refused))],
                ..facts()
            };
            said(&facts)[2].clone()
        };
        assert_eq!(
            with(&["0.0.0.0:3000"]),
            "- inside container web, nobody listens on port 80 → it listens on port 3000: publish that with `-p 8080:3000`"
        );
        assert_eq!(
            with(&["0.0.0.0:3000", "[::]:4000"]),
            "- inside container web, nobody listens on port 80 → it listens on the ports 3000, 4000: publish one of those"
        );
        assert_eq!(
            with(&[]),
            "- inside container web, nobody listens on port 80 → see what it does with `skiff logs web`"
        );
    }

    #[test]
    fn silence_and_other_failures_are_told_apart() {
        let with = |dialed, inside: Option<Vec<Listening>>| {
            let lead = Lead { inside, dialed, ..lead(&["0.0.0.0:80"], None) };
            let facts =
                Facts { listeners: vec![listener("0.0.0.0:8080", 7, "skiff")], leads: vec![lead], ..facts() };
            said(&facts)[2].clone()
        };
        let listens = || lead(&["0.0.0.0:80"], None).inside;
        assert!(
            with(Some(Dialed::Silent), listens()).starts_with("- container web does not answer on port 80")
        );
        assert!(
            with(Some(Dialed::Refused), None).starts_with("- container web refuses connections on port 80")
        );
        assert!(
            with(Some(Dialed::Failed("no route".into())), listens())
                .starts_with("- container web can't be reached on port 80: no route")
        );
        assert_eq!(with(None, listens()), "+ inside container web, port 80 (tcp) is listened on");
        assert!(with(None, None).starts_with("o whether container web listens on port 80 is not known"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_lost_half_of_the_host_is_told() {
        let facts = Facts { leads: vec![lead(&["0.0.0.0:80"], Some(Dialed::Accepted))], ..facts() };
        assert!(
            said(&facts)[1].starts_with(
                "- nobody listens on 0.0.0.0:8080 of this host, although the engine has it published → the way from the guest"
            ),
            "{:?}",
            said(&facts)
        );
    }

    #[test]
    fn other_processes_and_resting_containers_are_named() {
        let facts = Facts {
            listeners: vec![listener("127.0.0.1:8080", 42, "python3")],
            resting: vec![Resting { name: "web".into(), state: "exited".into() }],
            ..facts()
        };
        assert_eq!(
            said(&facts),
            [
                "o 127.0.0.1:8080/tcp is listened on by python3, pid 42, which is not a container of Skiff → end it, or \
                 publish the container on another port",
                "o container web publishes port 8080, but it is not running (exited) → start it with `skiff start web`",
            ]
        );
    }

    #[test]
    fn a_firewall_on_the_way_and_a_pause_are_told() {
        let with = |from_host, is_paused| {
            let lead = Lead { from_host, is_paused, ..lead(&["0.0.0.0:80"], Some(Dialed::Accepted)) };
            let listeners = vec![listener("0.0.0.0:8080", 7, "skiff")];
            said(&Facts { listeners, leads: vec![lead], ..facts() })[2..].to_vec()
        };
        assert_eq!(
            with(Some(Dialed::Silent), false),
            [
                "+ container web accepts connections on port 80",
                "- connections from this host to 0.0.0.0:8080 get no answer before they get there → a firewall of this host \
                 stands in the way: see `nft list ruleset` or `iptables -S`"
            ]
        );
        assert_eq!(with(Some(Dialed::Accepted), false).len(), 1);
        assert_eq!(
            with(Some(Dialed::Accepted), true),
            [
                "- container web is paused: connections to port 80 wait, and nobody answers → let it go on with `skiff \
                 unpause web`"
            ]
        );
    }

    #[test]
    fn a_listener_that_is_not_published_is_found() {
        let with = |host_network, is_loopback_only, is_virtual| {
            let container = Unpublished { name: "web".into(), host_network, is_loopback_only };
            said(&Facts { unpublished: vec![container], is_virtual, ..facts() })
        };
        assert_eq!(
            with(false, false, true),
            [
                "o container web listens on port 8080, but does not publish it → make it anew with `-p 8080:8080`"
            ]
        );
        assert!(with(false, true, true)[0].contains("at its own 127.0.0.1 only"));
        assert!(with(true, false, true)[0].contains("in the network of the guest"));
        assert!(
            with(true, false, false)[0]
                .starts_with("+ container web listens on port 8080 in this host's own")
        );
    }

    #[test]
    fn a_container_that_ends_again_and_again_is_not_to_be_started() {
        let resting = vec![Resting { name: "web".into(), state: "restarting".into() }];
        assert!(said(&Facts { resting, ..facts() })[0].ends_with("see why with `skiff logs web`"));
    }

    #[test]
    fn a_port_that_nobody_has_is_told_with_the_way_to_have_it() {
        assert_eq!(
            said(&facts()),
            [
                "- nobody listens on port 8080, and no container publishes it → publish a container's port with `skiff run -p 8080:PORT`"
            ]
        );
        assert_eq!(
            said(&Facts { runs: false, ..facts() }),
            [
                "- nobody listens on port 8080: the machine is stopped, and with it every container → start it with `skiff machine start`"
            ]
        );
    }

    #[test]
    fn what_containers_are_called_steers_no_terminal() {
        let facts =
            Facts { resting: vec![Resting { name: "w\x1b[2Jeb".into(), state: "exited".into() }], ..facts() };
        assert!(said(&facts).iter().all(|line| !line.contains('\x1b')));
    }
}
