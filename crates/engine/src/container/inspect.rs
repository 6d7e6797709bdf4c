//! `inspect`.

use std::collections::HashMap;

use bollard_stubs::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, DriverData, EndpointSettings,
    MountPoint, NetworkSettings, PortMap,
};

use super::mounts::is_at;
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::health::Health;
use crate::network::{dns_names, is_user_defined};
use crate::state::{Mount, MountKind, Record, State, Status};
use crate::volumes::directory_size;

impl Engine {
    /// Describes a container; `size` also measures it.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn inspect_container(&self, id: &str, size: bool) -> Result<ContainerInspectResponse> {
        let container = self.container(id)?;
        let record = container.record();
        let sizes = if size { Some(self.sizes(&record).await?) } else { None };
        let dir = self.0.config.container(&record.id);
        let path = |name: &str| dir.join(name).display().to_string();
        let shared = self.network_files(&record);
        let network_file = |name: &str| shared.join(name).display().to_string();
        let execs = self.0.execs.of(&record.id);
        let mut host = record.host_config.clone();
        host.links = self.links_model(&record);
        Ok(ContainerInspectResponse {
            id: Some(record.id.clone()),
            created: Some(clock::rfc3339(Some(record.created))),
            path: Some(record.path.clone()),
            args: Some(record.args.clone()),
            state: Some(state_model(&record.state)),
            image: Some(record.image_id.clone()),
            resolv_conf_path: Some(network_file("resolv.conf")),
            hostname_path: Some(network_file("hostname")),
            hosts_path: Some(network_file("hosts")),
            log_path: Some(match host.log_config.as_ref().and_then(|log| log.typ.as_deref()) {
                Some("json-file") => path("log"),
                _ => String::new(),
            }),
            name: Some(format!("/{}", record.name)),
            restart_count: Some(record.restart_count),
            driver: Some("overlay2".to_owned()),
            platform: Some("linux".to_owned()),
            mount_label: Some(String::new()),
            process_label: Some(String::new()),
            app_armor_profile: Some(String::new()),
            exec_ids: (!execs.is_empty()).then_some(execs),
            host_config: Some(host),
            graph_driver: Some(self.graph_driver(&record)),
            size_rw: sizes.map(|(own, _)| own),
            size_root_fs: sizes.map(|(own, image)| own + image),
            mounts: Some(mount_models(&record)),
            config: Some(record.config.clone()),
            network_settings: Some(self.network_settings(&record)),
            ..ContainerInspectResponse::default()
        })
    }

    /// Returns the MAC address that a container was asked to have in its main network.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn wanted_mac_address(&self, id: &str) -> Result<Option<String>> {
        let record = self.container(id)?.record();
        let network = match record.host_config.network_mode.as_deref().unwrap_or_default() {
            "" | "default" => "bridge",
            name => name,
        };
        let endpoint = record.networking.endpoints_config.as_ref().and_then(|all| all.get(network));
        Ok(endpoint.and_then(|given| given.mac_address.clone()).filter(|address| !address.is_empty()))
    }

    /// Bytes that the container has written, and bytes of its image.
    pub(super) async fn sizes(&self, record: &Record) -> Result<(i64, i64)> {
        let upper = self.0.config.container(&record.id).join("upper");
        let own = blocking(move || Ok(directory_size(&upper))).await?;
        let image = self.0.config.images.get(&record.image_id).map_or(0, |image| image.size);
        Ok((i64::try_from(own).unwrap_or(i64::MAX), i64::try_from(image).unwrap_or(i64::MAX)))
    }

    fn graph_driver(&self, record: &Record) -> DriverData {
        let dir = self.0.config.container(&record.id);
        let lower = self.0.config.images.lower_dirs(&record.image_id).unwrap_or_default();
        let lower: Vec<_> = lower.iter().map(|dir| dir.display().to_string()).collect();
        let data = HashMap::from([
            ("ID".to_owned(), record.id.clone()),
            ("LowerDir".to_owned(), lower.join(":")),
            // It is mounted in the container's own namespace only, which its process leads to.
            (
                "MergedDir".to_owned(),
                match record.state.is_running() && record.state.pid > 0 {
                    true => format!("/proc/{}/root", record.state.pid),
                    false => dir.join("merged").display().to_string(),
                },
            ),
            ("UpperDir".to_owned(), dir.join("upper").display().to_string()),
            ("WorkDir".to_owned(), dir.join("work").display().to_string()),
        ]);
        DriverData { name: "overlay2".to_owned(), data }
    }

    fn network_settings(&self, record: &Record) -> NetworkSettings {
        NetworkSettings {
            // A namespace has no name of its own here, and clients only compare these: the container's, the other way round.
            sandbox_id: Some(if record.state.is_running() {
                record.id.chars().rev().collect()
            } else {
                String::new()
            }),
            // Nor has it a file: it lives with the container's processes.
            sandbox_key: Some(if record.state.is_running() && record.state.pid > 0 {
                format!("/proc/{}/ns/net", record.state.pid)
            } else {
                String::new()
            }),
            ports: Some(ports_model(record)),
            networks: Some(self.networks_model(record)),
        }
    }

    pub(super) fn networks_model(&self, record: &Record) -> HashMap<String, EndpointSettings> {
        let all = record.networking.endpoints_config.iter().flatten();
        all.map(|(name, given)| {
            let mut settings = given.clone();
            let network = self.0.networks.find(name).ok();
            if settings.network_id.as_deref().unwrap_or("").is_empty() {
                settings.network_id = network.map(|network| network.record().id.clone());
            }
            let endpoint = record
                .endpoints
                .iter()
                .find(|endpoint| settings.network_id.as_ref() == Some(&endpoint.network));
            let text = |value: Option<String>| Some(value.unwrap_or_default());
            settings.endpoint_id = text(endpoint.map(|endpoint| endpoint.id.clone()));
            settings.ip_address = text(endpoint.and_then(|endpoint| endpoint.ip.map(|ip| ip.to_string())));
            settings.ip_prefix_len = Some(endpoint.map_or(0, |endpoint| i64::from(endpoint.prefix_len)));
            settings.global_ipv6_address =
                text(endpoint.and_then(|endpoint| endpoint.ip6.map(|ip| ip.to_string())));
            settings.global_ipv6_prefix_len =
                Some(endpoint.map_or(0, |endpoint| i64::from(endpoint.prefix_len6)));
            settings.ipv6_gateway =
                text(endpoint.and_then(|endpoint| endpoint.gateway6.map(|ip| ip.to_string())));
            settings.gateway = text(endpoint.and_then(|endpoint| endpoint.gateway.map(|ip| ip.to_string())));
            settings.mac_address =
                text(endpoint.map(|endpoint| endpoint.mac.clone()).or(settings.mac_address));
            if is_user_defined(name) {
                settings.dns_names = Some(dns_names(record, Some(given)));
            }
            (name.clone(), settings)
        })
        .collect()
    }
}

fn state_model(state: &State) -> ContainerState {
    let status = match state.status {
        Status::Created => ContainerStateStatusEnum::CREATED,
        Status::Running => ContainerStateStatusEnum::RUNNING,
        Status::Paused => ContainerStateStatusEnum::PAUSED,
        Status::Restarting => ContainerStateStatusEnum::RESTARTING,
        Status::Exited => ContainerStateStatusEnum::EXITED,
        Status::Dead => ContainerStateStatusEnum::DEAD,
    };
    ContainerState {
        status: Some(status),
        running: Some(state.is_running() || state.status == Status::Restarting),
        paused: Some(state.status == Status::Paused),
        restarting: Some(state.status == Status::Restarting),
        oom_killed: Some(state.oom_killed),
        dead: Some(state.status == Status::Dead),
        pid: Some(state.pid.into()),
        exit_code: Some(state.exit_code.into()),
        error: Some(state.error.clone()),
        started_at: Some(clock::rfc3339(state.started_at)),
        finished_at: Some(clock::rfc3339(state.finished_at)),
        health: state.health.as_ref().map(Health::model),
    }
}

/// The exposed ports with their bindings, while the container runs.
fn ports_model(record: &Record) -> PortMap {
    if !record.state.is_running() || !record.offers_ports() {
        return PortMap::new();
    }
    let mut ports = record.ports.clone();
    for port in record.config.exposed_ports.iter().flatten() {
        ports.entry(port.clone()).or_insert(None);
    }
    ports
}

/// The mounts as the API shows them. Docker lists `--tmpfs` only in the host configuration.
pub(super) fn mount_models(record: &Record) -> Vec<MountPoint> {
    let is_option = |mount: &Mount| {
        mount.kind == MountKind::Tmpfs
            && record.host_config.tmpfs.iter().flatten().any(|(path, _)| is_at(mount, path))
    };
    record.mounts.iter().filter(|mount| !is_option(mount)).map(mount_model).collect()
}

fn mount_model(mount: &Mount) -> MountPoint {
    let kind = match mount.kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
    };
    MountPoint {
        typ: Some(kind.to_owned()),
        name: mount.name.clone(),
        source: Some(mount.source.clone()),
        destination: Some(mount.destination.clone()),
        driver: (mount.kind == MountKind::Volume).then(|| "local".to_owned()),
        mode: Some(mount.mode.clone()),
        rw: Some(mount.writable),
        propagation: Some(mount.propagation.clone()),
    }
}
