//! An image as callers see it: parsed configuration, names, sizes, history.

use std::collections::HashMap;
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;
use serde_json::Value;

use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::parse_json;
use crate::platform::Platform;

/// An image of the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:` and the digest of the configuration, which is Docker's image id.
    pub id: String,
    /// Familiar names with tags, sorted.
    pub repo_tags: Vec<String>,
    /// Familiar names with digests, sorted.
    pub repo_digests: Vec<String>,
    /// When it was made, RFC 3339, as the configuration says.
    pub created: Option<String>,
    /// Bytes of all layers' files.
    pub size: u64,
    /// Architecture in Go's words.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Variant of the architecture, or empty.
    pub variant: String,
    /// Layers from the lowest to the top.
    pub layers: Vec<Digest>,
    /// Labels of the configuration.
    pub labels: HashMap<String, String>,
    /// The author that the configuration names.
    pub author: String,
    /// The comment of the last history entry or of the configuration.
    pub comment: String,
    /// The image this one was built on here; pulled images have none.
    pub parent: Option<String>,
    /// When the image last got a name here, seconds since 1970.
    pub last_tagged: Option<i64>,
    /// The parsed configuration.
    pub config: Arc<ImageConfiguration>,
    /// The configuration as it is, with fields that only Docker knows (health check, shell, on-build).
    pub raw_config: Arc<Value>,
}

/// One line of `docker history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image id for the newest entry, `<missing>` for the others.
    pub id: String,
    /// When, RFC 3339.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// The names of the image, for the newest entry.
    pub tags: Vec<String>,
    /// Bytes of the entry's layer.
    pub size: u64,
    /// A remark.
    pub comment: String,
}

impl Image {
    /// Returns the platform of the image, in its normal form.
    pub fn platform(&self) -> Platform {
        Platform::normalise(&self.os, &self.architecture, &self.variant)
    }
}

impl Image {
    /// Checks that the image is for a platform; `reference` is what the user called it.
    ///
    /// # Errors
    /// [`Error::OtherPlatform`] in Docker's words.
    pub fn check_platform(&self, reference: &str, wanted: &Platform) -> Result<(), Error> {
        let own = self.platform();
        match wanted.distance(&own) {
            Some(_) => Ok(()),
            None => Err(Error::OtherPlatform {
                reference: reference.to_owned(),
                wanted: wanted.to_string(),
                actual: own.to_string(),
            }),
        }
    }
}

/// A configuration taken apart.
#[derive(Debug, Clone)]
pub(crate) struct ParsedConfig {
    pub id: Digest,
    pub diff_ids: Vec<Digest>,
    pub config: Arc<ImageConfiguration>,
    pub raw: Arc<Value>,
}

impl ParsedConfig {
    /// Parses a configuration; its id is the digest of the bytes.
    pub fn parse(bytes: &[u8]) -> Result<ParsedConfig, Error> {
        let mut raw: Value = parse_json("image configuration", bytes)?;
        words_of_texts(&mut raw);
        let mut tolerant = raw.clone();
        drop_nulls(&mut tolerant);
        if let Some(object) = tolerant.as_object_mut() {
            object.entry("os").or_insert_with(|| Value::from("linux"));
            object.entry("architecture").or_insert_with(|| Value::from(Platform::host().architecture));
        }
        if let Some(rootfs) = tolerant.get_mut("rootfs").and_then(Value::as_object_mut) {
            rootfs.entry("diff_ids").or_insert_with(|| Value::Array(Vec::new()));
        }
        let wrong = |reason: String| Error::Malformed { what: "image configuration".to_owned(), reason };
        if tolerant.get("rootfs").is_none() {
            return Err(Error::Invalid { message: "invalid rootfs in image configuration".to_owned() });
        }
        let config: ImageConfiguration =
            serde_json::from_value(tolerant).map_err(|source| wrong(source.to_string()))?;
        let diff_ids = config
            .rootfs()
            .diff_ids()
            .iter()
            .map(|text| {
                text.parse::<Digest>().map_err(|source| wrong(format!("diff id \"{text}\": {source}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(ParsedConfig { id: Digest::of(bytes), diff_ids, config: Arc::new(config), raw: Arc::new(raw) })
    }

    /// The platform, in its normal form.
    pub fn platform(&self) -> Platform {
        let variant = self.raw.get("variant").and_then(Value::as_str).unwrap_or_default();
        Platform::normalise(&self.config.os().to_string(), &self.config.architecture().to_string(), variant)
    }

    /// Checks a configuration from outside for what Docker refuses: one that was let in once stays readable.
    pub fn check(&self) -> Result<(), Error> {
        let refused = |message: String| Err(Error::Invalid { message });
        let created = self.config.created().as_deref();
        let histories = self.config.history().iter().flatten();
        let times = created.into_iter().chain(histories.clone().filter_map(|h| h.created().as_deref()));
        for time in times {
            if time.parse::<jiff::Timestamp>().is_err() {
                return refused(format!(
                    "parsing time \"{time}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{time}\" as \"2006\""
                ));
            }
        }
        let filled = histories.filter(|history| !history.empty_layer().unwrap_or(false)).count();
        if filled > self.diff_ids.len() {
            return refused("too many non-empty layers in History section".to_owned());
        }
        let os = self.config.os().to_string();
        if os != "linux" {
            return refused(format!(
                "image operating system \"{os}\" cannot be used on this platform: operating system is not supported"
            ));
        }
        Ok(())
    }

    /// Makes the image that callers see.
    pub fn image(&self, size: u64, parent: Option<String>, last_tagged: Option<i64>) -> Image {
        let text = |key: &str| self.raw.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let labels = self.config.config().as_ref().and_then(|c| c.labels().clone()).unwrap_or_default();
        let comment = match text("comment") {
            comment if !comment.is_empty() => comment,
            _ => self
                .config
                .history()
                .as_ref()
                .and_then(|h| h.last())
                .and_then(|h| h.comment().clone())
                .unwrap_or_default(),
        };
        Image {
            id: self.id.to_string(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            created: self.config.created().clone(),
            size,
            architecture: self.config.architecture().to_string(),
            os: self.config.os().to_string(),
            variant: text("variant"),
            layers: self.diff_ids.clone(),
            labels,
            author: text("author"),
            comment,
            parent,
            last_tagged,
            config: Arc::clone(&self.config),
            raw_config: Arc::clone(&self.raw),
        }
    }
}

/// Makes the lines of `docker history`; `sizes` are those of the layers, lowest first.
pub(crate) fn history(image: &Image, sizes: &[u64]) -> Vec<HistoryEntry> {
    let mut sizes = sizes.iter();
    let mut entries: Vec<HistoryEntry> = image
        .config
        .history()
        .iter()
        .flatten()
        .map(|h| HistoryEntry {
            id: "<missing>".to_owned(),
            created: h.created().clone(),
            created_by: h.created_by().clone().unwrap_or_default(),
            tags: Vec::new(),
            size: if h.empty_layer().unwrap_or(false) { 0 } else { sizes.next().copied().unwrap_or(0) },
            comment: h.comment().clone().unwrap_or_default(),
        })
        .collect();
    // Layers that no history entry speaks of still show.
    entries.extend(sizes.map(|size| HistoryEntry {
        id: "<missing>".to_owned(),
        created: image.created.clone(),
        created_by: String::new(),
        tags: Vec::new(),
        size: *size,
        comment: String::new(),
    }));
    entries.reverse();
    if let Some(newest) = entries.first_mut() {
        newest.id.clone_from(&image.id);
        newest.tags.clone_from(&image.repo_tags);
    }
    entries
}

/// Makes lists of commands that are written as one text, which Docker reads as one word.
fn words_of_texts(raw: &mut Value) {
    for key in ["Cmd", "Entrypoint"] {
        if let Some(command @ Value::String(_)) = raw.get_mut("config").and_then(|config| config.get_mut(key))
        {
            *command = Value::Array(vec![command.take()]);
        }
    }
}

/// Removes null members: Docker writes `"Volumes":null` where the specification wants nothing.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, v| !v.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(array) => array.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_full_of_nulls_is_read() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","author":null,
            "config":{{"Cmd":["sh"],"Entrypoint":null,"Env":["A=b"],"ExposedPorts":{{"80/tcp":{{}}}},"Labels":{{"x":"y"}},
            "Volumes":null,"OnBuild":null,"WorkingDir":"","User":"","Healthcheck":{{"Test":["NONE"]}}}},
            "history":[{{"created_by":"ADD","created":"2024-01-01T00:00:00Z"}},{{"created_by":"CMD","empty_layer":true}}],
            "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(b"l")
        );
        let parsed = ParsedConfig::parse(text.as_bytes()).unwrap();
        let image = parsed.image(5, None, None);
        assert_eq!(image.id, Digest::of(text.as_bytes()).to_string());
        assert_eq!(image.labels["x"], "y");
        let history = history(&image, &[5]);
        assert_eq!(history.iter().map(|h| h.size).collect::<Vec<_>>(), [0, 5]);
        assert_eq!(history[0].id, image.id);
        assert_eq!(image.raw_config["config"]["Healthcheck"]["Test"][0], "NONE");
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let text = |more: &str| {
            let config = format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":[]}}{more}}}"#);
            ParsedConfig::parse(config.as_bytes()).unwrap().check().map_err(|error| error.to_string())
        };
        assert_eq!(text(""), Ok(()));
        assert_eq!(text(r#","history":[{"created_by":"a","empty_layer":true}]"#), Ok(()));
        let many = text(r#","history":[{"created_by":"a"}]"#).unwrap_err();
        assert_eq!(many, "too many non-empty layers in History section");
        assert!(text(r#","created":"yesterday""#).unwrap_err().starts_with("parsing time \"yesterday\""));
        let none = ParsedConfig::parse(br#"{"os":"linux"}"#).unwrap_err().to_string();
        assert_eq!(none, "invalid rootfs in image configuration");
    }

    #[test]
    fn a_command_may_be_one_text() {
        let parsed = ParsedConfig::parse(
            br#"{"config":{"Cmd":["x"],"Entrypoint":"/a b"},"rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        assert_eq!(parsed.raw["config"]["Entrypoint"], serde_json::json!(["/a b"]));
        assert_eq!(parsed.raw["config"]["Cmd"], serde_json::json!(["x"]));
    }

    #[test]
    fn a_configuration_without_layers_or_platform_is_read() {
        let parsed = ParsedConfig::parse(br#"{"rootfs":{"type":"layers","diff_ids":null}}"#).unwrap();
        assert!(parsed.diff_ids.is_empty());
        assert!(ParsedConfig::parse(br#"{"rootfs":{"type":"layers","diff_ids":["../x"]}}"#).is_err());
        assert!(ParsedConfig::parse(b"{}").is_err());
    }
}
