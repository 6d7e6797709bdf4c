//! A real `docker-registry` on a loopback port, filled through its HTTP API.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skiff_images::Digest;

use crate::content::{OCI_INDEX, OCI_MANIFEST, TestImage};

/// Runs until dropped.
pub struct Registry {
    child: Child,
    directory: tempfile::TempDir,
    pub port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub fn start() -> Registry {
        for _ in 0..5 {
            if let Some(registry) = Registry::try_start() {
                return registry;
            }
        }
        panic!("docker-registry does not start");
    }

    fn try_start() -> Option<Registry> {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = directory.path().join("config.yml");
        let storage = directory.path().join("data");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's docker-registry is installed");
        let mut registry = Registry { child, directory, port };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if registry.child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok()
                && registry.request("GET", "/v2/", &[], b"").0 == 200
            {
                return Some(registry);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }

    /// Pushes an image under a tag and returns the manifest's digest.
    pub fn push(&self, repository: &str, tag: &str, image: &TestImage) -> Digest {
        self.push_blobs(repository, image);
        self.push_manifest(repository, tag, image.media_type, &image.manifest)
    }

    pub fn push_list(&self, repository: &str, tag: &str, list: &[u8], images: &[&TestImage]) -> Digest {
        for image in images {
            self.push_blobs(repository, image);
            let digest = Digest::of(&image.manifest).to_string();
            self.push_manifest(repository, &digest, OCI_MANIFEST, &image.manifest);
        }
        self.push_manifest(repository, tag, OCI_INDEX, list)
    }

    fn push_blobs(&self, repository: &str, image: &TestImage) {
        self.push_blob(repository, &image.config);
        for layer in &image.layers {
            self.push_blob(repository, &layer.blob);
        }
    }

    fn push_blob(&self, repository: &str, blob: &[u8]) {
        let (status, head, _) = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(status, 202, "{head}");
        let location = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase().starts_with("location:").then(|| line[9..].trim().to_owned())
            })
            .expect("an upload has a location");
        let path = location
            .split_once("://")
            .map_or(location.as_str(), |(_, rest)| &rest[rest.find('/').unwrap()..]);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={}", Digest::of(blob));
        let (status, head, body) =
            self.request("PUT", &path, &[("Content-Type", "application/octet-stream")], blob);
        assert_eq!(status, 201, "{head} {body:?}");
    }

    fn push_manifest(&self, repository: &str, name: &str, media_type: &str, manifest: &[u8]) -> Digest {
        let path = format!("/v2/{repository}/manifests/{name}");
        let (status, head, body) = self.request("PUT", &path, &[("Content-Type", media_type)], manifest);
        assert_eq!(status, 201, "{head} {}", String::from_utf8_lossy(&body));
        Digest::of(manifest)
    }

    /// The file in which the registry keeps a blob, to damage it.
    pub fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.directory.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.port,
            body.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(answer.len());
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, head, answer.get(end + 4..).unwrap_or_default().to_vec())
    }
}
