//! Networks.

use std::sync::LazyLock;

use bollard_stubs::models::{Network, NetworkInspect, NetworkPruneResponse};
use serde_json::{Map, Value, json};

use super::{ZERO_TIME, elements, fields, fill, fill_each, null_if_empty};
use crate::error::Result;
use crate::version::ApiVersion;

static NETWORK: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Name": "", "Id": "", "Created": ZERO_TIME, "Scope": "local", "Driver": "", "EnableIPv4": true,
        "EnableIPv6": false, "IPAM": { "Driver": "default", "Options": null, "Config": null }, "Internal": false,
        "Attachable": false, "Ingress": false, "ConfigFrom": { "Network": "" }, "ConfigOnly": false, "Containers": {},
        "Options": {}, "Labels": {},
    })
});
static CONTAINER: LazyLock<Value> = LazyLock::new(
    || json!({ "Name": "", "EndpointID": "", "MacAddress": "", "IPv4Address": "", "IPv6Address": "" }),
);

pub(crate) fn network(network: NetworkInspect, version: ApiVersion) -> Result<Value> {
    let mut shaped = fields(&network)?;
    shape(&mut shaped, version);
    Ok(shaped.into())
}

pub(crate) fn network_list(networks: Vec<Network>, version: ApiVersion) -> Result<Value> {
    let shaped = networks.iter().map(|network| {
        let mut shaped = fields(network)?;
        shape(&mut shaped, version);
        Ok(Value::Object(shaped))
    });
    shaped.collect()
}

pub(crate) fn network_prune(report: NetworkPruneResponse) -> Result<Value> {
    let mut shaped = fields(&report)?;
    fill(&mut shaped, &json!({ "NetworksDeleted": null }));
    null_if_empty(&mut shaped, &["NetworksDeleted"]);
    Ok(shaped.into())
}

fn shape(network: &mut Map<String, Value>, version: ApiVersion) {
    fill(network, &NETWORK);
    fill_each(elements(network, "Containers"), &CONTAINER);
    network.remove("Status");
    if version < ApiVersion::minor(48) {
        network.remove("EnableIPv4");
    }
}
