//! Makes layers, configurations and manifests.

use std::io::Write as _;

use serde_json::{Value, json};
use skiff_images::Digest;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// How a layer travels.
#[derive(Debug, Clone, Copy)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer: the tar and what travels.
#[derive(Debug, Clone)]
pub struct Layer {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
    pub media_type: &'static str,
}

impl Layer {
    pub fn new(tar: Vec<u8>, packing: Packing) -> Layer {
        let (blob, media_type) = match packing {
            Packing::Plain => (tar.clone(), "application/vnd.oci.image.layer.v1.tar"),
            Packing::Gzip => (gzip(&tar), "application/vnd.oci.image.layer.v1.tar+gzip"),
            Packing::Zstd => {
                (zstd::encode_all(&tar[..], 1).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd")
            }
        };
        Layer { tar, blob, media_type }
    }

    /// A layer with one file.
    pub fn file(name: &str, data: &[u8], packing: Packing) -> Layer {
        Layer::new(tar_of(&[(name, data)]), packing)
    }

    pub fn diff_id(&self) -> Digest {
        Digest::of(&self.tar)
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.blob)
    }
}

/// An image: its configuration and manifest.
#[derive(Debug, Clone)]
pub struct TestImage {
    pub layers: Vec<Layer>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
}

impl TestImage {
    pub fn new(layers: Vec<Layer>, architecture: &str) -> TestImage {
        let diff_ids = layers.iter().map(|l| l.diff_id().to_string()).collect();
        TestImage::with_diff_ids(layers, architecture, diff_ids)
    }

    pub fn with_diff_ids(layers: Vec<Layer>, architecture: &str, diff_ids: Vec<String>) -> TestImage {
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
            "history": diff_ids.iter().map(|_| json!({"created_by": "ADD x"})).collect::<Vec<_>>(),
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|l| descriptor(l.media_type, &l.blob)).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        TestImage { layers, config, manifest, media_type: OCI_MANIFEST }
    }

    /// The same with Docker's own media types.
    pub fn docker(mut self) -> TestImage {
        let text = String::from_utf8(self.manifest).unwrap();
        let text = text.replace(OCI_MANIFEST, DOCKER_MANIFEST);
        let text = text.replace("vnd.oci.image.config.v1+json", "vnd.docker.container.image.v1+json");
        self.manifest = text
            .replace("vnd.oci.image.layer.v1.tar+gzip", "vnd.docker.image.rootfs.diff.tar.gzip")
            .into_bytes();
        self.media_type = DOCKER_MANIFEST;
        self
    }

    pub fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    /// The manifest's entry in a list.
    pub fn entry(&self, architecture: &str) -> Value {
        let mut entry = descriptor(OCI_MANIFEST, &self.manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    }
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).as_str(), "size": bytes.len()})
}

pub fn list(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string().into_bytes()
}

pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that no compression shrinks, different for every seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
