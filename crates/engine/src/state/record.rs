//! The durable form of a container and of a volume.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard_stubs::models::{ContainerConfig, HostConfig, IpamConfig, NetworkingConfig, PortMap};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::health::Health;

/// Where a container is in its life.
///
/// ```text
///  Created ──start──▶ Running ──exit──▶ Exited ──start──▶ Running …
///                     │  ▲  └─exit, policy──▶ Restarting ──▶ Running
///                 pause  unpause
///                     ▼  │
///                    Paused
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    Created,
    /// Its first process runs.
    Running,
    /// It runs, and the freezer holds all its processes.
    Paused,
    /// It has exited and its restart policy will start it again.
    Restarting,
    /// It has exited.
    Exited,
    /// Its removal has failed half-way.
    Dead,
}

impl Status {
    /// The word that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// What a container does and how its last run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is in its life.
    pub status: Status,
    /// Its first process, in the engine's pid namespace; 0 when none runs.
    pub pid: i32,
    /// When the last run began, in nanoseconds since the epoch.
    pub started_at: Option<u64>,
    /// When the last run ended.
    pub finished_at: Option<u64>,
    /// How the last run ended.
    pub exit_code: i32,
    /// Why the last start failed.
    pub error: String,
    /// Whether the kernel killed a process of the last run for want of memory.
    pub oom_killed: bool,
    /// What the health checks of the last run say; `None` for a container without any.
    #[serde(default)]
    pub health: Option<Health>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: Status::Created,
            pid: 0,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            health: None,
        }
    }
}

impl State {
    /// Whether a process of it is there, paused or not.
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

/// What kind of thing is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the engine's file system.
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// The files of an image, read-only.
    Image,
}

/// A mount point of a container, with every choice made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// The volume's name, or the image's.
    pub name: Option<String>,
    /// The path that is mounted; empty for memory, an id for an image.
    pub source: String,
    /// Where.
    pub destination: String,
    /// The mode text as Docker shows it (`z`, `ro`).
    pub mode: String,
    /// Whether it is writable.
    pub writable: bool,
    /// The propagation of a bind.
    pub propagation: String,
    /// Whether a bind takes along what is mounted below its source.
    pub recursive: bool,
    /// Whether only the mount itself is read-only, and not what is mounted below it.
    #[serde(default)]
    pub shallow_read_only: bool,
    /// Whether the image's content at the destination is copied into an empty volume.
    pub copy: bool,
    /// Whether the volume goes with the container.
    pub anonymous: bool,
    /// The options of a tmpfs.
    pub options: Vec<String>,
    /// Whether it came from the `Mounts` list, whose binds must exist.
    pub strict: bool,
    /// The part of the volume or image that is mounted.
    #[serde(default)]
    pub subpath: Option<String>,
    /// The labels of the volume, should it be made for this mount.
    #[serde(default)]
    pub volume_labels: HashMap<String, String>,
    /// The driver's options of the volume, should it be made for this mount.
    #[serde(default)]
    pub volume_options: HashMap<String, String>,
}

/// A container's place on a network while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// The network's id.
    pub network: String,
    /// The outer end of its veth pair.
    pub host_name: String,
    /// The interface inside the container.
    pub ifname: String,
    /// Its IPv4 address; none on a network without.
    pub ip: Option<Ipv4Addr>,
    /// The length of the IPv4 subnet's prefix.
    pub prefix_len: u8,
    /// Its hardware address.
    pub mac: String,
    /// The network's way out.
    pub gateway: Option<Ipv4Addr>,
    /// Whether the container's IPv4 default route goes this way.
    pub default_route: bool,
    /// Its IPv6 address; none on a network without.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// The length of the IPv6 subnet's prefix.
    #[serde(default)]
    pub prefix_len6: u8,
    /// The network's way out for IPv6.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// Whether the container's IPv6 default route goes this way.
    #[serde(default)]
    pub default_route6: bool,
    /// Kernel settings of the interface, by their paths below `/proc/sys/net`.
    #[serde(default)]
    pub settings: Vec<(String, String)>,
}

impl Endpoint {
    /// Its addresses with the prefixes of their subnets.
    pub fn addresses(&self) -> Vec<IpNet> {
        let four = self.ip.and_then(|ip| IpNet::new(ip.into(), self.prefix_len).ok());
        let six = self.ip6.and_then(|ip| IpNet::new(ip.into(), self.prefix_len6).ok());
        four.into_iter().chain(six).collect()
    }

    /// Its addresses.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.ip.map(IpAddr::from).into_iter().chain(self.ip6.map(IpAddr::from))
    }
}

/// Everything about a container that outlives the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// In nanoseconds since the epoch.
    pub created: u64,
    /// The image's id.
    pub image_id: String,
    /// The program and its arguments.
    pub path: String,
    /// The arguments without the program.
    pub args: Vec<String>,
    /// The configuration, merged with the image's.
    pub config: ContainerConfig,
    /// The host's part, with Docker's defaults filled in.
    pub host_config: HostConfig,
    /// The networks it is connected to, running or not, by their names.
    pub networking: NetworkingConfig,
    /// All its mounts.
    pub mounts: Vec<Mount>,
    /// Its state.
    pub state: State,
    /// Its places on networks while it runs, in the order of its interfaces.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// The ports that are published while it runs.
    pub ports: PortMap,
    /// How often its restart policy has started it.
    pub restart_count: i64,
    /// Whether its user has stopped it, which `unless-stopped` respects.
    pub stopped_by_user: bool,
    /// What it was before a start whose end nobody knows, because its engine was killed. The next engine may be killed
    /// as well before it has seen the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<State>,
}

/// Everything about a network that outlives the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// In nanoseconds since the epoch.
    pub created: u64,
    /// `bridge`, or `host` or `null` of the built-in ones.
    pub driver: String,
    /// The bridge's interface.
    pub bridge: String,
    /// The addresses on it; none where the driver has none.
    pub subnet: Option<Ipv4Net>,
    /// Where free addresses are looked for.
    pub range: Option<Ipv4Net>,
    /// The bridge's own address.
    pub gateway: Option<Ipv4Addr>,
    /// Addresses that are never given, by name.
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// Whether its user has chosen the subnet, which lets containers choose their addresses.
    pub own_subnet: bool,
    /// The same for IPv6: the addresses on it; none where it has none.
    #[serde(default)]
    pub subnet6: Option<Ipv6Net>,
    /// Where free IPv6 addresses are looked for.
    #[serde(default)]
    pub range6: Option<Ipv6Net>,
    /// The bridge's own IPv6 address.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// IPv6 addresses that are never given, by name.
    #[serde(default)]
    pub reserved6: BTreeMap<String, Ipv6Addr>,
    /// Whether its user has chosen the IPv6 subnet.
    #[serde(default)]
    pub own_subnet6: bool,
    /// What the request says of a family that is off: shown, and allowed in containers' settings, without an effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dormant: Vec<IpamConfig>,
    /// The addresses that its user has asked for, which an inspection shows as they were given.
    #[serde(default)]
    pub given: Vec<IpamConfig>,
    /// The options of address management, as they were given.
    pub ipam_options: Option<HashMap<String, String>>,
    /// Whether the outside is out of reach.
    pub internal: bool,
    /// Whether containers beside services may join; remembered for those who ask.
    pub attachable: bool,
    /// The driver's options.
    pub options: HashMap<String, String>,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Says that it is a configuration for other networks and nothing else: for networks of these families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Families>,
    /// The name of the network whose configuration it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_from: Option<String>,
}

/// The families that a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

impl Record {
    /// Whether its ports can be reached from outside: not those of a container without a network of its own, or with closed
    /// ones only, of which dockerd shows none either.
    pub fn offers_ports(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.gateway.is_some() || endpoint.gateway6.is_some())
    }
}

impl NetworkRecord {
    /// Its subnets.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.subnet.map(IpNet::V4).into_iter().chain(self.subnet6.map(IpNet::V6))
    }

    /// Whether an address lies on it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.subnets().any(|subnet| subnet.contains(&ip))
    }
}

/// Everything about a volume that its directory does not say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its name.
    pub name: String,
    /// In nanoseconds since the epoch.
    pub created: u64,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// The options of its driver.
    pub options: HashMap<String, String>,
    /// Whether a container made it without a name.
    pub anonymous: bool,
}
