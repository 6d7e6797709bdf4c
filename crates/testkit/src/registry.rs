//! Debian's `docker-registry` on a loopback port.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::http::{self, Response};
use crate::image::{Image, digest};
use crate::process::{Program, Running};
use crate::{free_port, wait_until};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Who may use a protected registry.
pub const USER: &str = "ann";
/// The password of [`USER`].
pub const PASSWORD: &str = "open sesame";
/// Both, as bcrypt keeps them.
const HTPASSWD: &str = "ann:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n";

/// A registry with an empty store of its own. It ends when dropped.
pub struct Registry {
    address: SocketAddr,
    store: TempDir,
    process: Running,
}

impl Registry {
    /// Starts it and waits until it answers.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with("")
    }

    /// Starts one that lets in nobody but [`USER`] with [`PASSWORD`].
    pub fn protected() -> anyhow::Result<Self> {
        Self::start_with(HTPASSWD)
    }

    fn start_with(users: &str) -> anyhow::Result<Self> {
        let store = tempfile::Builder::new()
            .prefix("skiff-registry-")
            .tempdir()
            .context("make the registry's directory")?;
        let mut last = None;
        // Between the choice of a port and its use another test may take it.
        for _ in 0..3 {
            match Self::start_once(&store, users) {
                Ok((address, process)) => return Ok(Self { address, store, process }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("three attempts were made")?)
    }

    fn start_once(store: &TempDir, users: &str) -> anyhow::Result<(SocketAddr, Running)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let config = store.path().join("config.yml");
        let mut text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: '{address}'}}\n",
            store.path().join("data").display()
        );
        if !users.is_empty() {
            let file = store.path().join("htpasswd");
            fs::write(&file, users).context("write the registry's users")?;
            text += &format!("auth: {{htpasswd: {{realm: skiff, path: {}}}}}\n", file.display());
        }
        fs::write(&config, text).context("write the registry's configuration")?;
        let mut process =
            Program::new("docker-registry").args(["serve".into(), config.into_os_string()]).start()?;
        let mut dead = false;
        let up = wait_until("the registry", Duration::from_secs(15), || {
            dead = !process.is_running();
            (dead || http::get(address, "/v2/").is_ok_and(|answer| [200, 401].contains(&answer.status)))
                .then_some(())
        });
        if dead || up.is_err() {
            let finished = process.finish(Duration::ZERO.max(Duration::from_secs(u64::from(dead))))?;
            anyhow::bail!("the registry did not start\n{finished}");
        }
        Ok((address, process))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The reference of a repository or tag here: `127.0.0.1:PORT/name`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The URL for `--registry-mirror`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where its files are; a test may damage them.
    pub fn data(&self) -> std::path::PathBuf {
        self.store.path().join("data")
    }

    /// Stops answering, as a registry that went away.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.process.signal(rustix::process::Signal::KILL)
    }

    /// Pushes an image and returns its manifest's digest.
    pub fn push(&self, image: &Image, name: &str, tag: &str) -> anyhow::Result<String> {
        for (digest, bytes) in image.blobs() {
            self.push_blob(name, &digest, &bytes)?;
        }
        self.push_manifest(name, tag, MANIFEST, &image.manifest_bytes())
    }

    /// Pushes several platforms of an image under one tag (a manifest list) and returns its digest.
    pub fn push_index(&self, images: &[(&str, &Image)], name: &str, tag: &str) -> anyhow::Result<String> {
        let mut manifests = Vec::new();
        for (architecture, image) in images {
            let bytes = image.manifest_bytes();
            self.push(image, name, &digest(&bytes))?;
            manifests.push(serde_json::json!({
                "mediaType": MANIFEST, "digest": digest(&bytes), "size": bytes.len(),
                "platform": {"architecture": architecture, "os": "linux"},
            }));
        }
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.push_manifest(name, tag, INDEX, index.to_string().as_bytes())
    }

    /// Overwrites a stored blob with other bytes of the same length, as a broken disk would.
    pub fn corrupt_blob(&self, digest: &str) -> anyhow::Result<()> {
        let hex = digest.trim_start_matches("sha256:");
        let path = self.data().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
        let mut bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let middle = bytes.len() / 2;
        bytes.iter_mut().skip(middle).take(64).for_each(|byte| *byte ^= 0x5a);
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
    }

    fn push_blob(&self, name: &str, digest: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let head = http::request("HEAD", self.address, &format!("/v2/{name}/blobs/{digest}"), &[], &[])?;
        if head.status == 200 {
            return Ok(());
        }
        let answer = http::request("POST", self.address, &format!("/v2/{name}/blobs/uploads/"), &[], &[])?;
        let location = accepted(&answer, 202)?.header("location").context("no upload location")?.to_owned();
        let path = location.trim_start_matches(&self.url());
        let separator = if path.contains('?') { '&' } else { '?' };
        let headers = [("Content-Type", "application/octet-stream")];
        let answer = http::request(
            "PUT",
            self.address,
            &format!("{path}{separator}digest={digest}"),
            &headers,
            bytes,
        )?;
        accepted(&answer, 201).map(drop)
    }

    fn push_manifest(&self, name: &str, tag: &str, media_type: &str, bytes: &[u8]) -> anyhow::Result<String> {
        let headers = [("Content-Type", media_type)];
        let answer =
            http::request("PUT", self.address, &format!("/v2/{name}/manifests/{tag}"), &headers, bytes)?;
        accepted(&answer, 201)?;
        Ok(digest(bytes))
    }
}

fn accepted(answer: &Response, status: u16) -> anyhow::Result<&Response> {
    ensure!(
        answer.status == status,
        "the registry answered {} instead of {status}: {}",
        answer.status,
        answer.text()
    );
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_image_can_be_fetched_byte_for_byte() {
        let registry = Registry::start().unwrap();
        let image = Image::layered().unwrap();
        let pushed = registry.push(&image, "test/layered", "v1").unwrap();
        let accept = [("Accept", MANIFEST)];
        let answer =
            http::request("GET", registry.address(), "/v2/test/layered/manifests/v1", &accept, &[]).unwrap();
        assert_eq!((answer.status, answer.header("docker-content-digest")), (200, Some(pushed.as_str())));
        assert_eq!(answer.body, image.manifest_bytes());
        for (digest, bytes) in image.blobs() {
            let answer = http::get(registry.address(), &format!("/v2/test/layered/blobs/{digest}")).unwrap();
            assert_eq!((answer.status, answer.body == bytes), (200, true));
        }
    }

    #[test]
    fn an_index_offers_every_platform() {
        let registry = Registry::start().unwrap();
        let (one, other) = (Image::busybox().unwrap(), Image::busybox().unwrap().with_architecture("s390x"));
        registry.push_index(&[("amd64", &one), ("s390x", &other)], "multi", "latest").unwrap();
        let accept = [("Accept", INDEX)];
        let answer =
            http::request("GET", registry.address(), "/v2/multi/manifests/latest", &accept, &[]).unwrap();
        assert!(answer.text().contains("s390x"), "{}", answer.text());
    }

    #[test]
    fn a_corrupted_blob_has_its_length_but_not_its_digest() {
        let registry = Registry::start().unwrap();
        let image = Image::busybox().unwrap();
        registry.push(&image, "bad", "latest").unwrap();
        let (name, bytes) = image.blobs().into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
        registry.corrupt_blob(&name).unwrap();
        let answer = http::get(registry.address(), &format!("/v2/bad/blobs/{name}")).unwrap();
        assert_eq!(answer.body.len(), bytes.len());
        assert_ne!(digest(&answer.body), name);
    }
}
