//! What must be there before a container's process is made: sources of mounts, generated files, network, cgroup.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use skiff_network::NetNs;
use skiff_runtime::{Cgroup, RootFs};

use super::Container;
use crate::engine::Engine;
use crate::error::{Code, Error, Result, chain};
use crate::images::image_error;
use crate::network::{Link, Look, RESOLVER, is_user_defined};
use crate::spec::{Share, files, resources};
use crate::state::{Endpoint, MountKind, Record, Status};

/// Where systemd names the servers behind its own.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// A file or directory in a volume. It is held open from here to its mount: a link that a container puts in its place
/// meanwhile leads nowhere else.
fn part_of(volume: &Path, path: &str) -> Result<OwnedFd> {
    let failed = |errno: Errno| {
        let shown = volume.join(path);
        let why = match errno {
            Errno::XDEV | Errno::LOOP => "path concatenation escapes the base directory".to_owned(),
            errno => crate::volumes::words_of(errno),
        };
        Error::new(Code::Internal, format!("cannot access path {}: {why}", shown.display()))
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, volume, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(&root, path, flags, Mode::empty(), stay).map_err(failed)
}

impl Engine {
    /// Makes missing sources of binds, as Docker does, mounts volumes that are mounts, and fills new ones with what the
    /// image has there. Returns the sources that are no paths of this machine: parts of volumes, images, and shared
    /// directories of the host, by destination.
    pub(crate) fn prepare_mounts(&self, record: &Record) -> Result<HashMap<String, OwnedFd>> {
        let mut parts = HashMap::new();
        for mount in &record.mounts {
            let source = Path::new(&mount.source);
            match mount.kind {
                MountKind::Bind => {
                    if let Some(source) = self.open_source(mount)? {
                        parts.insert(mount.destination.clone(), source);
                    }
                }
                MountKind::Volume => {
                    let name = mount.name.as_deref().unwrap_or("");
                    let device = self.open_device(name)?;
                    self.0.volumes.hold(name, &record.id, device.as_ref())?;
                    if mount.copy {
                        let lower = self.lower(record)?;
                        crate::copy_up::copy_up(&lower, &mount.destination, source)?;
                    }
                    if let Some(path) = &mount.subpath {
                        parts.insert(mount.destination.clone(), part_of(source, path)?);
                    }
                }
                MountKind::Image => {
                    let lower = self.0.config.images.lower_dirs(&mount.source);
                    let lower = lower.map_err(|error| image_error(&error))?;
                    let part = crate::files::image_tree(&lower, mount.subpath.as_deref())?;
                    parts.insert(mount.destination.clone(), part);
                }
                MountKind::Tmpfs => {}
            }
        }
        Ok(parts)
    }

    /// Lets go of the volumes that [`prepare_mounts`](Self::prepare_mounts) took.
    pub(crate) fn release_mounts(&self, record: &Record) {
        for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            self.0.volumes.release(mount.name.as_deref().unwrap_or(""), &record.id);
        }
    }

    pub(crate) fn lower(&self, record: &Record) -> Result<Vec<PathBuf>> {
        self.0.config.images.lower_dirs(&record.image_id).map_err(|error| image_error(&error))
    }

    pub(crate) fn rootfs(&self, record: &Record) -> Result<RootFs> {
        let dir = self.0.config.container(&record.id);
        Ok(RootFs::Overlay { lower: self.lower(record)?, upper: dir.join("upper"), work: dir.join("work") })
    }

    /// Writes the files that are bound into the container.
    pub(crate) fn write_files(&self, record: &Record) -> Result<()> {
        let (config, host) = (&record.config, &record.host_config);
        let mode = host.network_mode.as_deref().unwrap_or("");
        if mode.starts_with("container:") {
            return Ok(());
        }
        let dir = self.0.config.container(&record.id);
        let hostname = config.hostname.as_deref().unwrap_or("");
        self.write_hosts(record)?;
        self.write_resolv_conf(record)?;
        let path = dir.join("hostname");
        std::fs::write(&path, format!("{hostname}\n")).map_err(|error| Error::file("write", &path, &error))
    }

    /// The container whose network another one shares, if it does.
    pub(crate) fn network_owner(&self, record: &Record) -> Option<Arc<Container>> {
        let other = record.host_config.network_mode.as_deref()?.strip_prefix("container:")?;
        self.container(other).ok().filter(|other| other.id != record.id)
    }

    /// Where the files are that say who and where a container is: those of the one whose network it shares, as with
    /// dockerd, so that both see the same names.
    pub(crate) fn network_files(&self, record: &Record) -> PathBuf {
        let mut owners = vec![record.id.clone()];
        let mut next = self.network_owner(record);
        // The other one may share a third one's. Two that name each other never run, but can be looked at.
        while let Some(owner) = next.filter(|owner| !owners.contains(&owner.id)) {
            owners.push(owner.id.clone());
            next = self.network_owner(&owner.record());
        }
        self.0.config.container(owners.last().unwrap_or(&record.id))
    }

    fn write_hosts(&self, record: &Record) -> Result<()> {
        let extra = record.host_config.extra_hosts.as_deref().unwrap_or_default();
        let shares = record.host_config.network_mode.as_deref() == Some("host");
        let text = if shares && extra.is_empty() {
            std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| files::hosts(&[], &[], None))
        } else {
            // Whom it is linked to comes first, as with dockerd.
            let mut lines: Vec<String> = self.links(record)?.iter().map(Link::host_line).collect();
            lines.extend(record.endpoints.iter().map(|endpoint| own_lines(record, endpoint)));
            lines.dedup();
            files::hosts(&lines, extra, self.0.networks.host_gateway())
        };
        let path = self.0.config.container(&record.id).join("hosts");
        std::fs::write(&path, text).map_err(|error| Error::file("write", &path, &error))
    }

    /// Adds the lines of an endpoint to a running container's `/etc/hosts`. The file is bound into the container: it keeps
    /// its identity, and what was written there by others.
    pub(crate) fn add_host(&self, record: &Record, endpoint: &Endpoint) -> Result<()> {
        self.edit_hosts(record, |text| text.push_str(&own_lines(record, endpoint)))
    }

    /// Takes the lines of an endpoint from a running container's `/etc/hosts`.
    pub(crate) fn remove_host(&self, record: &Record, endpoint: &Endpoint) -> Result<()> {
        let line = own_lines(record, endpoint);
        self.edit_hosts(record, |text| *text = text.replacen(&line, "", 1))
    }

    fn edit_hosts(&self, record: &Record, edit: impl FnOnce(&mut String)) -> Result<()> {
        let path = self.0.config.container(&record.id).join("hosts");
        let mut text = std::fs::read_to_string(&path).map_err(|error| Error::file("read", &path, &error))?;
        edit(&mut text);
        std::fs::write(&path, text).map_err(|error| Error::file("write", &path, &error))
    }

    /// Writes the container's `/etc/resolv.conf`.
    pub(crate) fn write_resolv_conf(&self, record: &Record) -> Result<()> {
        let host = &record.host_config;
        let own_network = host.network_mode.as_deref() != Some("host");
        let inherited = if own_network {
            files::inherited(&self.0.config.resolv_conf, Path::new(BEHIND_STUB))
        } else {
            std::fs::read_to_string(&self.0.config.resolv_conf).unwrap_or_default()
        };
        let empty = Vec::new();
        let dns = files::Dns {
            servers: host.dns.as_ref().unwrap_or(&empty),
            search: host.dns_search.as_ref().unwrap_or(&empty),
            options: host.dns_options.as_ref().unwrap_or(&empty),
        };
        let text = if self.has_resolver(record) {
            files::resolv_conf_of_resolver(&inherited, &dns, RESOLVER.into())
        } else {
            files::resolv_conf(&inherited, &dns, own_network, &self.0.config.fallback_dns)
        };
        let path = self.0.config.container(&record.id).join("resolv.conf");
        std::fs::write(&path, text).map_err(|error| Error::file("write", &path, &error))
    }

    /// Whether the container asks the engine for names: on user-defined networks it does.
    pub(crate) fn has_resolver(&self, record: &Record) -> bool {
        let networks = record.networking.endpoints_config.iter().flatten();
        !record.endpoints.is_empty() && networks.into_iter().any(|(name, _)| is_user_defined(name))
    }

    /// The ids of the networks that the container is about to be on, by name.
    pub(super) fn network_ids(&self, record: &Record) -> Result<HashMap<String, String>> {
        let attachments = self.attachments(record)?;
        Ok(attachments
            .into_iter()
            .map(|(network, _)| (network.record().name.clone(), network.record().id.clone()))
            .collect())
    }

    /// The network namespace to join; `None` is the engine's own.
    pub(crate) fn network_namespace(&self, record: &Record) -> Result<Option<NetNs>> {
        let failed =
            |error: skiff_network::Error| Error::internal("failed to set up container networking", &error);
        let mode = record.host_config.network_mode.as_deref().unwrap_or("");
        if mode == "host" {
            return Ok(None);
        }
        if let Some(other) = mode.strip_prefix("container:") {
            if self.container(other).is_ok_and(|other| other.id == record.id) {
                return Err(Error::new(Code::Internal, "cannot join own network"));
            }
            self.shared_process(other, "network")?;
            // It may have ended between the two.
            let gone = |error: Error| match error.code {
                Code::Conflict => {
                    Error::conflict(format!("cannot join network of a non running container: {other}"))
                }
                _ => error,
            };
            return self.container(other)?.netns().map(Some).map_err(gone);
        }
        let netns = self.0.networks.namespace().map_err(failed)?;
        for endpoint in &record.endpoints {
            self.network_of(endpoint)?.attach(endpoint, netns.as_fd())?;
            self.0.networks.want_outside();
        }
        if !record.endpoints.is_empty() {
            let engine = self.clone();
            self.0.runtime.spawn_blocking(move || engine.0.networks.look_beside(Look::Sometimes));
        }
        Ok(Some(netns))
    }

    pub(super) fn share(&self, mode: Option<&str>, kind: &str) -> Result<Share> {
        match mode.unwrap_or("") {
            "host" => Ok(Share::Host),
            mode => match mode.strip_prefix("container:") {
                Some(other) => self.shared_process(other, kind).map(|(pid, _)| Share::Process(pid)),
                None => Ok(Share::Own),
            },
        }
    }

    pub(super) fn shared_process(&self, other: &str, kind: &str) -> Result<(i32, Arc<OwnedFd>)> {
        let container = self.container(other)?;
        let (record, id) = (container.record(), &container.id);
        let cannot = match kind {
            "IPC" => format!("can't join IPC of container {id}: "),
            _ => String::new(),
        };
        if record.state.status == Status::Restarting {
            return Err(Error::conflict(format!(
                "{cannot}container {id} is restarting, wait until the container is running"
            )));
        }
        let process = container.process().map_err(|_| {
            Error::conflict(match kind {
                "IPC" | "PID" => format!("failed to join {kind} namespace: container {id} is not running"),
                kind => format!("cannot join {kind} of a non running container: {id}"),
            })
        })?;
        if kind == "IPC" && matches!(record.host_config.ipc_mode.as_deref(), Some("private" | "none")) {
            return Err(Error::conflict(format!(
                "{cannot}non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            )));
        }
        Ok(process)
    }

    pub(crate) fn make_cgroup(&self, record: &Record) -> Result<Option<Arc<Cgroup>>> {
        // Devices that are not there are told of also where nothing is limited.
        let resources = resources::of(&record.host_config)?;
        let Some(parent) = self.cgroup_parent(record) else { return Ok(None) };
        let failed =
            |error: skiff_runtime::Error| Error::internal("failed to set up the container's cgroup", &error);
        let rules = crate::spec::devices::rules(&record.host_config)?;
        let cgroup = Cgroup::create(&parent, &record.id).map_err(failed);
        if let (Ok(cgroup), Some(rules)) = (&cgroup, rules)
            && let Err(error) = cgroup.restrict_devices(&rules)
        {
            // A kernel without such programs, or an engine that may not use them: as it is without cgroups.
            tracing::warn!(error = chain(&error), container = record.id, "devices are not restricted");
        }
        if !self.0.limits {
            // Only for pausing: a container can do without.
            return Ok(match cgroup {
                Ok(cgroup) => Some(Arc::new(cgroup)),
                Err(error) => {
                    tracing::warn!(%error, container = record.id, "container has no cgroup");
                    None
                }
            });
        }
        let cgroup = cgroup?;
        cgroup.apply(&resources).map_err(failed)?;
        Ok(Some(Arc::new(cgroup)))
    }

    /// The directory of cgroups in which a container has its own; `None` on a machine without.
    pub(crate) fn cgroup_parent(&self, record: &Record) -> Option<PathBuf> {
        let parent = self.0.config.cgroup_parent.as_deref().filter(|_| self.0.cgroups)?;
        let wanted = record.host_config.cgroup_parent.as_deref().filter(|wanted| !wanted.is_empty());
        let (Some(wanted), Some(root)) = (wanted, parent.parent()) else { return Some(parent.to_owned()) };
        // A path in the hierarchy, which it must not leave.
        let inside = Path::new(wanted).components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        Some(root.join(inside.collect::<PathBuf>()))
    }
}

/// The lines of `/etc/hosts` that an endpoint adds, one for each of its addresses.
fn own_lines(record: &Record, endpoint: &Endpoint) -> String {
    let hostname = record.config.hostname.as_deref().unwrap_or("");
    let domain = record.config.domainname.as_deref().unwrap_or("");
    endpoint.ips().map(|ip| files::own_line(ip, hostname, domain)).collect()
}
