//! Containers and execs.

use std::sync::LazyLock;

use bollard_stubs::models::{
    ContainerPruneResponse, ContainerStatsResponse, ContainerSummary, ContainerTopResponse,
    ExecInspectResponse,
};
use serde_json::{Map, Value, json};

use super::{ZERO_TIME, elements, fields, fill, fill_each, null_if_empty, object, omit_if_empty};
use crate::backend::InspectedContainer;
use crate::error::Result;
use crate::version::ApiVersion;

static SUMMARY: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Id": "", "Names": [], "Image": "", "ImageID": "", "Command": "", "Created": 0, "Ports": [], "Labels": {},
        "State": "", "Status": "", "HostConfig": {}, "NetworkSettings": { "Networks": {} }, "Mounts": [],
    })
});
static CONTAINER: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Id": "", "Created": ZERO_TIME, "Path": "", "Args": [],
        "State": {
            "Status": "", "Running": false, "Paused": false, "Restarting": false, "OOMKilled": false, "Dead": false,
            "Pid": 0, "ExitCode": 0, "Error": "", "StartedAt": ZERO_TIME, "FinishedAt": ZERO_TIME,
        },
        "Image": "", "ResolvConfPath": "", "HostnamePath": "", "HostsPath": "", "LogPath": "", "Name": "",
        "RestartCount": 0, "Driver": "overlay2", "Platform": "linux", "MountLabel": "", "ProcessLabel": "",
        "AppArmorProfile": "", "ExecIDs": null, "HostConfig": {}, "GraphDriver": { "Data": null, "Name": "overlay2" },
        "Mounts": [], "Config": {}, "NetworkSettings": {},
    })
});
static CONFIG: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null, "Image": "", "Volumes": null,
        "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
    })
});
static HOST_CONFIG: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "json-file", "Config": {} }, "NetworkMode": "bridge",
        "PortBindings": null, "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "AutoRemove": false,
        "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null,
        "CgroupnsMode": "private", "Dns": null, "DnsOptions": null, "DnsSearch": null, "ExtraHosts": null, "GroupAdd": null,
        "IpcMode": "private", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false,
        "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
        "ShmSize": 67_108_864, "Runtime": "runc", "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0,
        "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": null, "BlkioDeviceReadBps": null,
        "BlkioDeviceWriteBps": null, "BlkioDeviceReadIOps": null, "BlkioDeviceWriteIOps": null, "CpuPeriod": 0, "CpuQuota": 0,
        "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": null,
        "DeviceCgroupRules": null, "DeviceRequests": null, "MemoryReservation": 0, "MemorySwap": 0,
        "MemorySwappiness": null, "OomKillDisable": null, "PidsLimit": null, "Ulimits": null, "CpuCount": 0,
        "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": null, "ReadonlyPaths": null,
    })
});
static NETWORK_SETTINGS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": {}, "HairpinMode": false, "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": null, "SecondaryIPv6Addresses": null, "Networks": {},
    })
});
/// Fields that a container's settings repeat from its endpoint in the default network.
static MAIN_ENDPOINT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "",
        "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
    })
});
static ENDPOINT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "", "DriverOpts": null, "GwPriority": 0,
        "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null,
    })
});
static MOUNT: LazyLock<Value> =
    LazyLock::new(|| json!({ "Source": "", "Destination": "", "Mode": "", "RW": false, "Propagation": "" }));
static PORT_BINDING: LazyLock<Value> = LazyLock::new(|| json!({ "HostIp": "", "HostPort": "" }));
static EXEC: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "ID": "", "Running": false, "ExitCode": null,
        "ProcessConfig": { "tty": false, "entrypoint": "", "arguments": [], "privileged": false },
        "OpenStdin": false, "OpenStderr": false, "OpenStdout": false, "CanRemove": false, "ContainerID": "",
        "DetachKeys": "", "Pid": 0,
    })
});
static CPU: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    })
});
static STATS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "read": ZERO_TIME, "preread": ZERO_TIME, "pids_stats": {},
        "blkio_stats": {
            "io_service_bytes_recursive": null, "io_serviced_recursive": null, "io_queue_recursive": null,
            "io_service_time_recursive": null, "io_wait_time_recursive": null, "io_merged_recursive": null,
            "io_time_recursive": null, "sectors_recursive": null,
        },
        "num_procs": 0, "storage_stats": {}, "cpu_stats": *CPU, "precpu_stats": *CPU, "memory_stats": {}, "name": "",
        "id": "",
    })
});

pub(crate) fn container_list(containers: Vec<ContainerSummary>, version: ApiVersion) -> Result<Value> {
    let shaped = containers.iter().map(|container| {
        let mut shaped = fields(container)?;
        fill(&mut shaped, &SUMMARY);
        // Go leaves out a size of zero here.
        for size in ["SizeRw", "SizeRootFs"] {
            if shaped.get(size).and_then(Value::as_i64) == Some(0) {
                shaped.remove(size);
            }
        }
        // Newer than the newest version served.
        shaped.remove("Health");
        if version < ApiVersion::minor(48) {
            shaped.remove("ImageManifestDescriptor");
        }
        if version < ApiVersion::minor(46)
            && let Some(host_config) = object(&mut shaped, "HostConfig")
        {
            host_config.remove("Annotations");
        }
        fill_each(elements(&mut shaped, "Mounts"), &MOUNT);
        if let Some(settings) = object(&mut shaped, "NetworkSettings") {
            shape_endpoints(settings, version);
        }
        Ok(Value::Object(shaped))
    });
    shaped.collect()
}

pub(crate) fn container(inspected: InspectedContainer, version: ApiVersion) -> Result<Value> {
    let mut shaped = fields(&inspected.container)?;
    fill(&mut shaped, &CONTAINER);
    null_if_empty(&mut shaped, &["ExecIDs"]);
    // Newer than the newest version served.
    shaped.remove("Storage");
    if version < ApiVersion::minor(48) {
        shaped.remove("ImageManifestDescriptor");
    }
    fill_each(elements(&mut shaped, "Mounts"), &MOUNT);
    let id: String = shaped["Id"].as_str().unwrap_or_default().chars().take(12).collect();
    let hostname = shaped["Config"]["Hostname"].as_str().unwrap_or_default().to_owned();
    let names = [id, hostname];
    if let Some(config) = object(&mut shaped, "Config") {
        omit_if_empty(config, &["ExposedPorts", "Healthcheck", "StopSignal", "Shell", "ArgsEscaped"]);
        null_if_empty(config, &["Env", "Volumes", "OnBuild"]);
        fill(config, &CONFIG);
        if let Some(address) = inspected.mac_address {
            config.insert("MacAddress".to_owned(), address.into());
        }
    }
    if let Some(host_config) = object(&mut shaped, "HostConfig") {
        omit_if_empty(host_config, &["Mounts", "StorageOpt", "Tmpfs", "Sysctls", "Annotations"]);
        fill(host_config, &HOST_CONFIG);
        for binding in elements(host_config, "PortBindings").filter_map(Value::as_array_mut) {
            fill_each(binding, &PORT_BINDING);
        }
    }
    if let Some(settings) = object(&mut shaped, "NetworkSettings") {
        fill(settings, &NETWORK_SETTINGS);
        shape_endpoints(settings, version);
        if version < ApiVersion::minor(45) {
            add_names(settings, &names);
        }
        repeat_main_endpoint(settings);
    }
    Ok(shaped.into())
}

/// Before `DNSNames` had them, the aliases in a user's networks named the container's id and host name too.
fn add_names(settings: &mut Map<String, Value>, names: &[String]) {
    let Some(networks) = object(settings, "Networks") else { return };
    let users = networks.iter_mut().filter(|(name, _)| !matches!(name.as_str(), "bridge" | "host" | "none"));
    for aliases in users.filter_map(|(_, endpoint)| endpoint.get_mut("Aliases")) {
        let mut all: Vec<Value> = aliases.as_array().cloned().unwrap_or_default();
        for name in names.iter().filter(|name| !name.is_empty()) {
            if !all.iter().any(|have| have == name) {
                all.push(Value::from(name.as_str()));
            }
        }
        *aliases = all.into();
    }
}

fn shape_endpoints(settings: &mut Map<String, Value>, version: ApiVersion) {
    for endpoint in elements(settings, "Networks").filter_map(Value::as_object_mut) {
        fill(endpoint, &ENDPOINT);
        if version < ApiVersion::minor(48) {
            endpoint.remove("GwPriority");
        }
        if version < ApiVersion::minor(44) {
            endpoint.insert("DNSNames".to_owned(), Value::Null);
        }
    }
}

fn repeat_main_endpoint(settings: &mut Map<String, Value>) {
    if let Some(main) = settings["Networks"].get("bridge").and_then(Value::as_object).cloned() {
        for name in MAIN_ENDPOINT.as_object().into_iter().flat_map(Map::keys) {
            if let Some(value) = main.get(name) {
                settings.insert(name.clone(), value.clone());
            }
        }
    }
    fill(settings, &MAIN_ENDPOINT);
}

pub(crate) fn top(processes: ContainerTopResponse) -> Result<Value> {
    let mut shaped = fields(&processes)?;
    fill(&mut shaped, &json!({ "Titles": [], "Processes": [] }));
    Ok(shaped.into())
}

pub(crate) fn exec(exec: ExecInspectResponse) -> Result<Value> {
    let mut shaped = fields(&exec)?;
    fill(&mut shaped, &EXEC);
    if let Some(process) = object(&mut shaped, "ProcessConfig") {
        omit_if_empty(process, &["user"]);
    }
    Ok(shaped.into())
}

pub(crate) fn stats(stats: ContainerStatsResponse) -> Result<Value> {
    let mut shaped = fields(&stats)?;
    // Newer than the newest version served.
    shaped.remove("os_type");
    fill(&mut shaped, &STATS);
    Ok(shaped.into())
}

pub(crate) fn container_prune(report: ContainerPruneResponse) -> Result<Value> {
    let mut shaped = fields(&report)?;
    fill(&mut shaped, &json!({ "ContainersDeleted": null, "SpaceReclaimed": 0 }));
    null_if_empty(&mut shaped, &["ContainersDeleted"]);
    Ok(shaped.into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard_stubs::models::{
        ContainerConfig, ContainerInspectResponse, EndpointSettings, NetworkSettings,
    };

    use super::*;

    #[test]
    fn old_clients_find_id_and_host_name_among_the_aliases() {
        let endpoint =
            || EndpointSettings { aliases: Some(vec!["db".to_owned()]), ..EndpointSettings::default() };
        let networks = HashMap::from([("own".to_owned(), endpoint()), ("bridge".to_owned(), endpoint())]);
        let described = ContainerInspectResponse {
            id: Some("0123456789abcdef".to_owned()),
            config: Some(ContainerConfig { hostname: Some("db".to_owned()), ..ContainerConfig::default() }),
            network_settings: Some(NetworkSettings {
                networks: Some(networks),
                ..NetworkSettings::default()
            }),
            ..ContainerInspectResponse::default()
        };
        let inspected = InspectedContainer { container: described, mac_address: None };
        let aliases = |minor, network: &str| {
            let shaped = container(inspected.clone(), ApiVersion::minor(minor)).unwrap();
            shaped["NetworkSettings"]["Networks"][network]["Aliases"].clone()
        };
        assert_eq!(aliases(44, "own"), json!(["db", "0123456789ab"]));
        assert_eq!(aliases(44, "bridge"), json!(["db"]));
        assert_eq!(aliases(45, "own"), json!(["db"]));
    }
}
