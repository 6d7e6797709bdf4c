//! `POST /containers/create`: from the client's JSON, whatever its age, to today's model.

use std::collections::HashMap;

use bollard_stubs::models::{ContainerCreateBody, EndpointSettings, HostConfig};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::backend::CreateContainer;
use crate::body;
use crate::error::{ApiError, Result};
use crate::go_json;
use crate::version::ApiVersion;

const MAC_ADDRESS_WARNING: &str = "The container-wide MacAddress field is now deprecated. It should be specified in \
                                   EndpointsConfig instead.";

/// The fields that are looked at before the document becomes a type.
const INSPECTED: [&str; 5] = ["Cmd", "Entrypoint", "HostConfig", "MacAddress", "NetworkingConfig"];

pub(super) async fn create(call: Call) -> Result<Answer> {
    let version = call.version;
    let platform =
        call.query.filled("platform").filter(|_| version >= ApiVersion::minor(41)).map(str::to_owned);
    let name = call.query.filled("name").map(|name| name.strip_prefix('/').unwrap_or(name).to_owned());
    let backend = call.backend.clone();
    let document: Value = call.json().await?;
    let (body, warnings) = decode(document, version)?;
    let mut created = backend.create_container(CreateContainer { name, platform, body, version }).await?;
    created.warnings.extend(warnings);
    Ok(body::json(StatusCode::CREATED, &created)?.into())
}

/// Reads the body and applies the rules of the client's API version; also returns warnings for the user.
fn decode(document: Value, version: ApiVersion) -> Result<(ContainerCreateBody, Vec<String>)> {
    let kind = match document {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    };
    let mut fields = match document {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        _ => {
            return Err(ApiError::bad_request(format!(
                "invalid JSON: json: cannot unmarshal {kind} into Go value of type runconfig.ContainerConfigWrapper"
            )));
        }
    };
    go_json::canonical(&mut fields, &INSPECTED);
    if fields.keys().all(|key| key == "HostConfig" || key == "NetworkingConfig") {
        return Err(ApiError::bad_request("config cannot be empty in order to create a container"));
    }
    let mac_address = fields.remove("MacAddress").and_then(|value| value.as_str().map(str::to_owned));
    modernise(&mut fields);
    if let Some(host_config) = fields.get_mut("HostConfig") {
        check_words(host_config)?;
    }
    let mut body: ContainerCreateBody =
        go_json::from_value(Value::Object(fields)).map_err(|error| body::invalid_json(&error))?;

    let network = choose_network(&mut body);
    let mut warnings = Vec::new();
    if let Some(address) = mac_address.filter(|address| !address.is_empty()) {
        move_mac_address(&mut body, &network, address, version)?;
        if version >= ApiVersion::minor(44) {
            warnings.push(MAC_ADDRESS_WARNING.to_owned());
        }
    }
    check_mounts(&mut body, version)?;
    apply_version_rules(&mut body, version)?;
    Ok((body, warnings))
}

/// Rewrites forms that Go's decoder accepts and the models don't.
fn modernise(fields: &mut Map<String, Value>) {
    // One string instead of a list.
    for name in ["Cmd", "Entrypoint"] {
        if let Some(value) = fields.get_mut(name)
            && let Value::String(word) = value
        {
            *value = json!([std::mem::take(word)]);
        }
    }
}

/// Checks the fields that have a few words as values, to refuse others as dockerd does.
pub(super) fn check_words(host_config: &mut Value) -> Result<()> {
    if let Value::Object(fields) = host_config {
        go_json::canonical(fields, &["RestartPolicy", "Isolation", "CgroupnsMode", "Mounts"]);
    }
    if let Some(Value::Object(policy)) = host_config.get_mut("RestartPolicy") {
        go_json::canonical(policy, &["Name"]);
    }
    for mount in host_config.get_mut("Mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(fields) = mount {
            go_json::canonical(fields, &["Type", "BindOptions"]);
        }
        if let Some(Value::Object(options)) = mount.get_mut("BindOptions") {
            go_json::canonical(options, &["Propagation"]);
        }
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let unknown = |value: &Value, known: &[&str]| {
        text(value).filter(|word| !word.is_empty() && !known.contains(&word.as_str()))
    };
    let policies = ["no", "always", "on-failure", "unless-stopped"];
    if let Some(word) = unknown(&host_config["RestartPolicy"]["Name"], &policies) {
        return Err(ApiError::bad_request(format!(
            "invalid restart policy: unknown policy '{word}'; use one of 'no', 'always', 'on-failure', or \
             'unless-stopped'"
        )));
    }
    if let Some(word) = unknown(&host_config["Isolation"], &["default"]) {
        return Err(ApiError::bad_request(format!(
            "Invalid isolation: {word:?} - linux only supports 'default'"
        )));
    }
    if let Some(word) = unknown(&host_config["CgroupnsMode"], &["private", "host"]) {
        return Err(ApiError::bad_request(format!("invalid cgroup namespace mode: {word}")));
    }
    let kinds = ["bind", "volume", "tmpfs", "image", "cluster", "npipe"];
    let propagations = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
    for mount in host_config["Mounts"].as_array().into_iter().flatten() {
        if let Some(word) = unknown(&mount["Type"], &kinds) {
            return Err(ApiError::bad_request(format!(
                "invalid mount config for type {word:?}: mount type unknown"
            )));
        }
        if let Some(word) = unknown(&mount["BindOptions"]["Propagation"], &propagations) {
            return Err(ApiError::bad_request(format!(
                "invalid mount config for type \"bind\": invalid propagation mode: {word}"
            )));
        }
    }
    Ok(())
}

/// Resolves the network mode "default" and returns the mode in force.
fn choose_network(body: &mut ContainerCreateBody) -> String {
    let host_config = body.host_config.get_or_insert_with(HostConfig::default);
    let mode = host_config.network_mode.get_or_insert_default();
    if mode.is_empty() || mode == "default" {
        *mode = "bridge".to_owned();
        if let Some(endpoints) =
            body.networking_config.as_mut().and_then(|config| config.endpoints_config.as_mut())
            && let Some(endpoint) = endpoints.remove("default")
        {
            endpoints.insert("bridge".to_owned(), endpoint);
        }
    }
    mode.clone()
}

/// Since API 1.44 a MAC address belongs to an endpoint; the container-wide one goes to the main network's.
fn move_mac_address(
    body: &mut ContainerCreateBody,
    network: &str,
    address: String,
    version: ApiVersion,
) -> Result<()> {
    if network == "host" || network == "none" || network.starts_with("container:") {
        return if version < ApiVersion::minor(44) {
            Err(ApiError::bad_request("conflicting options: mac-address and the network mode"))
        } else {
            Ok(())
        };
    }
    let endpoints = body
        .networking_config
        .get_or_insert_default()
        .endpoints_config
        .get_or_insert_with(HashMap::<String, EndpointSettings>::new);
    let endpoint = if endpoints.is_empty() {
        endpoints.entry(network.to_owned()).or_default()
    } else if version < ApiVersion::minor(44) {
        endpoints.values_mut().next().expect("checked not to be empty")
    } else {
        endpoints.get_mut(network).ok_or_else(|| {
            ApiError::bad_request(
                "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match \
                 the identity of a network in NetworkSettings.Networks",
            )
        })?
    };
    match endpoint.mac_address.as_deref() {
        None | Some("") => endpoint.mac_address = Some(address),
        Some(same) if same == address => {}
        Some(_) => {
            return Err(ApiError::bad_request(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be \
                 left empty",
            ));
        }
    }
    Ok(())
}

fn check_mounts(body: &mut ContainerCreateBody, version: ApiVersion) -> Result<()> {
    let mounts = body.host_config.as_mut().and_then(|config| config.mounts.as_mut()).into_iter().flatten();
    for mount in mounts {
        let kind = mount.typ.as_ref().map(ToString::to_string).unwrap_or_default();
        let wrong = [
            ("VolumeOptions", mount.volume_options.is_some() && kind != "volume"),
            ("BindOptions", mount.bind_options.is_some() && kind != "bind"),
            ("TmpfsOptions", mount.tmpfs_options.is_some() && kind != "tmpfs"),
            ("ImageOptions", mount.image_options.is_some() && kind != "image"),
        ];
        if version >= ApiVersion::minor(42) {
            if let Some((name, _)) = wrong.iter().find(|(_, wrong)| *wrong) {
                return Err(ApiError::bad_request(format!(
                    "{name} must not be specified on mount type {kind:?}"
                )));
            }
        } else {
            // Older clients may send them: dockerd did not look then.
            mount.volume_options = mount.volume_options.take().filter(|_| kind == "volume");
            mount.bind_options = mount.bind_options.take().filter(|_| kind == "bind");
            mount.tmpfs_options = mount.tmpfs_options.take().filter(|_| kind == "tmpfs");
            if let Some(options) = &mut mount.bind_options {
                options.create_mountpoint = None;
            }
        }
        if version < ApiVersion::minor(48) && kind == "image" {
            return Err(ApiError::bad_request("mounts of images need API v1.48 or newer"));
        }
        if version < ApiVersion::minor(44) && kind == "bind" {
            // What these clients mean by read-only. They can't ask for the opposite.
            let options = mount.bind_options.get_or_insert_default();
            if options.read_only_force_recursive == Some(true) {
                return Err(ApiError::bad_request(
                    "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
                ));
            }
            options.read_only_non_recursive = mount.read_only;
        }
        let subpath = mount.volume_options.as_ref().and_then(|options| options.subpath.as_deref());
        if version < ApiVersion::minor(45) && subpath.is_some_and(|path| !path.is_empty()) {
            return Err(ApiError::bad_request("VolumeOptions.Subpath needs API v1.45 or newer"));
        }
    }
    Ok(())
}

fn apply_version_rules(body: &mut ContainerCreateBody, version: ApiVersion) -> Result<()> {
    let host_config = body.host_config.get_or_insert_with(HostConfig::default);
    // Zero and less mean "no limit".
    host_config.pids_limit = host_config.pids_limit.filter(|limit| *limit > 0);
    if version < ApiVersion::minor(25) {
        // These clients remove the container themselves.
        host_config.auto_remove = Some(false);
    }
    if version < ApiVersion::minor(40) && host_config.ipc_mode.as_deref().is_none_or(str::is_empty) {
        host_config.ipc_mode = Some("shareable".to_owned());
    }
    if version < ApiVersion::minor(42) {
        host_config.console_size = None;
    }
    if version < ApiVersion::minor(43) {
        host_config.annotations = None;
    }
    if version < ApiVersion::minor(44) {
        if let Some(check) = &mut body.healthcheck {
            check.start_interval = None;
        }
        let endpoints = body.networking_config.as_ref().and_then(|config| config.endpoints_config.as_ref());
        if let Some(endpoints) = endpoints.filter(|endpoints| endpoints.len() > 1) {
            let mut names: Vec<&str> = endpoints.keys().map(String::as_str).collect();
            names.sort_unstable();
            return Err(ApiError::bad_request(format!(
                "Container cannot be created with multiple network endpoints: {}",
                names.join(", ")
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(document: Value, minor: u16) -> (ContainerCreateBody, Vec<String>) {
        decode(document, ApiVersion::minor(minor)).unwrap()
    }

    fn refusal(document: Value, minor: u16) -> String {
        let error = decode(document, ApiVersion::minor(minor)).unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        error.message
    }

    #[test]
    fn a_command_may_be_one_string() {
        let (body, _) = decoded(json!({"Image": "a", "Cmd": "ls", "Entrypoint": "sh"}), 51);
        assert_eq!((body.cmd, body.entrypoint), (Some(vec!["ls".to_owned()]), Some(vec!["sh".to_owned()])));
    }

    #[test]
    fn nulls_are_nothing() {
        let (body, _) = decoded(
            json!({"Image": "a", "Cmd": null, "Env": null, "Volumes": null, "ExposedPorts": {"80/tcp": null},
                   "Healthcheck": null, "Labels": null, "OnBuild": null, "NetworkingConfig": {"EndpointsConfig": {"x": null}},
                   "HostConfig": {"PortBindings": {"80/tcp": null}, "Dns": null, "RestartPolicy": {"Name": ""},
                                  "CgroupnsMode": "", "Isolation": "", "LogConfig": {"Type": "", "Config": null},
                                  "Devices": null, "Ulimits": null, "Mounts": null, "Tmpfs": null}}),
            51,
        );
        assert_eq!(body.exposed_ports, Some(vec!["80/tcp".to_owned()]));
        assert_eq!(body.cmd, None);
    }

    #[test]
    fn an_empty_configuration_is_refused() {
        for document in [json!({}), json!({"HostConfig": {}})] {
            assert_eq!(refusal(document, 51), "config cannot be empty in order to create a container");
        }
        assert!(refusal(json!([]), 51).starts_with("invalid JSON"));
        assert!(refusal(json!({"Image": 1}), 51).starts_with("invalid JSON: json: cannot unmarshal number"));
    }

    #[test]
    fn unknown_words_are_refused_as_dockerd_does() {
        let refused = |host: Value| refusal(json!({"HostConfig": host, "Image": "a"}), 51);
        assert_eq!(refused(json!({"CgroupnsMode": "weird"})), "invalid cgroup namespace mode: weird");
        assert_eq!(
            refused(json!({"Isolation": "hyperv"})),
            "Invalid isolation: \"hyperv\" - linux only supports 'default'"
        );
        assert_eq!(
            refused(json!({"Mounts": [{"Type": "what"}]})),
            "invalid mount config for type \"what\": mount type unknown"
        );
        assert_eq!(
            refused(json!({"RestartPolicy": {"Name": "sometimes"}})),
            "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or \
             'unless-stopped'"
        );
        decoded(json!({"HostConfig": {"CgroupnsMode": "", "Isolation": "default"}, "Image": "a"}), 51);
    }

    #[test]
    fn the_default_network_is_the_bridge() {
        let (body, _) = decoded(
            json!({"Image": "a", "HostConfig": {"NetworkMode": "default"},
                   "NetworkingConfig": {"EndpointsConfig": {"default": {"Aliases": ["x"]}}}}),
            51,
        );
        assert_eq!(body.host_config.unwrap().network_mode.as_deref(), Some("bridge"));
        assert!(body.networking_config.unwrap().endpoints_config.unwrap().contains_key("bridge"));
    }

    #[test]
    fn a_container_wide_mac_address_moves_to_the_endpoint() {
        let document = json!({"Image": "a", "MacAddress": "02:00:00:00:00:01"});
        for (minor, warnings) in [(43, 0), (51, 1)] {
            let (body, given) = decoded(document.clone(), minor);
            assert_eq!(given.len(), warnings);
            let endpoint = &body.networking_config.unwrap().endpoints_config.unwrap()["bridge"];
            assert_eq!(endpoint.mac_address.as_deref(), Some("02:00:00:00:00:01"));
        }
    }

    #[test]
    fn old_clients_get_their_old_defaults() {
        let document = json!({"Image": "a", "HostConfig": {"AutoRemove": true, "PidsLimit": -1}});
        let (body, _) = decoded(document, 24);
        let host_config = body.host_config.unwrap();
        assert_eq!(host_config.auto_remove, Some(false));
        assert_eq!(host_config.ipc_mode.as_deref(), Some("shareable"));
        assert_eq!(host_config.pids_limit, None);
    }

    #[test]
    fn options_of_another_mount_type_are_refused_since_142() {
        let document = json!({"Image": "a", "HostConfig": {"Mounts": [{"Type": "bind", "Target": "/x", "Source": "/y", "VolumeOptions": {}}]}});
        assert_eq!(
            refusal(document.clone(), 42),
            "VolumeOptions must not be specified on mount type \"bind\""
        );
        let (body, _) = decoded(document, 41);
        assert_eq!(body.host_config.unwrap().mounts.unwrap()[0].volume_options, None);
    }
}
