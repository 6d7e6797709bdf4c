//! Volumes.

use std::sync::LazyLock;

use bollard_stubs::models::{Volume, VolumeListResponse, VolumePruneResponse};
use serde_json::{Map, Value, json};

use super::{elements, fields, fill, null_if_empty};
use crate::error::Result;

static LIST: LazyLock<Value> = LazyLock::new(|| json!({ "Volumes": [], "Warnings": null }));
static PRUNE: LazyLock<Value> = LazyLock::new(|| json!({ "VolumesDeleted": [], "SpaceReclaimed": 0 }));

pub(crate) fn volume(volume: Volume) -> Result<Value> {
    let mut shaped = fields(&volume)?;
    shape(&mut shaped);
    Ok(shaped.into())
}

pub(crate) fn volume_list(list: VolumeListResponse) -> Result<Value> {
    let mut shaped = fields(&list)?;
    fill(&mut shaped, &LIST);
    elements(&mut shaped, "Volumes").filter_map(Value::as_object_mut).for_each(shape);
    Ok(shaped.into())
}

pub(crate) fn volume_prune(report: VolumePruneResponse) -> Result<Value> {
    let mut shaped = fields(&report)?;
    fill(&mut shaped, &PRUNE);
    Ok(shaped.into())
}

pub(super) fn shape(volume: &mut Map<String, Value>) {
    fill(volume, &json!({ "Scope": "local" }));
    null_if_empty(volume, &["Labels", "Options"]);
}
