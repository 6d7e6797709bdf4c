//! Manifests: what they refer to. Their bytes are never changed.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Refusal, Result};
use crate::name::Digest;

/// The largest manifest, in bytes.
pub const MAX_SIZE: usize = 4 << 20;
/// The media type of the list that referrers are shown as.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How many things a manifest may refer to.
const MAX_REFERENCES: usize = 10_000;

/// What a manifest says.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// Blobs that must be there.
    pub blobs: Vec<Digest>,
    /// Manifests that must be there.
    pub manifests: Vec<Digest>,
    /// What it says something about.
    pub subject: Option<Digest>,
    /// How it is listed as a referrer.
    pub artifact_type: String,
    /// Notes that are listed with it.
    pub annotations: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    blobs: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
}

impl Manifest {
    /// Reads one.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest> {
        let invalid = |why: String| Refusal::manifest_invalid(why);
        let body: Body = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if body.schema_version != Some(2) {
            return Err(invalid("only manifests of schema version 2 are taken".to_owned()));
        }
        let content_type = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
        let media_type = match (&body.media_type, content_type) {
            (Some(own), Some(said)) if own != said => {
                return Err(invalid(format!("its media type is {own}, the request's {said}")));
            }
            (Some(own), _) => own.clone(),
            (None, Some(said)) => said.to_owned(),
            (None, None) if body.manifests.is_some() => OCI_INDEX.to_owned(),
            (None, None) => OCI_MANIFEST.to_owned(),
        };
        if media_type.len() > 255
            || !media_type.is_ascii()
            || media_type.bytes().any(|b| b.is_ascii_control())
        {
            return Err(invalid("its media type is none".to_owned()));
        }
        let lists = [&body.layers, &body.blobs, &body.manifests];
        if lists.into_iter().flatten().map(Vec::len).sum::<usize>() > MAX_REFERENCES {
            return Err(invalid(format!("it refers to more than {MAX_REFERENCES} things")));
        }
        let digest = |descriptor: &Descriptor| {
            Digest::parse(&descriptor.digest)
                .map_err(|_| invalid(format!("{} is no digest", descriptor.digest)))
        };
        let all = |list: &Option<Vec<Descriptor>>| -> Result<Vec<Digest>> {
            // Foreign layers are somewhere else.
            let here = list.iter().flatten().filter(|one| {
                !one.media_type.contains("foreign") && !one.media_type.contains("nondistributable")
            });
            here.map(digest).collect()
        };
        let mut blobs: Vec<Digest> = body.config.iter().map(digest).collect::<Result<_>>()?;
        blobs.extend(all(&body.layers)?);
        blobs.extend(all(&body.blobs)?);
        let artifact_type = match (&body.artifact_type, &body.config) {
            (Some(kind), _) => kind.clone(),
            (None, Some(config)) => config.media_type.clone(),
            (None, None) => String::new(),
        };
        Ok(Manifest {
            media_type,
            manifests: all(&body.manifests)?,
            subject: body.subject.as_ref().map(digest).transpose()?,
            artifact_type,
            annotations: body.annotations.map_or(Value::Null, Value::Object),
            blobs,
        })
    }

    /// How it is listed as a referrer.
    pub fn descriptor(&self, digest: &Digest, size: usize) -> Value {
        let mut descriptor =
            json!({"mediaType": self.media_type, "digest": digest.to_string(), "size": size});
        if !self.artifact_type.is_empty() {
            descriptor["artifactType"] = self.artifact_type.clone().into();
        }
        if !self.annotations.is_null() {
            descriptor["annotations"] = self.annotations.clone();
        }
        descriptor
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_manifest_tells_what_it_needs() {
        let digest = Digest::of(crate::name::Algorithm::Sha256, b"x").to_string();
        let text = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "a/b",
            "config": {"mediaType": "c", "digest": digest},
            "layers": [{"digest": digest}, {"mediaType": "x.foreign.y", "digest": digest}],
            "subject": {"digest": digest}, "annotations": {"k": "v"},
        })
        .to_string();
        let manifest = Manifest::parse(
            text.as_bytes(),
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
        )
        .unwrap();
        assert_eq!((manifest.blobs.len(), manifest.manifests.len()), (2, 0));
        let shown = manifest.descriptor(&Digest::parse(&digest).unwrap(), 7);
        assert_eq!(shown["artifactType"], "a/b");
        assert_eq!(shown["annotations"]["k"], "v");
        assert!(Manifest::parse(text.as_bytes(), Some(OCI_INDEX)).is_err());
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            "{\"schemaVersion\":1}",
            "{\"schemaVersion\":2,\"layers\":[{\"digest\":\"x\"}]}",
            "{\"schemaVersion\":2,\"layers\":7}",
            "{\"schemaVersion\":2,\"mediaType\":\"a\\nb\"}",
        ] {
            assert_eq!(
                Manifest::parse(text.as_bytes(), None).unwrap_err().code,
                "MANIFEST_INVALID",
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes, None);
        }
    }
}
