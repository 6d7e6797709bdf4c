//! Image configurations, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use skiff_images::Platform;

use super::go;
use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::instruction::Health;

/// What every history entry of a Dockerfile says.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";
/// The search path of images that have none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// `MAINTAINER`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Architecture.
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    /// Variant of the architecture.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Operating system.
    #[serde(deserialize_with = "nullable")]
    pub os: String,
    /// Version of it.
    #[serde(rename = "os.version", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features of it.
    #[serde(rename = "os.features", deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// How containers run.
    #[serde(deserialize_with = "nullable")]
    pub config: Config,
    /// The layers.
    #[serde(deserialize_with = "nullable")]
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// How many bytes were recorded in it.
    #[serde(skip)]
    pub recorded: usize,
}

/// How containers of an image run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// User.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Environment.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Entrypoint.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Command.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Volumes.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Directory.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Stop signal.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for what is built on it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Whether the command is one for a shell, or was: Docker says so of every `CMD` of a Dockerfile.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// The shell of commands.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// `{}`: Go's sets are maps to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A health check. Durations are in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// The command.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks then.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// How many failures make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Their digests.
    #[serde(deserialize_with = "nullable")]
    pub diff_ids: Vec<String>,
}

/// One step of how an image was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Something about it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

impl Image {
    /// The configuration of scratch.
    pub fn empty(platform: &Platform) -> Image {
        let mut image = Image {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            ..Image::default()
        };
        image.config.working_dir = "/".to_owned();
        image.config.env = vec![format!("PATH={DEFAULT_PATH}")];
        image
    }

    /// Reads a base image's.
    ///
    /// # Errors
    /// Something that is none.
    pub fn parse(json: &[u8]) -> Result<Image> {
        // A list would be taken for the fields in their order.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(Fault::new("failed to parse image config: not an object"));
        }
        serde_json::from_slice(json)
            .map_err(|error| Fault::new(format!("failed to parse image config: {error}")))
    }

    /// Writes it.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys and plain values always become JSON")
    }

    /// The platform that it says it is for.
    pub fn platform(&self) -> Platform {
        Platform::normalise(&self.os, &self.architecture, &self.variant)
    }

    /// Whether it has no file at all.
    pub fn is_scratch(&self) -> bool {
        self.rootfs.diff_ids.is_empty() && self.history.iter().all(|entry| entry.empty_layer)
    }

    /// Adds what an instruction did.
    pub fn record(&mut self, message: String, layer: Layer, created: Option<&str>) {
        let created_by = if layer == Layer::Built { format!("{message} # buildkit") } else { message };
        self.recorded += created_by.len() + 64;
        self.history.push(History {
            created: created.map(str::to_owned),
            created_by,
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: layer == Layer::None,
            ..History::default()
        });
    }
}

/// What an instruction left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Nothing but configuration.
    None,
    /// A layer with nothing but a directory (`WORKDIR`).
    Directory,
    /// A layer.
    Built,
}

impl From<&Health> for Healthcheck {
    fn from(health: &Health) -> Healthcheck {
        Healthcheck {
            test: health.test.clone(),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        }
    }
}

impl Healthcheck {
    /// As BuildKit writes it into the history.
    pub fn history(&self) -> String {
        let time = |nanoseconds| format!("\"{}\"", go::duration(nanoseconds));
        format!(
            "HEALTHCHECK &{{{} {} {} {} {} {}}}",
            go::quote_list(&self.test),
            time(self.interval),
            time(self.timeout),
            time(self.start_period),
            time(self.start_interval),
            go::quote_letter(self.retries),
        )
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go takes `null` for everything.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_with_nulls_and_unknown_keys_is_read() {
        let json =
            br#"{"architecture":"amd64","os":"linux","x":1,"author":null,"config":{"Env":null,"Cmd":["a"],
            "Labels":null,"OnBuild":["RUN x"],"Healthcheck":{"Test":["NONE"]},"ExposedPorts":{"80/tcp":{}}},
            "rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let image = Image::parse(json).unwrap();
        assert_eq!(image.config.cmd, ["a"]);
        assert_eq!(image.config.on_build, ["RUN x"]);
        assert!(image.is_scratch());
        let again = Image::parse(&image.to_json()).unwrap();
        assert_eq!(again, image);
        assert!(Image::parse(b"[]").is_err());
        assert!(Image::parse(b"{\"config\":7}").is_err());
    }

    #[test]
    fn a_health_check_is_written_as_go_prints_it() {
        let check = Healthcheck {
            test: vec!["CMD-SHELL".into(), "curl \"x\"".into()],
            interval: 30_000_000_000,
            timeout: 1_500_000_000,
            retries: 3,
            ..Healthcheck::default()
        };
        assert_eq!(
            check.history(),
            "HEALTHCHECK &{[\"CMD-SHELL\" \"curl \\\"x\\\"\"] \"30s\" \"1.5s\" \"0s\" \"0s\" '\\x03'}"
        );
    }
}
