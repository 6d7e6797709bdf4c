//! Where a result comes from, as SLSA's provenance 0.2 has it and BuildKit fills it in.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::BuildHistoryRecord;
use serde_json::{Map, Value, json};

use super::Evidence;

const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";
/// Attributes that say something about the machine or the client rather than the build.
const NOT_ARGUMENTS: [&str; 8] = [
    "filename",
    "context",
    "source",
    "cgroup-parent",
    "image-resolve-mode",
    "platform",
    "cache-imports",
    "frontend.caps",
];

/// Writes the predicate.
pub(super) fn predicate(
    frontend: &str,
    attributes: &HashMap<String, String>,
    evidence: &Evidence,
    record: &BuildHistoryRecord,
) -> String {
    let materials: Vec<Value> = evidence
        .materials
        .iter()
        .map(|material| {
            let (algorithm, hex) = material.digest.split_once(':').unwrap_or(("sha256", &material.digest));
            json!({ "uri": material.uri, "digest": { algorithm: hex } })
        })
        .collect();
    let arguments: BTreeMap<&str, &str> = attributes
        .iter()
        .filter(|(name, _)| !NOT_ARGUMENTS.contains(&name.as_str()) && !name.starts_with("attest:"))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut source = Map::new();
    let context = attributes.get("context").filter(|context| context.contains("://"));
    if let Some(context) = context {
        source.insert("uri".to_owned(), Value::from(context.as_str()));
    }
    let file = attributes.get("filename").map_or("Dockerfile", String::as_str);
    source.insert("entryPoint".to_owned(), Value::from(file));
    let mut parameters = json!({ "frontend": frontend });
    if !arguments.is_empty() {
        parameters["args"] = json!(arguments);
    }
    if context.is_none() {
        parameters["locals"] = json!([{ "name": "context" }, { "name": "dockerfile" }]);
    }
    let vcs: BTreeMap<&str, &str> = attributes
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("vcs:")?, value.as_str())))
        .collect();
    let mut own = Map::new();
    if !vcs.is_empty() {
        own.insert("vcs".to_owned(), json!(vcs));
    }
    let predicate = json!({
        "builder": { "id": "" },
        "buildType": BUILD_TYPE,
        "materials": materials,
        "invocation": {
            "configSource": source,
            "parameters": parameters,
            "environment": { "platform": evidence.platform },
        },
        "metadata": {
            "buildInvocationID": record.r#ref,
            "buildStartedOn": time(record.created_at),
            "buildFinishedOn": time(record.completed_at),
            // What the client's directory had in it nobody else can have.
            "completeness": { "parameters": true, "environment": true, "materials": false },
            "reproducible": false,
            "https://mobyproject.org/buildkit@v1#metadata": own,
        },
    });
    serde_json::to_string_pretty(&predicate).expect("texts always become JSON")
}

fn time(at: Option<Timestamp>) -> String {
    let at = at.unwrap_or_default();
    jiff::Timestamp::new(at.seconds, at.nanos).unwrap_or_default().to_string()
}
