//! Explanations: why a connection arrives or does not, in words that help.
//!
//! Facts are gathered apart from what is said about them, so that every sentence has a test.

mod network;
mod port;
mod route;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use skiff_link::{Args, Protocol, ReplyCode, StreamHeader};
use skiff_machine::{Machine, control};
use skiff_settings::Paths;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    containers::{Api, Binding, Container, Containers, Network},
    control::Finding,
    names::Names,
    service::Table,
};

/// How long a container may take to accept a connection that is only a question.
const DIAL_DEADLINE: Duration = Duration::from_secs(3);
/// Containers that are looked into for one explanation.
const MOST_CONTAINERS: usize = 20;

/// What can be asked.
pub(crate) struct Explain {
    pub(crate) machine: Machine,
    pub(crate) paths: Paths,
    pub(crate) containers: Arc<Containers>,
    /// The ports that the daemon has bound for a guest.
    pub(crate) published: Arc<Table>,
    pub(crate) names: Arc<Names>,
}

/// What came of a connection to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dialed {
    /// Somebody accepted.
    Accepted,
    /// Nobody listens.
    Refused,
    /// No answer in time.
    Silent,
    /// Something else, in the guest's words.
    Failed(String),
}

impl Explain {
    /// Explains a port of the host.
    pub(crate) async fn port(&self, port: u16) -> Vec<Finding> {
        let mut facts = port::Facts {
            port,
            listeners: tokio::task::spawn_blocking(move || port::host_listeners(port))
                .await
                .unwrap_or_default(),
            own_pid: std::process::id(),
            published: self.published.of_port(port).into_iter().map(|port| port.address).collect(),
            names_proxy: self.names.addresses().into_iter().find(|address| address.port() == port),
            is_virtual: self.machine.backend() != "native",
            runs: self.containers.is_running(),
            ..port::Facts::default()
        };
        if let Some(api) = self.containers.api()
            && let Err(error) = self.leads(&api, port, &mut facts).await
        {
            facts.engine_error = Some(crate::control::chain(&error));
        }
        port::judge(&facts)
    }

    /// Finds the containers that a port leads to, those that would have it if they ran, and those that listen on it unreached.
    async fn leads(
        &self,
        api: &Api,
        port: u16,
        facts: &mut port::Facts,
    ) -> Result<(), crate::containers::ApiError> {
        let list = api.get("/containers/json?all=1").await?;
        let all: Vec<Container> = list.as_array().into_iter().flatten().filter_map(Container::read).collect();
        for container in all.iter().take(MOST_CONTAINERS * 10) {
            if container.runs() || container.is_paused() {
                let here = container.bindings.iter().filter(|binding| binding.host.port() == port);
                for binding in here.take(MOST_CONTAINERS) {
                    let from_host = match binding.protocol {
                        Protocol::Tcp => Some(dial_from_host(binding.host).await),
                        Protocol::Udp => None,
                    };
                    facts.leads.push(port::Lead { from_host, ..self.lead(container, *binding).await });
                }
            } else if facts.resting.len() < MOST_CONTAINERS
                && let Ok(inspection) = api.get(&format!("/containers/{}/json", container.id)).await
            {
                let wanted = Binding::read_wanted(&inspection).into_iter().find(|(host, ..)| *host == port);
                if wanted.is_some() {
                    let resting =
                        port::Resting { name: container.name.clone(), state: container.state.clone() };
                    facts.resting.push(resting);
                }
            }
        }
        if facts.leads.is_empty() {
            for container in all.iter().filter(|container| container.runs()).take(MOST_CONTAINERS) {
                facts.unpublished.extend(self.unpublished(container, port).await);
            }
        }
        Ok(())
    }

    /// A container that listens on a port for itself.
    async fn unpublished(&self, container: &Container, port: u16) -> Option<port::Unpublished> {
        let listening = self.listeners(&container.id).await?;
        let here: Vec<_> = listening.iter().filter(|listener| listener.address.port() == port).collect();
        (!here.is_empty()).then(|| port::Unpublished {
            name: container.name.clone(),
            host_network: container.host_network,
            is_loopback_only: here.iter().all(|listener| listener.address.ip().to_canonical().is_loopback()),
        })
    }

    async fn lead(&self, container: &Container, binding: Binding) -> port::Lead {
        let target = container
            .ips
            .iter()
            .find(|ip| ip.is_ipv4() == binding.host.is_ipv4())
            .or(container.ips.first())
            .map(|ip| SocketAddr::new(*ip, binding.port));
        let dialed = match target {
            Some(target) if binding.protocol == Protocol::Tcp => self.dial(target).await,
            _ => None,
        };
        port::Lead {
            name: container.name.clone(),
            binding,
            target,
            inside: self.listeners(&container.id).await,
            dialed,
            from_host: None,
            is_paused: container.is_paused(),
        }
    }

    /// Who listens inside a container; `None` when the agent does not tell.
    async fn listeners(&self, container: &str) -> Option<Vec<control::Listening>> {
        let link = self.machine.running_link()?;
        let ask = async { control::Client::open(&link).await?.listeners(container).await };
        match ask.await {
            Ok(listeners) => Some(listeners),
            Err(error) => {
                tracing::debug!(%error, container, "listeners are not told");
                None
            }
        }
    }

    /// Connects to a container, and hangs up.
    async fn dial(&self, target: SocketAddr) -> Option<Dialed> {
        let link = self.machine.running_link()?;
        let header = StreamHeader { args: Args::Dial { addr: target, protocol: Protocol::Tcp } };
        Some(match timeout(DIAL_DEADLINE, link.open(&header)).await {
            Err(_) => Dialed::Silent,
            Ok(Ok(_)) => Dialed::Accepted,
            Ok(Err(skiff_link::OpenError::Refused { code: ReplyCode::Refused, .. })) => Dialed::Refused,
            Ok(Err(skiff_link::OpenError::Refused { code: ReplyCode::TimedOut, .. })) => Dialed::Silent,
            Ok(Err(error)) => Dialed::Failed(error.to_string()),
        })
    }

    /// Who has the port that names should be on, where they are on another one.
    async fn names_holders(&self) -> Vec<port::HostListener> {
        let wanted = self.names.wanted_port();
        if self.names.addresses().iter().any(|address| address.port() == wanted) {
            return Vec::new();
        }
        tokio::task::spawn_blocking(move || port::host_listeners(wanted)).await.unwrap_or_default()
    }

    /// Looks at everything that has to do with the network.
    pub(crate) async fn network(&self) -> Vec<Finding> {
        let mut facts = network::Facts {
            ways: tokio::task::spawn_blocking(network::ways_out).await.unwrap_or_default(),
            name_servers: network::name_servers(),
            routes: route::host_routes(),
            proxies: network::proxies(|name| std::env::var(name).ok()),
            names: self.names.addresses(),
            names_port: self.names.wanted_port(),
            names_holders: self.names_holders().await,
            own_pid: std::process::id(),
            names_wanted: skiff_settings::Settings::load(&self.paths.settings())
                .is_ok_and(|settings| settings.names.enabled),
            is_virtual: self.machine.backend() != "native",
            runs: self.containers.is_running(),
            ..network::Facts::default()
        };
        if let Some(api) = self.containers.api() {
            let networks = api.get("/networks").await;
            match networks {
                Ok(networks) => {
                    facts.networks =
                        networks.as_array().into_iter().flatten().filter_map(Network::read).collect();
                }
                Err(error) => facts.engine_error = Some(crate::control::chain(&error)),
            }
            if let Ok(running) = self.containers.running().await {
                for container in running.iter().filter(|one| one.runs()).take(MOST_CONTAINERS) {
                    for binding in &container.bindings {
                        // One address of each port is enough.
                        if binding.host.is_ipv4()
                            || container.bindings.iter().all(|other| other.host.is_ipv6())
                        {
                            facts.leads.push(self.lead(container, *binding).await);
                        }
                    }
                }
            }
        }
        network::judge(&facts)
    }
}

/// Connects to a published port as any program of this host would, and hangs up.
async fn dial_from_host(host: SocketAddr) -> Dialed {
    let ip = match host.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    match timeout(DIAL_DEADLINE, TcpStream::connect((ip, host.port()))).await {
        Err(_) => Dialed::Silent,
        Ok(Ok(_)) => Dialed::Accepted,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Dialed::Refused,
        Ok(Err(error)) => Dialed::Failed(error.to_string()),
    }
}
