//! `create`: from a request and an image to a record and its directories.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerConfig, ContainerCreateResponse, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, RestartPolicy, RestartPolicyNameEnum,
};

use super::{Container, limits, mounts, scaffold, validate};
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::health;
use crate::images::image_error;
use crate::log::{Log, options};
use crate::names;
use crate::network::network_name;
use crate::options::CreateContainer;
use crate::signals;
use crate::spec::resources;
use crate::state::{Mount, MountKind, Op, Record, State, Table, VolumeRecord};
use crate::volumes::Outcome;

/// Docker's size of `/dev/shm`.
const SHM: i64 = 64 << 20;

impl Engine {
    /// Creates a container.
    ///
    /// # Errors
    /// When the image is not here, the name is taken, or the request makes no sense: nothing is left behind then.
    pub async fn create_container(&self, request: CreateContainer) -> Result<ContainerCreateResponse> {
        let engine = self.clone();
        blocking(move || engine.create_blocking(request)).await
    }

    fn create_blocking(&self, request: CreateContainer) -> Result<ContainerCreateResponse> {
        let CreateContainer { name, platform, body } = request;
        let mut config: ContainerConfig = project(&body)?;
        let mut host = body.host_config.unwrap_or_default();
        let networking = body.networking_config.unwrap_or_default();
        let reference = config.image.clone().unwrap_or_default();
        if reference.is_empty() {
            return Err(Error::invalid("no image specified"));
        }
        validate::check_request(&config, &host)?;
        let image = self.0.config.images.get(&reference).map_err(|error| image_error(&error))?;
        check_platform(&image, &reference, platform.as_deref())?;
        validate::check_own(&config)?;
        if let Some(ports) = &mut config.exposed_ports {
            let all: Result<Vec<Vec<String>>> = ports.iter().map(|port| validate::exposed(port)).collect();
            *ports = all?.concat();
        }
        merge_image(&mut config, &image);
        let (path, args) = command(&config)?;
        let mut warnings = self.defaults(&mut config, &mut host)?;
        warnings.extend(limits::discarded(&mut host));
        validate::check(&config, &host)?;
        self.name_others_by_id(&mut host)?;
        let mut all_mounts = mounts::all(&config, &host, &|name| self.0.volumes.data(name))?;
        check_volume_driver(&host, &all_mounts)?;
        self.volumes_from(&host, &mut all_mounts)?;
        for mount in all_mounts.iter_mut().filter(|mount| mount.kind == MountKind::Image) {
            let image = self.0.config.images.get(&mount.source).map_err(|error| image_error(&error))?;
            mount.source = image.id;
        }
        self.check_sources(&all_mounts)?;

        let id = names::random_id();
        let mut networking = networking;
        self.settle_links(&mut host, &mut networking)?;
        let mode = host.network_mode.as_deref().unwrap_or("");
        let networking = self.0.networks.settle(mode, networking)?;
        let name = self.take_name(name.as_deref(), &id)?;
        if config.hostname.as_deref().is_none_or(str::is_empty) {
            config.hostname = Some(match host.network_mode.as_deref() {
                Some("host") => self.0.config.name.clone(),
                _ => names::short(&id).to_owned(),
            });
        }
        let record = Record {
            id: id.clone(),
            name: name.clone(),
            created: clock::now_ns(),
            image_id: image.id.clone(),
            path,
            args,
            config,
            host_config: host,
            networking,
            mounts: all_mounts,
            state: State::default(),
            endpoints: Vec::new(),
            ports: Default::default(),
            restart_count: 0,
            stopped_by_user: false,
            before: None,
        };
        let made = self.make(&record);
        let container = match made {
            Ok(container) => container,
            Err(error) => {
                self.0.registry.release(&name);
                remove_directory(&self.0.config.container(&id));
                return Err(error);
            }
        };
        self.0.registry.insert(container);
        self.container_event(&record, "create", &[]);
        Ok(ContainerCreateResponse { id, warnings })
    }

    /// Makes directories and volumes, then commits: a kill before the commit leaves only what recovery sweeps.
    fn make(&self, record: &Record) -> Result<Arc<Container>> {
        let dir = self.0.config.container(&record.id);
        let private = |path: &std::path::Path| {
            std::fs::DirBuilder::new()
                .mode(0o710)
                .create(path)
                .map_err(|error| Error::file("create", path, &error))
        };
        private(&dir)?;
        for name in ["upper", "work"] {
            private(&dir.join(name))?;
        }
        // The root directory of the container is this one: everybody may enter it.
        let upper = dir.join("upper");
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755))
            .map_err(|error| Error::file("set permissions of", &upper, &error))?;
        scaffold::make(&upper, &self.lower(record)?)?;
        for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            let name = mount.name.clone().unwrap_or_default();
            let volume = VolumeRecord {
                name,
                created: clock::now_ns(),
                labels: mount.volume_labels.clone(),
                options: mount.volume_options.clone(),
                anonymous: mount.anonymous,
            };
            let (volume, outcome) = self.0.volumes.ensure(volume)?;
            if outcome == Outcome::Made {
                self.volume_event(&volume.name, "create", &[]);
            }
        }
        self.0.database.commit([Op::put(Table::Containers, &record.id, record)])?;
        Ok(self.hold(record.clone()))
    }

    /// Makes the container that the engine holds for a record.
    pub(crate) fn hold(&self, record: Record) -> Arc<Container> {
        // Checked at the creation. A record of another version must not keep the engine from starting.
        let limit = options::limit(record.host_config.log_config.as_ref()).unwrap_or_else(|error| {
            tracing::warn!(%error, container = record.id, "log options are not understood");
            None
        });
        let dir = self.0.config.container(&record.id).join("log");
        Container::new(record, Log::new(dir, limit))
    }

    fn take_name(&self, wanted: Option<&str>, id: &str) -> Result<String> {
        if let Some(name) = wanted.filter(|name| !name.is_empty()) {
            let name = names::validate(name)?;
            self.0.registry.reserve(name, id)?;
            return Ok(name.to_owned());
        }
        for attempt in 0.. {
            let name = names::random(attempt);
            if self.0.registry.reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
        unreachable!("the attempts are endless")
    }

    /// Fills in Docker's defaults; returns warnings about what this machine can't do.
    fn defaults(&self, config: &mut ContainerConfig, host: &mut HostConfig) -> Result<Vec<String>> {
        let mut warnings = if self.0.limits { Vec::new() } else { resources::warnings(host) };
        let mode = host.network_mode.get_or_insert_default();
        *mode = network_name(mode).to_owned();
        if config.network_disabled == Some(true) {
            *mode = "none".to_owned();
        }
        // A name of a built-in network's id is that network.
        if let Some((name, _)) = self.0.facts.networks.iter().find(|(_, id)| **id == *mode) {
            mode.clone_from(name);
        }
        if mode == "host" && host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()) {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
        }
        host.ipc_mode.get_or_insert_default();
        if host.ipc_mode.as_deref() == Some("") {
            host.ipc_mode = Some("private".to_owned());
        }
        if host.memory.unwrap_or(0) > 0 && host.memory_swap.unwrap_or(0) == 0 {
            host.memory_swap = host.memory.map(|limit| limit.saturating_mul(2));
        }
        if host.shm_size.unwrap_or(0) == 0 {
            host.shm_size = Some(SHM);
        }
        let system = skiff_runtime::default_spec().linux().clone().unwrap_or_default();
        if host.privileged == Some(true) {
            (host.masked_paths, host.readonly_paths) = (None, None);
        } else {
            host.masked_paths = host.masked_paths.take().or_else(|| system.masked_paths().clone());
            host.readonly_paths = host.readonly_paths.take().or_else(|| system.readonly_paths().clone());
        }
        let labelled =
            host.security_opt.iter().flatten().any(|option| option.split(['=', ':']).next() == Some("label"));
        let bare = host.privileged == Some(true)
            || [&host.ipc_mode, &host.pid_mode].iter().any(|mode| mode.as_deref() == Some("host"));
        if bare && !labelled {
            host.security_opt.get_or_insert_default().push("label=disable".to_owned());
        }
        if matches!(host.cgroupns_mode, None | Some(HostConfigCgroupnsModeEnum::EMPTY)) {
            let private = host.privileged != Some(true);
            host.cgroupns_mode = Some(if private {
                HostConfigCgroupnsModeEnum::PRIVATE
            } else {
                HostConfigCgroupnsModeEnum::HOST
            });
        }
        if host.runtime.as_deref().unwrap_or("").is_empty() {
            host.runtime = Some("runc".to_owned());
        }
        let policy = host.restart_policy.get_or_insert_with(RestartPolicy::default);
        if matches!(policy.name, None | Some(RestartPolicyNameEnum::EMPTY)) {
            policy.name = Some(RestartPolicyNameEnum::NO);
        }
        policy.maximum_retry_count.get_or_insert(0);
        let log = host.log_config.get_or_insert_with(HostConfigLogConfig::default);
        if log.typ.as_deref().unwrap_or("").is_empty() {
            log.typ = Some("json-file".to_owned());
        }
        log.config.get_or_insert_default();
        for port in host.port_bindings.iter().flatten() {
            validate::parse_port(port.0)?;
            for binding in port.1.iter().flatten() {
                validate::parse_host_port(binding.host_port.as_deref().unwrap_or(""))?;
                let ip = binding.host_ip.as_deref().unwrap_or("");
                if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
                    return Err(Error::invalid(format!("invalid IP address: {ip}")));
                }
            }
            let exposed = config.exposed_ports.get_or_insert_default();
            let named = if port.0.contains('/') { port.0.clone() } else { format!("{}/tcp", port.0) };
            if !exposed.contains(&named) {
                exposed.push(named);
            }
        }
        if config.open_stdin == Some(true) && config.attach_stdin == Some(true) && config.stdin_once.is_none()
        {
            config.stdin_once = Some(false);
        }
        Ok(warnings)
    }

    /// Finds the containers whose namespaces are shared, and names them by id: they may be renamed.
    fn name_others_by_id(&self, host: &mut HostConfig) -> Result<()> {
        for mode in [&mut host.ipc_mode, &mut host.pid_mode].into_iter().flatten() {
            if let Some(other) = mode.strip_prefix("container:") {
                // Not as a 404, which clients take for a missing image.
                let other = self.container(other).map_err(|error| Error::invalid(error.message))?;
                *mode = format!("container:{}", other.id);
            }
        }
        if let Some(mode) = &mut host.network_mode
            && let Some(other) = mode.strip_prefix("container:")
        {
            if other.is_empty() {
                return Err(Error::invalid(
                    "Invalid network mode: invalid container format container:<name|id>",
                ));
            }
            // One that is not there is told at the start, as with a network.
            if let Ok(other) = self.container(other) {
                *mode = format!("container:{}", other.id);
            }
        }
        Ok(())
        // An unknown network is told at the start, as dockerd does: clients take a 404 of the creation for a missing
        // image and would pull it.
    }

    /// Takes over the mounts of other containers.
    fn volumes_from(&self, host: &HostConfig, mounts: &mut Vec<Mount>) -> Result<()> {
        for text in host.volumes_from.iter().flatten() {
            if text.is_empty() {
                return Err(Error::invalid("volumes-from specification cannot be an empty string"));
            }
            let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
            if !mode.split(',').all(|part| matches!(part, "ro" | "rw" | "z" | "Z" | "nocopy")) {
                return Err(Error::invalid(format!("invalid mode: {mode}")));
            }
            // Not as a 404, which clients take for a missing image.
            let other = self.container(name).map_err(|error| Error::invalid(error.message))?.record();
            for mount in other.mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs) {
                if !mounts.iter().any(|have| have.destination == mount.destination) {
                    let mut mount = mount.clone();
                    mount.writable &= !mode.split(',').any(|part| part == "ro");
                    mount.copy = false;
                    mounts.push(mount);
                }
            }
        }
        Ok(())
    }
}

/// The part of the request that `inspect` shows as `Config`.
fn project(body: &bollard_stubs::models::ContainerCreateBody) -> Result<ContainerConfig> {
    let mut body = body.clone();
    (body.host_config, body.networking_config) = (None, None);
    let value = serde_json::to_value(&body).map_err(|error| Error::internal("read the request", &error))?;
    serde_json::from_value(value).map_err(|error| Error::internal("read the request", &error))
}

/// Whether the driver of the volumes that binds and the image ask for is there.
fn check_volume_driver(host: &HostConfig, mounts: &[Mount]) -> Result<()> {
    let volume = mounts.iter().find(|mount| mount.kind == MountKind::Volume && !mount.strict);
    let name = volume.and_then(|mount| mount.name.as_deref());
    name.map_or(Ok(()), |name| crate::volumes::check_new(name, host.volume_driver.as_deref(), None))
}

fn check_platform(image: &skiff_images::Image, reference: &str, platform: Option<&str>) -> Result<()> {
    let Some(platform) = platform.filter(|platform| !platform.is_empty()) else { return Ok(()) };
    let wanted: skiff_images::Platform = platform.parse().map_err(|error| image_error(&error))?;
    if wanted.os == image.os && wanted.architecture == image.architecture {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {reference} was found but does not match the specified platform: wanted {wanted}, \
         actual: {}/{}",
        image.os, image.architecture
    )))
}

/// Fills in what the image says and the user didn't.
fn merge_image(config: &mut ContainerConfig, image: &skiff_images::Image) {
    let raw = &image.raw_config["config"];
    let text = |key: &str| raw[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let list = |key: &str| -> Option<Vec<String>> {
        let items = raw[key].as_array()?;
        Some(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
    };
    let keys = |key: &str| -> Vec<String> {
        raw[key].as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
    };
    let empty = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    if empty(&config.user) {
        config.user = text("User");
    }
    if empty(&config.working_dir) {
        config.working_dir = text("WorkingDir");
    }
    if empty(&config.stop_signal) {
        config.stop_signal = text("StopSignal").filter(|signal| signals::parse(signal).is_ok());
    }
    config.env =
        Some(merge_image_env(config.env.take().unwrap_or_default(), list("Env").unwrap_or_default()));
    for (field, key) in [(&mut config.exposed_ports, "ExposedPorts"), (&mut config.volumes, "Volumes")] {
        let mut merged = field.take().unwrap_or_default();
        let sane = |item: &String| key != "ExposedPorts" || validate::parse_port(item).is_ok();
        let own: Vec<_> = keys(key).into_iter().filter(|item| !merged.contains(item) && sane(item)).collect();
        merged.extend(own);
        *field = (!merged.is_empty()).then_some(merged);
    }
    let mut labels = image.labels.clone();
    labels.extend(config.labels.take().unwrap_or_default());
    config.labels = Some(labels);
    // The image's command is for the image's entry point: who brings an own one brings both.
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd = list("Cmd");
        }
        if config.entrypoint.is_none() {
            config.entrypoint = list("Entrypoint");
        }
    }
    // `--entrypoint ""` arrives as one empty string and means none.
    config.entrypoint.take_if(|words| *words == [""]);
    if config.shell.is_none() {
        config.shell = list("Shell");
    }
    let image_health: Option<HealthConfig> = serde_json::from_value(raw["Healthcheck"].clone()).ok();
    // What makes no sense in an image is no reason to refuse its containers; Docker does not look at it either.
    let image_health = image_health.filter(|health| health::check(health).is_ok());
    match (&mut config.healthcheck, image_health) {
        (None, health) => config.healthcheck = health,
        (Some(own), Some(health)) => {
            if own.test.as_ref().is_none_or(Vec::is_empty) {
                own.test = health.test;
            }
            let fill = |own: &mut Option<i64>, image: Option<i64>| {
                if own.unwrap_or(0) == 0 {
                    *own = image;
                }
            };
            fill(&mut own.interval, health.interval);
            fill(&mut own.timeout, health.timeout);
            fill(&mut own.start_period, health.start_period);
            fill(&mut own.start_interval, health.start_interval);
            fill(&mut own.retries, health.retries);
        }
        (Some(_), None) => {}
    }
}

/// Adds the image's variables after the user's own, as dockerd does. An own name without `=` stays in the list, where
/// it keeps the image's variable away.
fn merge_image_env(mut own: Vec<String>, image: Vec<String>) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or(entry).to_owned();
    let names: Vec<_> = own.iter().map(|entry| name(entry)).collect();
    own.extend(image.into_iter().filter(|entry| !names.contains(&name(entry))));
    own
}

fn command(config: &ContainerConfig) -> Result<(String, Vec<String>)> {
    let mut words = config.entrypoint.iter().chain(&config.cmd).flatten().cloned();
    match words.next() {
        Some(path) => Ok((path, words.collect())),
        None => Err(Error::invalid("no command specified")),
    }
}

/// Removes a container's directory; a failure is for the log, recovery tries again.
pub(super) fn remove_directory(dir: &std::path::Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %dir.display(), "directory can't be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_variables_come_before_the_images_and_one_without_a_value_is_kept() {
        let owned = |list: &[&str]| list.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
        let merged = merge_image_env(owned(&["B=own", "GONE", "NEW="]), owned(&["A=1", "B=2", "GONE=3"]));
        assert_eq!(merged, owned(&["B=own", "GONE", "NEW=", "A=1"]));
    }
}
