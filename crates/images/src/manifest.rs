//! Manifests and manifest lists, Docker's and OCI's, as far as pulling and loading need them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;
use crate::platform::Platform;

pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;
pub(crate) const CONFIG_LIMIT: u64 = 8 << 20;
pub(crate) const MAX_LAYERS: usize = 512;
/// How many lists may be inside one another.
pub(crate) const MAX_NESTING: usize = 3;

pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_PLUGIN: &str = "application/vnd.docker.plugin.v1+json";
/// Foreign layers are somewhere else, and say where.
const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Names a blob by digest, size and type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DescriptorPlatform {
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageManifest {
    #[serde(default)]
    pub media_type: Option<String>,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ManifestList {
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
}

/// Either kind of document that a tag may lead to.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Image(ImageManifest),
    List(ManifestList),
}

impl Document {
    /// Parses a manifest; `media_type` is what the server called it, and may be wrong or missing.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Document, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            schema_version: Option<u32>,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = parse_json("manifest", bytes)?;
        let named = probe.media_type.as_deref().or(media_type).unwrap_or_default();
        if probe.schema_version == Some(1) {
            return Err(Error::OldManifest { suggestion: String::new() });
        }
        match (named, probe.manifests.is_some(), probe.layers.is_some()) {
            (DOCKER_LIST | OCI_INDEX, true, _) | (_, true, false) => {
                Ok(Document::List(parse_json("manifest list", bytes)?))
            }
            (_, _, true) => {
                let manifest: ImageManifest = parse_json("manifest", bytes)?;
                manifest.check()?;
                Ok(Document::Image(manifest))
            }
            _ => Err(Error::Malformed {
                what: "manifest".to_owned(),
                reason: format!("unsupported manifest media type \"{named}\""),
            }),
        }
    }
}

impl Descriptor {
    /// Says whether it is about an image rather than one itself.
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown")
    }
}

impl ImageManifest {
    /// Refuses what Docker's own manifests may hold beside images, before anything is said of a pull.
    pub fn check_docker(&self) -> Result<(), Error> {
        let media_type = self.config.media_type.as_str();
        if self.media_type.as_deref() != Some(DOCKER_MANIFEST)
            || matches!(media_type, DOCKER_CONFIG | "application/octet-stream" | "")
        {
            return Ok(());
        }
        let class = if media_type == DOCKER_PLUGIN { "plugin" } else { "unknown" };
        Err(Error::Invalid { message: format!("Encountered remote \"{media_type}\"({class}) when fetching") })
    }

    /// Refuses artefacts: what is no image can't become one.
    pub fn check_image(&self) -> Result<(), Error> {
        self.check_docker()?;
        let media_type = self.config.media_type.as_str();
        if !self.is_image() {
            return Err(Error::Invalid { message: format!("unsupported media type {media_type}") });
        }
        match self
            .layers
            .iter()
            .find(|layer| layer.media_type == FOREIGN || layer.media_type.ends_with("+encrypted"))
        {
            Some(layer) => Err(Error::Invalid {
                message: format!(
                    "layer {} can't be pulled: media type {} is not supported",
                    layer.digest, layer.media_type
                ),
            }),
            None => Ok(()),
        }
    }

    /// Says whether the configuration is that of an image.
    pub fn is_image(&self) -> bool {
        matches!(
            self.config.media_type.as_str(),
            OCI_CONFIG | DOCKER_CONFIG | "application/octet-stream" | ""
        )
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |reason: String| Error::Malformed { what: "manifest".to_owned(), reason };
        if self.layers.len() > MAX_LAYERS {
            return Err(wrong(format!("{} layers are too many", self.layers.len())));
        }
        if self.config.size > CONFIG_LIMIT {
            return Err(wrong("the image configuration is too large".to_owned()));
        }
        Ok(())
    }
}

impl ManifestList {
    /// Chooses the entry that suits the platform best, the first one among equals.
    pub fn choose(&self, platform: &Platform) -> Result<&Descriptor, Error> {
        self.manifests
            .iter()
            .filter(|d| !d.is_attestation())
            .filter_map(|d| {
                // One that does not say is taken when nothing else fits.
                let Some(p) = &d.platform else { return Some((u32::MAX, d)) };
                let offered = Platform::normalise(&p.os, &p.architecture, &p.variant);
                Some((platform.distance(&offered)?, d))
            })
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, d)| d)
            .ok_or_else(|| Error::NoMatchingManifest { platform: platform.to_string() })
    }
}

/// Reads `null`, as Go writes what is empty, as nothing.
pub(crate) fn or_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Parses JSON and says which document was wrong.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|source| Error::Malformed { what: what.to_owned(), reason: source.to_string() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_best_platform_of_a_list_is_chosen() {
        let d = Digest::of(b"x");
        let entry = |arch: &str, variant: &str| {
            format!(
                r#"{{"digest":"{d}","size":1,"mediaType":"{OCI_MANIFEST}","annotations":{{"v":"{variant}"}},"platform":{{"os":"linux","architecture":"{arch}","variant":"{variant}"}}}}"#
            )
        };
        let list = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{},{}]}}"#,
            entry("arm", "v5"),
            entry("arm", "v7"),
            entry("amd64", ""),
            entry("unknown", "")
        );
        let Document::List(list) = Document::parse(list.as_bytes(), None).unwrap() else {
            panic!("not a list")
        };
        assert_eq!(list.choose(&"linux/arm/v7".parse().unwrap()).unwrap().annotations["v"], "v7");
        assert_eq!(list.choose(&"linux/arm/v6".parse().unwrap()).unwrap().annotations["v"], "v5");
        assert_eq!(
            list.choose(&"linux/arm64/v8".parse().unwrap()).unwrap_err().to_string(),
            "no matching manifest for linux/arm64 in the manifest list entries"
        );
    }

    #[test]
    fn what_go_writes_as_null_is_nothing() {
        let d = Digest::of(b"x");
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{d}","size":1,"mediaType":null,"annotations":null,"platform":{{"os":null}}}}]}}"#
        );
        let Document::List(list) = Document::parse(text.as_bytes(), None).unwrap() else { panic!("no list") };
        assert!(list.manifests[0].annotations.is_empty());
        let text = format!(r#"{{"config":{{"digest":"{d}","size":1}},"layers":[],"annotations":null}}"#);
        assert!(matches!(Document::parse(text.as_bytes(), None).unwrap(), Document::Image(_)));
    }

    #[test]
    fn old_and_strange_manifests_are_refused() {
        assert!(Document::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, None).is_err());
        assert!(Document::parse(br#"{"schemaVersion":2}"#, Some("text/html")).is_err());
        assert!(Document::parse(br#"[]"#, None).is_err());
        let traversal =
            br#"{"schemaVersion":2,"config":{"digest":"sha256:../../../x","size":1},"layers":[]}"#;
        assert!(Document::parse(traversal, None).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse(&bytes, None);
        }
    }
}
