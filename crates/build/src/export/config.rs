//! The configuration of an image: what the frontend says, with the layers filled in.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// The comment of history entries that only the layers tell of.
const COMMENT: &str = "buildkit.exporter.image.v0";
/// Where the inline cache is.
pub(crate) const INLINE_CACHE: &str = "moby.buildkit.cache.v0";

/// Completes a configuration. `created` are the layers' times (RFC 3339) and what made them.
pub(super) fn complete(
    given: Option<&[u8]>,
    layers: &[String],
    created: &[(String, String)],
    epoch: Option<i64>,
    inline: Option<Value>,
) -> Result<Vec<u8>> {
    let wrong = |error: serde_json::Error| Error::invalid(format!("invalid image configuration: {error}"));
    let mut config: Map<String, Value> = match given {
        Some(bytes) => serde_json::from_slice(bytes).map_err(wrong)?,
        None => Map::new(),
    };
    let host = skiff_images::Platform::host();
    config.entry("architecture").or_insert_with(|| Value::from(host.architecture));
    config.entry("os").or_insert_with(|| Value::from("linux"));
    config.entry("config").or_insert_with(|| json!({}));
    let epoch = epoch.map(text);
    let history = match config.remove("history") {
        Some(Value::Array(history)) => history,
        _ => Vec::new(),
    };
    let history = history_of(history, created, epoch.as_deref());
    let last = history.iter().rev().find_map(|entry| entry.get("created").cloned());
    if let Some(epoch) = &epoch {
        config.insert("created".to_owned(), Value::from(epoch.as_str()));
    } else if !config.get("created").is_some_and(Value::is_string) {
        config.insert("created".to_owned(), last.unwrap_or_else(|| Value::from(now())));
    }
    config.insert("history".to_owned(), Value::Array(history));
    config.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": layers }));
    if let Some(inline) = inline {
        config.insert(INLINE_CACHE.to_owned(), inline);
    }
    serde_json::to_vec(&config).map_err(wrong)
}

fn history_of(mut history: Vec<Value>, created: &[(String, String)], epoch: Option<&str>) -> Vec<Value> {
    let is_empty = |entry: &Value| entry.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
    let mut of_layers = history.iter().filter(|entry| !is_empty(entry)).count();
    // More entries than layers: the first ones can't be right.
    for entry in &mut history {
        if of_layers > created.len() && !is_empty(entry) {
            entry["empty_layer"] = Value::from(true);
            of_layers -= 1;
        }
    }
    for (time, description) in created.iter().skip(of_layers) {
        history.push(json!({ "created": time, "created_by": description, "comment": COMMENT }));
    }
    let mut times = created.iter();
    let mut last: Option<String> = None;
    for entry in &mut history {
        let time = if is_empty(entry) { None } else { times.next().map(|(time, _)| time) };
        let given = entry.get("created").and_then(Value::as_str).map(str::to_owned);
        let time = epoch.map(str::to_owned).filter(|_| given.is_none()).or(given).or_else(|| time.cloned());
        if let Some(time) = time.or_else(|| last.clone()) {
            entry["created"] = Value::from(time.as_str());
            last = Some(time);
        }
    }
    // A first entry that changes no files happened with the first one that does.
    let first = history.iter().find_map(|entry| entry.get("created").cloned());
    let first = first.unwrap_or_else(|| Value::from(epoch.map_or_else(now, str::to_owned)));
    for entry in &mut history {
        if entry.get("created").is_none_or(Value::is_null) {
            entry["created"] = first.clone();
        }
    }
    history
}

/// Seconds since 1970 as RFC 3339.
pub(crate) fn text(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(n: usize) -> Vec<(String, String)> {
        (0..n).map(|n| (text(n as i64), format!("step {n}"))).collect()
    }

    #[test]
    fn history_and_layers_agree_whatever_the_frontend_says() {
        let given = br#"{"history":[{"created_by":"A"},{"created_by":"B","empty_layer":true}],"config":{"Cmd":["x"]}}"#;
        let layers = vec!["sha256:1".to_owned(), "sha256:2".to_owned()];
        let bytes = complete(Some(given), &layers, &times(2), None, None).unwrap();
        let config: Value = serde_json::from_slice(&bytes).unwrap();
        let history = config["history"].as_array().unwrap();
        assert_eq!(history.len(), 3);
        assert_eq!(history[0]["created"], "1970-01-01T00:00:00Z");
        assert_eq!(history[1]["created"], "1970-01-01T00:00:00Z");
        assert_eq!((&history[2]["created_by"], &history[2]["comment"]), (&json!("step 1"), &json!(COMMENT)));
        assert_eq!(config["created"], "1970-01-01T00:00:01Z");
        assert_eq!(config["rootfs"]["diff_ids"], json!(layers));
        assert_eq!(complete(Some(given), &layers, &times(2), None, None).unwrap(), bytes);
    }

    #[test]
    fn the_epoch_is_the_time_of_everything_new() {
        let given =
            br#"{"history":[{"created_by":"base","created":"2020-01-01T00:00:00Z"},{"created_by":"A"}]}"#;
        let layers = vec!["sha256:1".to_owned(), "sha256:2".to_owned()];
        let bytes = complete(Some(given), &layers, &times(2), Some(7), None).unwrap();
        let config: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(config["created"], "1970-01-01T00:00:07Z");
        assert_eq!(config["history"][0]["created"], "2020-01-01T00:00:00Z");
        assert_eq!(config["history"][1]["created"], "1970-01-01T00:00:07Z");
    }
}
