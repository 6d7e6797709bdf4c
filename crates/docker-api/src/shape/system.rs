//! The engine itself.

use std::sync::LazyLock;

use bollard_stubs::models::{EventMessage, SystemInfo, SystemVersion};
use serde_json::{Map, Value, json};

use super::{containers, fields, fill, images, object, volumes};
use crate::backend::{BuildCacheRecord, DiskUsage, DiskUsageKinds};
use crate::error::Result;
use crate::version::ApiVersion;

static VERSION: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Platform": { "Name": "" }, "Components": [], "Version": "", "GitCommit": "", "GoVersion": "", "Os": "linux",
        "Arch": "", "KernelVersion": "",
    })
});
/// What `docker version` shows of an engine.
const ENGINE_DETAILS: [&str; 9] = [
    "ApiVersion",
    "Arch",
    "BuildTime",
    "Experimental",
    "GitCommit",
    "GoVersion",
    "KernelVersion",
    "MinAPIVersion",
    "Os",
];
static INFO: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "ID": "", "Containers": 0, "ContainersRunning": 0, "ContainersPaused": 0, "ContainersStopped": 0, "Images": 0,
        "Driver": "overlay2", "DriverStatus": [],
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file"] },
        "MemoryLimit": false, "SwapLimit": false, "CpuCfsPeriod": false, "CpuCfsQuota": false, "CPUShares": false,
        "CPUSet": false, "PidsLimit": false, "IPv4Forwarding": false, "Debug": false, "NFd": 0, "OomKillDisable": false,
        "NGoroutines": 0, "SystemTime": "", "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2", "NEventsListener": 0, "KernelVersion": "", "OperatingSystem": "", "OSVersion": "",
        "OSType": "linux", "Architecture": "", "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": { "IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": null },
        "NCPU": 0, "MemTotal": 0, "GenericResources": null, "DockerRootDir": "", "HttpProxy": "", "HttpsProxy": "",
        "NoProxy": "", "Name": "", "Labels": [], "ExperimentalBuild": false, "ServerVersion": "", "Runtimes": {},
        "DefaultRuntime": "",
        "Swarm": { "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
                   "RemoteManagers": null },
        "LiveRestoreEnabled": false, "Isolation": "", "InitBinary": "", "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" }, "InitCommit": { "ID": "" }, "SecurityOptions": [], "CDISpecDirs": [],
        "Warnings": null,
    })
});

pub(crate) fn version(version: SystemVersion) -> Result<Value> {
    let mut shaped = fields(&version)?;
    fill(&mut shaped, &VERSION);
    shaped.insert("ApiVersion".to_owned(), ApiVersion::MAX.to_string().into());
    shaped.insert("MinAPIVersion".to_owned(), ApiVersion::MIN.to_string().into());
    // `docker version` prints what the component `Engine` says of itself, not the fields above; its values are text.
    let said = |name: &str| {
        shaped.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let details: Map<String, Value> =
        ENGINE_DETAILS.iter().filter_map(|&name| Some((name.to_owned(), said(name)?.into()))).collect();
    let components = shaped.get_mut("Components").and_then(Value::as_array_mut);
    if let Some(engine) = components.into_iter().flatten().find(|component| component["Name"] == "Engine") {
        engine["Details"] = details.into();
    }
    if shaped.get("Experimental") == Some(&Value::Bool(false)) {
        shaped.remove("Experimental");
    }
    Ok(shaped.into())
}

pub(crate) fn info(info: SystemInfo, version: ApiVersion) -> Result<Value> {
    let mut shaped = fields(&info)?;
    fill(&mut shaped, &INFO);
    // Newer than the newest version served.
    shaped.remove("NRI");
    if version < ApiVersion::minor(50) {
        for name in ["BridgeNfIptables", "BridgeNfIp6tables"] {
            shaped.insert(name.to_owned(), false.into());
        }
    }
    if version < ApiVersion::minor(49) {
        shaped.remove("FirewallBackend");
        for name in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            let id = shaped[name]["ID"].clone();
            if let Some(commit) = object(&mut shaped, name) {
                commit.insert("Expected".to_owned(), id);
            }
        }
    }
    if version < ApiVersion::minor(42) {
        for name in ["ClusterStore", "ClusterAdvertise"] {
            shaped.insert(name.to_owned(), "".into());
        }
        shaped.insert("KernelMemory".to_owned(), false.into());
        shaped.insert("KernelMemoryTCP".to_owned(), false.into());
    }
    if version < ApiVersion::minor(25) {
        shaped.insert("ExecutionDriver".to_owned(), "<not supported>".into());
        let options = shaped.get("SecurityOptions").and_then(Value::as_array);
        let names: Vec<Value> = options.into_iter().flatten().filter_map(option_name).collect();
        shaped.insert("SecurityOptions".to_owned(), names.into());
    }
    Ok(shaped.into())
}

/// `name=seccomp,profile=default` was just `seccomp` once.
fn option_name(option: &Value) -> Option<Value> {
    option.as_str()?.split(',').find_map(|part| part.strip_prefix("name=")).map(Value::from)
}

/// Adds the fields that events had before they had actors; clients still read them.
pub(crate) fn event(event: EventMessage) -> Result<Value> {
    let mut shaped = fields(&event)?;
    fill(
        &mut shaped,
        &json!({ "Type": "", "Action": "", "Actor": { "ID": "", "Attributes": {} }, "scope": "local", "time": 0, "timeNano": 0 }),
    );
    let kind = shaped["Type"].clone();
    if kind == "container" || kind == "image" {
        let action = shaped["Action"].clone();
        let id = shaped["Actor"]["ID"].clone();
        shaped.insert("status".to_owned(), action);
        shaped.insert("id".to_owned(), id);
    }
    if kind == "container"
        && let Some(image) = shaped["Actor"]["Attributes"].get("image").cloned()
    {
        shaped.insert("from".to_owned(), image);
    }
    Ok(shaped.into())
}

pub(crate) fn disk_usage(usage: DiskUsage, kinds: DiskUsageKinds, version: ApiVersion) -> Result<Value> {
    let mut shaped = Map::new();
    let images = usage.images.map(|images| images::image_list(images, version)).transpose()?;
    let containers = usage.containers.map(|list| containers::container_list(list, version)).transpose()?;
    let volumes = usage.volumes.map(|list| {
        list.iter()
            .map(|volume| {
                let mut shaped = fields(volume)?;
                volumes::shape(&mut shaped);
                Ok(Value::Object(shaped))
            })
            .collect::<Result<Value>>()
    });
    // Nobody counts layers for those who ask for something else.
    let layers = if images.is_some() { usage.layers_size } else { 0 };
    shaped.insert("LayersSize".to_owned(), layers.into());
    shaped.insert("Images".to_owned(), images.unwrap_or_default());
    shaped.insert("Containers".to_owned(), containers.unwrap_or_default());
    shaped.insert("Volumes".to_owned(), volumes.transpose()?.unwrap_or_default());
    let cache = usage.build_cache.filter(|_| kinds.build_cache);
    let size: u64 = cache.iter().flatten().map(|record| record.size).sum();
    let cache = cache.map(|records| records.iter().map(build_cache).collect());
    shaped.insert("BuildCache".to_owned(), cache.map_or(Value::Null, Value::Array));
    if version < ApiVersion::minor(42) {
        shaped.insert("BuilderSize".to_owned(), size.into());
    }
    Ok(shaped.into())
}

fn build_cache(record: &BuildCacheRecord) -> Value {
    let mut shaped = json!({
        "ID": record.id,
        "Type": record.kind,
        "Description": record.description,
        "InUse": record.in_use,
        "Shared": record.shared,
        "Size": record.size,
        "CreatedAt": record.created,
        "LastUsedAt": record.last_used,
        "UsageCount": record.usage_count,
    });
    if !record.parents.is_empty() {
        shaped["Parents"] = json!(record.parents);
        // What clients before 1.42 know: one parent.
        shaped["Parent"] = json!(record.parents[0]);
    }
    shaped
}
