//! From the models to dockerd's JSON.
//!
//! The models leave out what is `None`; dockerd's Go types always write most fields, as `null`, `""`, `0` or `[]`, and
//! clients in typed languages rely on that. Each file here holds, per answer, a template of the fields that dockerd
//! always writes, with their zero values; what the backend left out is filled in from it. Fields that only older API
//! versions have are added to answers of those versions, and newer ones removed.

mod containers;
mod images;
mod networks;
mod system;
mod volumes;

use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use containers::{container, container_list, container_prune, exec, stats, top};
pub(crate) use images::{image, image_history, image_list, image_prune};
pub(crate) use networks::{network, network_list, network_prune};
pub(crate) use system::{disk_usage, event, info, version};
pub(crate) use volumes::{volume, volume_list, volume_prune};

use crate::error::{ApiError, Result};

/// Go's zero time.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Turns a model, which is always an object, into its fields.
fn fields(model: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(model) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ApiError::internal("cannot write the answer as JSON: it is no object")),
        Err(error) => Err(ApiError::internal(format!("cannot write the answer as JSON: {error}"))),
    }
}

/// Adds the template's fields that are missing, also in objects that both have.
fn fill(fields: &mut Map<String, Value>, template: &Value) {
    let Value::Object(template) = template else { return };
    for (name, zero) in template {
        match fields.get_mut(name) {
            None => {
                fields.insert(name.clone(), zero.clone());
            }
            Some(Value::Object(inner)) => fill(inner, zero),
            Some(_) => {}
        }
    }
}

/// Fills every object of a list or map of objects.
fn fill_each<'a>(values: impl IntoIterator<Item = &'a mut Value>, template: &Value) {
    for value in values {
        if let Value::Object(fields) = value {
            fill(fields, template);
        }
    }
}

/// Returns the elements of a list or map field.
fn elements<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> Box<dyn Iterator<Item = &'a mut Value> + 'a> {
    match fields.get_mut(name) {
        Some(Value::Array(list)) => Box::new(list.iter_mut()),
        Some(Value::Object(map)) => Box::new(map.values_mut()),
        _ => Box::new(std::iter::empty()),
    }
}

/// Returns the fields of an object field.
fn object<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    fields.get_mut(name)?.as_object_mut()
}

/// Writes `null` where a list or map is empty: Go does for those that were never made.
fn null_if_empty(fields: &mut Map<String, Value>, names: &[&str]) {
    for name in names {
        if let Some(value) = fields.get_mut(*name)
            && is_empty(value)
        {
            *value = Value::Null;
        }
    }
}

/// Leaves out what is empty: Go does for fields marked `omitempty`.
fn omit_if_empty(fields: &mut Map<String, Value>, names: &[&str]) {
    for name in names {
        if fields.get(*name).is_some_and(is_empty) {
            fields.remove(*name);
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
