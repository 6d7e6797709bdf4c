//! Images.

use std::sync::LazyLock;

use bollard_stubs::models::{ImageHistoryResponseItem, ImagePruneResponse, ImageSummary};
use serde_json::{Map, Value, json};

use crate::backend::ImageDetails;

use super::{ZERO_TIME, fields, fill, null_if_empty, object, omit_if_empty};
use crate::error::Result;
use crate::version::ApiVersion;

static IMAGE: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Id": "", "RepoTags": [], "RepoDigests": [], "Parent": "", "Comment": "", "Created": ZERO_TIME,
        "DockerVersion": "", "Author": "", "Config": {}, "Architecture": "", "Os": "", "Size": 0,
        "GraphDriver": { "Data": null, "Name": "overlay2" }, "RootFS": { "Type": "layers" },
        "Metadata": { "LastTagTime": ZERO_TIME },
    })
});
/// Until API 1.50 an image's configuration had all the fields of a container's.
static CONFIG_BEFORE_150: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null, "Image": "", "Volumes": null,
        "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    })
});
/// Later ones leave out what is empty; clients of before read it without looking, so it stays.
static CONFIG: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "User": "", "Env": null, "Cmd": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    })
});
static PRUNE: LazyLock<Value> = LazyLock::new(|| json!({ "ImagesDeleted": null, "SpaceReclaimed": 0 }));

pub(crate) fn image(image: ImageDetails, version: ApiVersion) -> Result<Value> {
    let mut shaped = fields(&image.model)?;
    shaped.insert("Parent".to_owned(), image.parent.into());
    shaped.insert("DockerVersion".to_owned(), image.docker_version.into());
    let has_time = shaped.contains_key("Created");
    fill(&mut shaped, &IMAGE);
    if !has_time && version >= ApiVersion::minor(44) {
        // Since then a time that nobody knows is left out.
        shaped.remove("Created");
    }
    shaped.remove("Identity");
    if let Some(config) = object(&mut shaped, "Config") {
        omit_if_empty(
            config,
            &["ExposedPorts", "Volumes", "Healthcheck", "StopSignal", "Shell", "ArgsEscaped"],
        );
        if version < ApiVersion::minor(50) {
            fill(config, &CONFIG_BEFORE_150);
        } else {
            fill(config, &CONFIG);
        }
    }
    if version < ApiVersion::minor(48) {
        shaped.remove("Descriptor");
        shaped.remove("Manifests");
    }
    if version < ApiVersion::minor(45) {
        shaped.insert("Container".to_owned(), "".into());
        shaped.insert("ContainerConfig".to_owned(), CONFIG_BEFORE_150.clone());
    }
    add_virtual_size(&mut shaped, version);
    Ok(shaped.into())
}

pub(crate) fn image_list(images: Vec<ImageSummary>, version: ApiVersion) -> Result<Value> {
    images.iter().map(|image| Ok(Value::Object(summary(image, version)?))).collect()
}

pub(super) fn summary(image: &ImageSummary, version: ApiVersion) -> Result<Map<String, Value>> {
    let mut shaped = fields(image)?;
    null_if_empty(&mut shaped, &["Labels"]);
    if version < ApiVersion::minor(48) {
        shaped.remove("Descriptor");
    }
    if version < ApiVersion::minor(47) {
        shaped.remove("Manifests");
    }
    if version < ApiVersion::minor(43) && image.repo_tags.is_empty() {
        // Images without a name were shown by a name that says so.
        shaped.insert("RepoTags".to_owned(), json!(["<none>:<none>"]));
        if image.repo_digests.is_empty() {
            shaped.insert("RepoDigests".to_owned(), json!(["<none>@<none>"]));
        }
    }
    add_virtual_size(&mut shaped, version);
    Ok(shaped)
}

/// `VirtualSize` has been the same as `Size` since long before API 1.44 dropped it.
fn add_virtual_size(image: &mut Map<String, Value>, version: ApiVersion) {
    if version < ApiVersion::minor(44)
        && let Some(size) = image.get("Size").cloned()
    {
        image.insert("VirtualSize".to_owned(), size);
    }
}

pub(crate) fn image_history(history: Vec<ImageHistoryResponseItem>) -> Result<Value> {
    let shaped = history.iter().map(|item| {
        let mut shaped = fields(item)?;
        null_if_empty(&mut shaped, &["Tags"]);
        Ok(Value::Object(shaped))
    });
    shaped.collect()
}

pub(crate) fn image_prune(report: ImagePruneResponse) -> Result<Value> {
    let mut shaped = fields(&report)?;
    fill(&mut shaped, &PRUNE);
    null_if_empty(&mut shaped, &["ImagesDeleted"]);
    Ok(shaped.into())
}
