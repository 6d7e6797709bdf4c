//! `settings.json`: what a user can set, with defaults for all of it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Everything a user can set; an absent field has its default, an unknown field is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The guest.
    pub machine: Machine,
    /// The host daemon.
    pub daemon: Daemon,
    /// What containers may reach.
    pub network: Network,
    /// Directories of this host that containers may mount.
    pub files: Files,
    /// Registry mirrors for docker.io, tried in order; `http://` or `https://` addresses.
    pub registry_mirrors: Vec<String>,
    /// Address that `-p 8080:80` binds where the user names none.
    pub publish_default_ip: IpAddr,
    /// Where subnets of new networks come from, in order; by default Docker's own pools.
    pub default_address_pools: Vec<AddressPool>,
    /// Names below `localhost` that lead to containers.
    pub names: Names,
}

/// A range of addresses that is cut into subnets, as dockerd's `default-address-pools` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPool {
    /// The range, as `10.0.0.0/8`.
    pub base: String,
    /// The length of each subnet's prefix.
    pub size: u8,
}

impl std::fmt::Display for AddressPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "base={},size={}", self.base, self.size)
    }
}

/// `http://CONTAINER.localhost` and `http://SERVICE.PROJECT.localhost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    /// Whether they are served.
    pub enabled: bool,
    /// The port of loopback to serve them on; by default 80 where that can be had, else the fallback.
    pub port: Option<u16>,
    /// The port when 80 is taken, not allowed, or left to containers.
    pub fallback_port: u16,
    /// Whether `https://` is served too, with certificates of an authority that is made for this installation.
    pub tls: bool,
    /// The port for `https://`; by default 443 where that can be had, else the fallback.
    pub tls_port: Option<u16>,
    /// The port when 443 is taken, not allowed, or left to containers.
    pub fallback_tls_port: u16,
}

/// Size and kind of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// Virtual processors; by default as many as the host has, at most 8.
    pub cpus: Option<u32>,
    /// Memory in MiB; by default a quarter of the host's, at least 1 GiB and at most 8 GiB.
    pub memory_mib: Option<u64>,
    /// Upper bound of the data disk in GiB; the file on the host grows only with use.
    pub disk_gib: u64,
    /// How the guest is run.
    pub backend: BackendChoice,
    /// Whether a booted guest is kept as a template, so that later starts take a fraction of the time.
    pub template: bool,
}

/// Which backend runs the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// The best backend that works on this host.
    #[default]
    Auto,
    /// A guest in QEMU.
    Qemu,
    /// No guest: the engine runs on this Linux host.
    Native,
}

impl std::fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BackendChoice::Auto => "auto",
            BackendChoice::Qemu => "qemu",
            BackendChoice::Native => "native",
        })
    }
}

impl std::str::FromStr for BackendChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<BackendChoice, Error> {
        match text {
            "auto" => Ok(BackendChoice::Auto),
            "qemu" => Ok(BackendChoice::Qemu),
            "native" => Ok(BackendChoice::Native),
            _ => Err(Error::Value {
                field: "machine.backend",
                message: format!("{text:?} is not one of auto, qemu, native"),
            }),
        }
    }
}

/// Behaviour of the host daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Daemon {
    /// Seconds without containers and connections before the guest is stopped: 300 by default, 0 for never.
    pub idle_stop_seconds: Option<u64>,
    /// What is done with the guest then.
    pub idle: IdleAction,
    /// Docker socket, instead of the one in the state directory.
    pub socket: Option<PathBuf>,
}

/// What becomes of a guest that nobody uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleAction {
    /// It is shut down once it has no containers that run or are paused.
    #[default]
    Stop,
    /// It is saved and its process ends, also with paused containers; the next use wakes it. Where that can't be done it is
    /// shut down.
    Sleep,
}

/// What containers in a guest may reach. An engine on this host itself has the host's own packet filter for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Whether containers and the engine reach what listens on this host's loopback, as `host.docker.internal`. Where not,
    /// that name does not exist, and registries on the loopback can't be used either.
    pub host_loopback: bool,
    /// Proxies to registries and other sources of images and builds.
    pub proxy: Proxy,
}

/// HTTP proxies, each in place of the variable of the daemon's environment that has its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// `HTTP_PROXY`: `http://[user:password@]host[:port]`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`, in the same form.
    pub https: Option<String>,
    /// `NO_PROXY`: names, domains and addresses between commas.
    pub no_proxy: Option<String>,
}

impl Proxy {
    /// The variables that are set here.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named = [("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https), ("NO_PROXY", &self.no_proxy)];
        named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// The value of a variable, where it is set here.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl Default for Network {
    fn default() -> Network {
        Network { host_loopback: true, proxy: Proxy::default() }
    }
}

/// Directories of this host that containers may mount. The native backend mounts any, as Docker does on Linux.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// The directories, absolute; by default the home directory and the one for temporary files.
    pub shares: Option<Vec<PathBuf>>,
    /// Directories that containers may only read.
    pub read_only: Vec<PathBuf>,
}

impl Files {
    /// Returns the directories and whether containers may write there, for a user with this home directory.
    pub fn shares_for(&self, home: Option<&Path>) -> Vec<(PathBuf, bool)> {
        let usual = || home.map(Path::to_owned).into_iter().chain([std::env::temp_dir()]).collect();
        let shares = self.shares.clone().unwrap_or_else(usual);
        let writable =
            shares.into_iter().filter(|path| !self.read_only.contains(path)).map(|path| (path, true));
        writable.chain(self.read_only.iter().map(|path| (path.clone(), false))).collect()
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            machine: Machine::default(),
            daemon: Daemon::default(),
            network: Network::default(),
            files: Files::default(),
            registry_mirrors: Vec::new(),
            publish_default_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            default_address_pools: Vec::new(),
            names: Names::default(),
        }
    }
}

impl Default for Names {
    fn default() -> Names {
        Names {
            enabled: true,
            port: None,
            fallback_port: 8065,
            tls: false,
            tls_port: None,
            fallback_tls_port: 8066,
        }
    }
}

impl Default for Machine {
    fn default() -> Machine {
        Machine { cpus: None, memory_mib: None, disk_gib: 64, backend: BackendChoice::Auto, template: true }
    }
}

impl Default for Daemon {
    fn default() -> Daemon {
        Daemon {
            idle_stop_seconds: Some(DEFAULT_IDLE_STOP_SECONDS),
            idle: IdleAction::default(),
            socket: None,
        }
    }
}

const DEFAULT_IDLE_STOP_SECONDS: u64 = 300;
const MIN_MEMORY_MIB: u64 = 256;

impl Machine {
    /// Returns the number of virtual processors for a host that has `host_cpus`.
    pub fn cpus_for(&self, host_cpus: usize) -> u32 {
        self.cpus.unwrap_or_else(|| host_cpus.clamp(1, 8) as u32)
    }

    /// Returns the guest's memory in MiB for a host that has `host_memory_mib`.
    pub fn memory_mib_for(&self, host_memory_mib: u64) -> u64 {
        self.memory_mib.unwrap_or_else(|| (host_memory_mib / 4).clamp(1024, 8192))
    }
}

impl Daemon {
    /// Returns how long the guest may idle before it is stopped, or `None` for ever.
    pub fn idle_stop(&self) -> Option<Duration> {
        match self.idle_stop_seconds.unwrap_or(DEFAULT_IDLE_STOP_SECONDS) {
            0 => None,
            seconds => Some(Duration::from_secs(seconds)),
        }
    }
}

impl Settings {
    /// Reads the file at `path`; a missing file means the defaults.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read, [`Error::Syntax`] naming file and field when it is not understood,
    /// [`Error::Invalid`] when a value makes no sense.
    pub fn load(path: &Path) -> Result<Settings, Error> {
        match std::fs::read(path) {
            Ok(bytes) => Settings::parse(path, &bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(source) => Err(Error::File { action: "read", path: path.to_owned(), source }),
        }
    }

    /// Parses the contents of a settings file; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Settings::load`], without [`Error::File`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Settings, Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let settings: Settings =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| Error::Syntax {
                path: path.to_owned(),
                field: error.path().to_string(),
                message: error.inner().to_string(),
            })?;
        deserializer.end().map_err(|error| Error::Syntax {
            path: path.to_owned(),
            field: String::new(),
            message: error.to_string(),
        })?;
        settings
            .validate()
            .map_err(|error| Error::Invalid { path: path.to_owned(), source: Box::new(error) })?;
        Ok(settings)
    }

    /// Checks that every value makes sense.
    ///
    /// # Errors
    /// [`Error::Value`] for the first that does not.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |field, message| Err(Error::Value { field, message });
        if let Some(cpus) = self.machine.cpus
            && !(1..=256).contains(&cpus)
        {
            return refuse("machine.cpus", format!("{cpus} is not between 1 and 256"));
        }
        if let Some(memory) = self.machine.memory_mib
            && memory < MIN_MEMORY_MIB
        {
            return refuse("machine.memory_mib", format!("{memory} is less than {MIN_MEMORY_MIB}"));
        }
        if !(1..=65_536).contains(&self.machine.disk_gib) {
            return refuse(
                "machine.disk_gib",
                format!("{} is not between 1 and 65536", self.machine.disk_gib),
            );
        }
        for AddressPool { base, size } in &self.default_address_pools {
            let parts = base
                .split_once('/')
                .and_then(|(ip, prefix)| Some((ip.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?)));
            let fits = parts
                .is_some_and(|(ip, prefix)| prefix <= *size && *size <= if ip.is_ipv4() { 32 } else { 128 });
            if !fits {
                return refuse(
                    "default_address_pools",
                    format!("{base:?} can't be cut into subnets of /{size}"),
                );
            }
        }
        for share in self.files.shares.iter().flatten().chain(&self.files.read_only) {
            if !share.is_absolute() {
                return refuse("files.shares", format!("{:?} is not an absolute path", share.display()));
            }
        }
        for (name, value) in self.network.proxy.variables().filter(|(name, _)| *name != "NO_PROXY") {
            if !value.is_empty() && value.strip_prefix("http://").is_none_or(str::is_empty) {
                // The value may hold a password.
                return refuse("network.proxy", format!("the value for {name} is not an http:// address"));
            }
        }
        for mirror in &self.registry_mirrors {
            let host = mirror.strip_prefix("https://").or_else(|| mirror.strip_prefix("http://"));
            if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
                return refuse(
                    "registry_mirrors",
                    format!("{mirror:?} is not an http:// or https:// address"),
                );
            }
        }
        Ok(())
    }

    /// Writes the settings to `path` so that a crash leaves the old file or the new one, never a mixture.
    ///
    /// # Errors
    /// [`Error::Value`] when a value makes no sense, [`Error::File`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        self.validate()?;
        let mut text = serde_json::to_vec_pretty(self).expect("settings have only string keys");
        text.push(b'\n');
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        replace_file(directory, path, &text).map_err(|source| Error::File {
            action: "write",
            path: path.to_owned(),
            source,
        })
    }
}

fn replace_file(directory: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(".settings-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    // The data must be on disk before the name points at it.
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    std::fs::File::open(directory)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, Error> {
        Settings::parse(Path::new("/x/settings.json"), text.as_bytes())
    }

    #[test]
    fn a_missing_file_and_an_empty_object_give_the_defaults() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Settings::load(&directory.path().join("none.json")).unwrap(), Settings::default());
        let settings = parse("{}").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.machine.disk_gib, 64);
        assert!(settings.network.host_loopback);
        assert_eq!(settings.daemon.idle_stop(), Some(Duration::from_secs(300)));
        assert_eq!(settings.publish_default_ip.to_string(), "0.0.0.0");
    }

    #[cfg(unix)]
    #[test]
    fn home_and_temporary_files_are_shared_unless_the_user_says_otherwise() {
        let home = Path::new("/home/u");
        let usual = Files::default().shares_for(Some(home));
        assert_eq!(usual, [(home.to_owned(), true), (std::env::temp_dir(), true)]);
        let files = parse(r#"{"files":{"shares":["/a","/b"],"read_only":["/b","/c"]}}"#).unwrap().files;
        let expected = [("/a", true), ("/b", false), ("/c", false)].map(|(path, write)| (path.into(), write));
        assert_eq!(files.shares_for(Some(home)), expected);
        assert_eq!(parse(r#"{"files":{"shares":[]}}"#).unwrap().files.shares_for(Some(home)), []);
        let message = parse(r#"{"files":{"shares":["a/b"]}}"#).unwrap_err().to_string();
        assert!(message.contains("/x/settings.json"), "{message}");
    }

    #[test]
    fn zero_idle_seconds_means_never() {
        let settings = parse(r#"{"daemon":{"idle_stop_seconds":0}}"#).unwrap();
        assert_eq!(settings.daemon.idle_stop(), None);
    }

    #[test]
    fn defaults_follow_the_host_within_bounds() {
        let machine = Machine::default();
        assert_eq!((machine.cpus_for(0), machine.cpus_for(4), machine.cpus_for(64)), (1, 4, 8));
        assert_eq!(machine.memory_mib_for(2048), 1024);
        assert_eq!(machine.memory_mib_for(16 * 1024), 4096);
        assert_eq!(machine.memory_mib_for(256 * 1024), 8192);
        let machine = Machine { cpus: Some(3), memory_mib: Some(700), ..machine };
        assert_eq!((machine.cpus_for(1), machine.memory_mib_for(1)), (3, 700));
    }

    #[test]
    fn an_unknown_field_is_refused_by_name_and_file() {
        let message = parse(r#"{"machine":{"cpux":2}}"#).unwrap_err().to_string();
        assert!(
            message.starts_with("settings file /x/settings.json: machine.cpux: unknown field `cpux`"),
            "{message}"
        );
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let message = parse(r#"{"machine":{"cpus":"two"}}"#).unwrap_err().to_string();
        assert!(
            message.starts_with("settings file /x/settings.json: machine.cpus: invalid type"),
            "{message}"
        );
    }

    #[test]
    fn broken_or_doubled_json_is_refused() {
        assert!(parse("{").unwrap_err().to_string().starts_with("settings file /x/settings.json: EOF"));
        assert!(matches!(parse("{} {}"), Err(Error::Syntax { .. })));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for text in [
            r#"{"machine":{"cpus":0}}"#,
            r#"{"machine":{"memory_mib":16}}"#,
            r#"{"machine":{"disk_gib":0}}"#,
            r#"{"default_address_pools":[{"base":"10.0.0.0/8","size":7}]}"#,
            r#"{"default_address_pools":[{"base":"10.0.0.0","size":24}]}"#,
            r#"{"registry_mirrors":["mirror.example"]}"#,
            r#"{"registry_mirrors":["https://"]}"#,
        ] {
            assert!(matches!(parse(text), Err(Error::Invalid { .. })), "{text}");
        }
    }

    #[test]
    fn saving_and_loading_gives_the_same_and_leaves_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/settings.json");
        let mut settings = Settings::default();
        settings.machine.backend = BackendChoice::Native;
        settings.registry_mirrors.push("http://127.0.0.1:5000".into());
        settings.save(&path).unwrap();
        settings.machine.cpus = Some(2);
        settings.save(&path).unwrap();
        assert_eq!(Settings::load(&path).unwrap(), settings);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_save_keeps_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings.json");
        Settings::default().save(&path).unwrap();
        let mut broken = Settings::default();
        broken.machine.disk_gib = 0;
        assert!(broken.save(&path).is_err());
        assert_eq!(Settings::load(&path).unwrap(), Settings::default());
    }

    #[test]
    fn backend_names_parse_back() {
        for choice in [BackendChoice::Auto, BackendChoice::Qemu, BackendChoice::Native] {
            assert_eq!(choice.to_string().parse::<BackendChoice>().unwrap(), choice);
        }
        let message = "xen".parse::<BackendChoice>().unwrap_err().to_string();
        assert_eq!(message, "machine.backend: \"xen\" is not one of auto, qemu, native");
    }
}
