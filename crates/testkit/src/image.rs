//! Images made without docker, from the machine's static busybox.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use tar::EntryType;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// How a layer is packed for a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// A layer being filled: an uncompressed tar.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

/// A finished layer.
#[derive(Debug, Clone)]
struct Packed {
    tar: Vec<u8>,
    blob: Vec<u8>,
    media_type: &'static str,
}

/// An image with all its bytes in memory.
#[derive(Debug, Clone)]
pub struct Image {
    config: Value,
    layers: Vec<Packed>,
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// Starts an empty layer.
    pub fn new() -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        tar.mode(tar::HeaderMode::Deterministic);
        Self { tar }
    }

    /// Adds a directory of mode 0755.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, 0o755, None, &[])
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, bytes: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, mode, None, bytes)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, 0o777, Some(target), &[])
    }

    /// Adds a hard link to an earlier entry.
    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, 0o755, Some(target), &[])
    }

    /// Adds a whiteout: `path` of lower layers disappears.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let slash = if directory.is_empty() { "" } else { "/" };
        self.file(&format!("{directory}{slash}.wh.{name}"), 0o644, &[])
    }

    /// Adds a file of `size` bytes that does not compress, different for every `seed`.
    #[must_use]
    pub fn noise(self, path: &str, size: usize, seed: u64) -> Self {
        let bytes = noise(size, seed);
        self.file(path, 0o644, &bytes)
    }

    /// Adds an entry exactly as given, also with names that well-behaved tools refuse (`../x`, `/x`).
    #[must_use]
    pub fn entry(mut self, kind: EntryType, path: &str, mode: u32, link: Option<&str>, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(bytes.len() as u64);
        // The setters of the tar crate refuse hostile names, which some tests need.
        let old = header.as_old_mut();
        old.name[..path.len().min(100)].copy_from_slice(&path.as_bytes()[..path.len().min(100)]);
        if let Some(link) = link {
            old.linkname[..link.len().min(100)].copy_from_slice(&link.as_bytes()[..link.len().min(100)]);
        }
        header.set_cksum();
        self.tar.append(&header, bytes).expect("writing to memory does not fail");
        self
    }

    /// The uncompressed tar.
    pub fn into_tar(self) -> Vec<u8> {
        self.tar.into_inner().expect("writing to memory does not fail")
    }
}

/// Bytes that do not compress, the same for the same seed (xorshift).
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The digest of bytes in the `sha256:<hex>` form.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Image {
    /// Starts an image without layers for this machine's architecture.
    pub fn scratch() -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "created": "2024-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["sh"],
            },
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [],
        });
        Self { config, layers: Vec::new() }
    }

    /// Busybox with a link per applet, `/etc/passwd`, and a user `app` (1000:1000).
    pub fn busybox() -> anyhow::Result<Self> {
        let program = ["/usr/bin/busybox", "/bin/busybox"].iter().find(|path| Path::new(path).exists());
        let program = program.context("no busybox: install busybox-static")?;
        let listed = Command::new(program).arg("--list").output().context("list busybox's applets")?;
        let bytes = fs::read(program).with_context(|| format!("read {program}"))?;

        let mut layer = Layer::new();
        for path in [
            "bin", "dev", "etc", "home", "home/app", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var",
            "var/www",
        ] {
            layer = layer.dir(path);
        }
        layer = layer
            .file("bin/busybox", 0o755, &bytes)
            .file(
                "etc/passwd",
                0o644,
                b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n",
            )
            .file("etc/group", 0o644, b"root:x:0:\napp:x:1000:\n")
            .file("etc/shadow", 0o640, b"root:*:::::::\napp:!:::::::\n")
            .file("etc/hostname", 0o644, b"image\n");
        for applet in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            if applet != "busybox" {
                layer = layer.symlink(&format!("bin/{applet}"), "busybox");
            }
        }
        Ok(Self::scratch().with_layer(layer, Compression::Gzip))
    }

    /// busybox with `/bin/echo-server PORT`, which gives back every datagram and what comes over any number of connections.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub fn echo() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (source, program) = (directory.path().join("echo.c"), directory.path().join("echo"));
        fs::write(&source, include_str!("echo.c"))?;
        let status = Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .args([&program, &source])
            .status()
            .context("run the C compiler")?;
        anyhow::ensure!(status.success(), "the C compiler failed: {status}");
        let layer = Layer::new().file("bin/echo-server", 0o755, &fs::read(&program)?);
        Ok(Self::busybox()?.with_layer(layer, Compression::None))
    }

    /// Busybox and three small layers: a file that a later layer replaces, one that a later layer hides, and a
    /// directory that the last layer adds to.
    pub fn layered() -> anyhow::Result<Self> {
        let image = Self::busybox()?
            .with_layer(
                Layer::new().dir("data").file("data/replaced", 0o644, b"old\n").file(
                    "data/hidden",
                    0o644,
                    b"gone\n",
                ),
                Compression::Gzip,
            )
            .with_layer(
                Layer::new().file("data/replaced", 0o644, b"new\n").whiteout("data/hidden"),
                Compression::Zstd,
            )
            .with_layer(Layer::new().file("data/added", 0o600, b"added\n"), Compression::None);
        Ok(image)
    }

    /// Busybox and `count` layers of `size` bytes that do not compress.
    pub fn big(count: u64, size: usize) -> anyhow::Result<Self> {
        let mut image = Self::busybox()?;
        for number in 0..count {
            let layer = Layer::new().noise(&format!("big{number}"), size, number + 1);
            image = image.with_layer(layer, Compression::Gzip);
        }
        Ok(image)
    }

    /// Adds a layer.
    #[must_use]
    pub fn with_layer(mut self, layer: Layer, compression: Compression) -> Self {
        let tar = layer.into_tar();
        let (blob, media_type) = match compression {
            Compression::None => (tar.clone(), "application/vnd.oci.image.layer.v1.tar"),
            Compression::Gzip => (gzip(&tar), "application/vnd.oci.image.layer.v1.tar+gzip"),
            Compression::Zstd => {
                let blob = zstd::encode_all(&tar[..], 1).expect("compressing memory does not fail");
                (blob, "application/vnd.oci.image.layer.v1.tar+zstd")
            }
        };
        push(&mut self.config["rootfs"]["diff_ids"], json!(digest(&tar)));
        let comment = format!("layer {}", self.layers.len());
        push(&mut self.config["history"], json!({"created": "2024-01-01T00:00:00Z", "created_by": comment}));
        self.layers.push(Packed { tar, blob, media_type });
        self
    }

    /// Changes a field of the runtime configuration: `with_config("Entrypoint", json!(["/bin/sh"]))`.
    #[must_use]
    pub fn with_config(mut self, field: &str, value: Value) -> Self {
        self.config["config"][field] = value;
        self
    }

    /// Claims another architecture.
    #[must_use]
    pub fn with_architecture(mut self, architecture: &str) -> Self {
        self.config["architecture"] = architecture.into();
        self
    }

    /// The configuration's bytes; their digest is the image id.
    pub fn config_bytes(&self) -> Vec<u8> {
        self.config.to_string().into_bytes()
    }

    /// The image id.
    pub fn id(&self) -> String {
        digest(&self.config_bytes())
    }

    /// The OCI manifest's bytes.
    pub fn manifest_bytes(&self) -> Vec<u8> {
        let config = self.config_bytes();
        let layers: Vec<_> =
            self.layers.iter().map(|layer| descriptor(layer.media_type, &layer.blob)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layers,
        });
        manifest.to_string().into_bytes()
    }

    /// The blobs a registry needs (configuration and layers), by digest.
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let config = self.config_bytes();
        let mut blobs = BTreeMap::from([(digest(&config), config)]);
        blobs.extend(self.layers.iter().map(|layer| (digest(&layer.blob), layer.blob.clone())));
        blobs
    }

    /// A tar as `docker save` writes it: docker-archive and OCI layout in one.
    pub fn archive(&self, tags: &[&str]) -> Vec<u8> {
        let mut archive = self.oci(tags);
        let config = self.config_bytes();
        let path = |bytes: &[u8]| format!("blobs/sha256/{}", hex::encode(Sha256::digest(bytes)));
        let layers: Vec<_> = self.layers.iter().map(|layer| path(&layer.blob)).collect();
        let manifest = json!([{"Config": path(&config), "RepoTags": tags, "Layers": layers}]);
        archive = archive.file("manifest.json", 0o644, manifest.to_string().as_bytes());
        archive.into_tar()
    }

    /// A tar of the old docker-archive form alone: `<id>.json`, `<n>/layer.tar`, `manifest.json`.
    pub fn docker_archive(&self, tags: &[&str]) -> Vec<u8> {
        let config = self.config_bytes();
        let name = format!("{}.json", hex::encode(Sha256::digest(&config)));
        let mut archive = Layer::new().file(&name, 0o644, &config);
        let mut layers = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let path = format!("{number}/layer.tar");
            archive = archive.dir(&number.to_string()).file(&path, 0o644, &layer.tar);
            layers.push(path);
        }
        let manifest = json!([{"Config": name, "RepoTags": tags, "Layers": layers}]);
        archive.file("manifest.json", 0o644, manifest.to_string().as_bytes()).into_tar()
    }

    /// A tar of an OCI image layout alone.
    pub fn oci_archive(&self, tags: &[&str]) -> Vec<u8> {
        self.oci(tags).into_tar()
    }

    fn oci(&self, tags: &[&str]) -> Layer {
        let manifest = self.manifest_bytes();
        let mut archive = Layer::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        archive = archive.dir("blobs").dir("blobs/sha256");
        let mut blobs = self.blobs();
        blobs.insert(digest(&manifest), manifest.clone());
        for (digest, bytes) in &blobs {
            let hex = digest.trim_start_matches("sha256:");
            archive = archive.file(&format!("blobs/sha256/{hex}"), 0o644, bytes);
        }
        let manifests: Vec<_> = tags
            .iter()
            .map(|tag| {
                let mut descriptor = descriptor(MANIFEST, &manifest);
                let short = tag.rsplit_once(':').map_or("latest", |(_, short)| short);
                // `io.containerd.image.name` is what docker reads, the other one is the specification's.
                descriptor["annotations"] =
                    json!({"io.containerd.image.name": full_name(tag), "org.opencontainers.image.ref.name": short});
                descriptor
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
        archive.file("index.json", 0o644, index.to_string().as_bytes())
    }
}

fn full_name(tag: &str) -> String {
    match tag.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => tag.into(),
        Some(_) => format!("docker.io/{tag}"),
        None => format!("docker.io/library/{tag}"),
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_readable_tars_whose_parts_match_their_digests() {
        let image = Image::layered().unwrap();
        let archive = image.archive(&["busybox:latest"]);
        let mut reader = tar::Archive::new(&archive[..]);
        let mut names = Vec::new();
        for entry in reader.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            if let Some(hex) =
                path.to_str().unwrap().strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty())
            {
                assert_eq!(digest(&bytes), format!("sha256:{hex}"));
            }
            names.push(path.to_str().unwrap().to_owned());
        }
        for name in ["manifest.json", "index.json", "oci-layout"] {
            assert!(names.iter().any(|path| path == name), "{name} is missing");
        }
        assert_eq!(image.id(), Image::layered().unwrap().id(), "the same image every time");
    }

    #[test]
    fn tags_get_the_name_docker_would_store() {
        assert_eq!(full_name("busybox:1"), "docker.io/library/busybox:1");
        assert_eq!(full_name("skiff/toolbox:1"), "docker.io/skiff/toolbox:1");
        assert_eq!(full_name("127.0.0.1:5000/a:1"), "127.0.0.1:5000/a:1");
    }
}
