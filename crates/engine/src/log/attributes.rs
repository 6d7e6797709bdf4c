//! What `logs --details` shows of a container: the labels, variables and tag that its log options name.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use regex::Regex;

use crate::error::{Error, Result};
use crate::names;
use crate::state::Record;

/// Checks the options that name attributes.
pub fn check(options: &HashMap<String, String>) -> Result<()> {
    for key in ["labels-regex", "env-regex"] {
        pattern(options, key)?;
    }
    match options.get("tag") {
        Some(tag) => render(tag, &|_| Some(String::new())).map(drop),
        None => Ok(()),
    }
}

/// What each line of a container's log begins with: `key=value,key=value`, escaped as in a query, and a blank.
pub fn prefix(record: &Record) -> Bytes {
    let pairs: Vec<String> =
        of(record).iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    format!("{} ", pairs.join(",")).into()
}

fn of(record: &Record) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let Some(options) = record.host_config.log_config.as_ref().and_then(|log| log.config.as_ref()) else {
        return attributes;
    };
    let labels: Vec<(&str, &str)> =
        record.config.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let variables: Vec<(&str, &str)> =
        record.config.env.iter().flatten().filter_map(|entry| entry.split_once('=')).collect();
    for (kind, pairs) in [("labels", labels), ("env", variables)] {
        let named: Vec<&str> = options.get(kind).map(|names| names.split(',').collect()).unwrap_or_default();
        // Patterns were checked when the container was created.
        let pattern = pattern(options, &format!("{kind}-regex")).ok().flatten();
        for (key, value) in pairs {
            if named.contains(&key) || pattern.as_ref().is_some_and(|pattern| pattern.is_match(key)) {
                attributes.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty())
        && let Ok(tag) = render(tag, &|field| field_of(record, field))
    {
        attributes.insert("tag".to_owned(), tag);
    }
    attributes
}

fn pattern(options: &HashMap<String, String>, key: &str) -> Result<Option<Regex>> {
    let Some(text) = options.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
    Regex::new(text).map(Some).map_err(|_| Error::invalid(format!("error parsing regexp: {text:?}")))
}

/// The fields that a tag's template knows.
const FIELDS: [&str; 8] =
    ["Command", "DaemonName", "FullID", "ID", "ImageFullID", "ImageID", "ImageName", "Name"];

fn field_of(record: &Record, field: &str) -> Option<String> {
    let image = record.image_id.strip_prefix("sha256:").unwrap_or(&record.image_id);
    Some(match field {
        "Command" => std::iter::once(&record.path).chain(&record.args).cloned().collect::<Vec<_>>().join(" "),
        "DaemonName" => "docker".to_owned(),
        "FullID" => record.id.clone(),
        "ID" => names::short(&record.id).to_owned(),
        "ImageFullID" => record.image_id.clone(),
        "ImageID" => names::short(image).to_owned(),
        "ImageName" => record.config.image.clone().unwrap_or_default(),
        "Name" => record.name.clone(),
        _ => return None,
    })
}

/// Fills the fields of a template in; of Go's templates only `{{.Field}}` is known.
fn render(template: &str, field: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let failed = |why: String| Error::invalid(format!("template: log-tag:1: {why}"));
    let mut out = String::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once("{{") {
        out.push_str(text);
        let (action, after) = after.split_once("}}").ok_or_else(|| failed("unclosed action".to_owned()))?;
        let name = action.trim().strip_prefix('.').unwrap_or(action.trim());
        if !FIELDS.contains(&name) {
            return Err(failed(format!(
                "can't evaluate {{{{{action}}}}}: use one of .{}",
                FIELDS.join(", .")
            )));
        }
        out.push_str(&field(name).unwrap_or_default());
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Escapes as Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_escaped_as_in_a_query() {
        assert_eq!(escape("a b/c=d,é~"), "a+b%2Fc%3Dd%2C%C3%A9~");
    }

    #[test]
    fn tags_are_templates_of_fields() {
        let name = |field: &str| Some(format!("<{field}>"));
        assert_eq!(render("{{.Name}}/{{ .ID }}!", &name).unwrap(), "<Name>/<ID>!");
        assert_eq!(render("plain", &name).unwrap(), "plain");
        for wrong in ["{{.Nope}}", "{{.Name", "{{printf \"x\"}}"] {
            assert!(render(wrong, &name).unwrap_err().message.starts_with("template: log-tag:1:"), "{wrong}");
        }
    }
}
