//! Builds by the classic builder, and the build cache.

use std::collections::{BTreeMap, HashMap};

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::images::{BASE64, progress};
use super::{Answer, Call, page_not_found};
use crate::backend::{Auth, BuildImage, PruneBuilds};
use crate::body;
use crate::error::{ApiError, Result};

/// `docker system prune` sends its filters to all kinds of objects, and cache has no labels: as with dockerd those are let
/// pass and mean nothing.
const PRUNE_FILTERS: &[&str] = &[
    "description",
    "id",
    "immutable",
    "inuse",
    "label",
    "label!",
    "mutable",
    "parent",
    "private",
    "shared",
    "type",
    "until",
    "unused-for",
];

pub(super) async fn route(call: Call, path: &[&str]) -> Result<Answer> {
    match (call.method.as_str(), path) {
        ("POST", []) => build(call).await,
        ("POST", ["prune"]) => prune(call).await,
        // Skiff's own, for those who show builds to people.
        ("GET", ["history"]) => Ok(body::json(StatusCode::OK, &call.backend.past_builds().await?)?.into()),
        ("GET", ["history", id]) => {
            let tale = call.backend.build_tale(id).await?;
            Ok(body::json_stream(tale, super::buildkit::last_line).into())
        }
        ("DELETE", ["history", id]) => {
            call.backend.forget_build(id).await?;
            Ok(body::empty(StatusCode::NO_CONTENT).into())
        }
        _ => Err(page_not_found()),
    }
}

async fn build(call: Call) -> Result<Answer> {
    let request = request(&call)?;
    let backend = call.backend.clone();
    progress(backend.build_image(request, call.into_reader()).await?).await
}

/// Reads the parameters that docker CLI 28 and docker-py send.
fn request(call: &Call) -> Result<BuildImage> {
    let query = &call.query;
    let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let number = |name: &str| -> Result<i64> {
        let value = query.filled(name).unwrap_or("0");
        value.parse().map_err(|_| {
            ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
        })
    };
    if query.flag("squash") {
        return Err(ApiError::bad_request("squash is only supported with experimental mode"));
    }
    if let Some(isolation) = query.filled("isolation").filter(|isolation| *isolation != "default") {
        return Err(ApiError::bad_request(format!("unsupported isolation: {isolation:?}")));
    }
    if query.filled("outputs").is_some_and(|outputs| !matches!(outputs, "[]" | "null")) {
        return Err(ApiError::bad_request("the classic builder has no outputs but images: use BuildKit"));
    }
    if let Some(option) = query.all("securityopt").find(|option| !option.is_empty()) {
        return Err(ApiError::bad_request(format!(
            "the daemon on this platform does not support setting security options on build: {option}"
        )));
    }
    Ok(BuildImage {
        tags: query.all("t").filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        dockerfile: text("dockerfile"),
        remote: text("remote"),
        quiet: query.flag("q"),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        build_args: parsed(query.filled("buildargs"), "build args")?,
        labels: parsed::<Option<BTreeMap<String, String>>>(query.filled("labels"), "labels")?
            .unwrap_or_default(),
        target: text("target"),
        network: text("networkmode"),
        extra_hosts: hosts(query.all("extrahosts")),
        shm_size: number("shmsize")?,
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        ulimits: parsed::<Option<_>>(query.filled("ulimits"), "ulimits")?.unwrap_or_default(),
        cgroup_parent: text("cgroupparent"),
        platform: text("platform"),
        cache_from: parsed::<Option<_>>(query.filled("cachefrom"), "cachefrom")?.unwrap_or_default(),
        logins: logins(call),
    })
}

fn parsed<T: DeserializeOwned + Default>(value: Option<&str>, what: &str) -> Result<T> {
    let Some(value) = value.filter(|value| *value != "null") else { return Ok(T::default()) };
    serde_json::from_str(value)
        .map_err(|error| ApiError::bad_request(format!("error reading {what}: {error}")))
}

/// `name:ip`, once for each host; or all of them as one list in JSON, or between blanks.
fn hosts<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    let several = |value: &str| {
        serde_json::from_str::<Option<Vec<String>>>(value).ok().flatten().unwrap_or_else(|| {
            let words = value.split([' ', ',']).filter(|word| !word.is_empty() && *word != "null");
            words.map(str::to_owned).collect()
        })
    };
    values.flat_map(several).collect()
}

/// Logins that cannot be read count as none: the registry will ask for them if it needs them.
fn logins(call: &Call) -> HashMap<String, Auth> {
    use base64::Engine as _;
    let decoded =
        call.headers.get("x-registry-config").and_then(|value| BASE64.decode(value.as_bytes()).ok());
    decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

async fn prune(call: Call) -> Result<Answer> {
    let query = &call.query;
    let bytes = |names: &[&str]| -> Result<Option<u64>> {
        let Some(value) = names.iter().find_map(|name| query.filled(name)) else { return Ok(None) };
        let number: i64 = value.parse().map_err(|_| {
            ApiError::bad_request(format!("{} is in bytes and expects an integer, got {value}", names[0]))
        })?;
        Ok(u64::try_from(number).ok().filter(|number| *number > 0))
    };
    let request = PruneBuilds {
        all: query.flag("all"),
        keep_storage: bytes(&["reserved-space", "keep-storage"])?,
        max_used_space: bytes(&["max-used-space"])?,
        min_free_space: bytes(&["min-free-space"])?,
        filters: query.filters(PRUNE_FILTERS)?,
    };
    let pruned = call.backend.prune_builds(request).await?;
    let deleted = if pruned.deleted.is_empty() { json!(null) } else { json!(pruned.deleted) };
    Ok(body::json(StatusCode::OK, &json!({ "CachesDeleted": deleted, "SpaceReclaimed": pruned.reclaimed }))?
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_in_several_forms() {
        let read = |values: &[&'static str]| hosts(values.iter().copied());
        assert_eq!(read(&[r#"["a:1.2.3.4"]"#]), ["a:1.2.3.4"]);
        assert_eq!(read(&["a:1.2.3.4 b:::1"]), ["a:1.2.3.4", "b:::1"]);
        assert_eq!(read(&["a:1.2.3.4", "b:::1"]), ["a:1.2.3.4", "b:::1"]);
        assert_eq!(read(&["null"]), [""; 0]);
        assert_eq!(read(&[]), [""; 0]);
    }

    #[test]
    fn arguments_without_a_value_are_kept() {
        let args: BTreeMap<String, Option<String>> = parsed(Some(r#"{"A":"1","B":null}"#), "x").unwrap();
        assert_eq!(args["B"], None);
        assert!(parsed::<BTreeMap<String, String>>(Some("{"), "x").is_err());
    }
}
