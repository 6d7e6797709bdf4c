//! A registry that runs in this process.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use skiff_registry::{Options, Server, Tls, Users};
use skiff_testkit::http::{self, Response};
use skiff_testkit::image::digest;
use tempfile::TempDir;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub struct Subject {
    pub address: SocketAddr,
    pub root: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Subject {
    pub fn start() -> Subject {
        Subject::start_with(Users::default(), None, false)
    }

    pub fn start_with(users: Users, tls: Option<Tls>, read_only: bool) -> Subject {
        let root = tempfile::tempdir().unwrap();
        Subject::start_in(root, users, tls, read_only)
    }

    pub fn start_in(root: TempDir, users: Users, tls: Option<Tls>, read_only: bool) -> Subject {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options =
            Options { root: root.path().to_owned(), address: "127.0.0.1:0".into(), users, tls, read_only };
        let server = runtime.block_on(Server::bind(options)).unwrap();
        let address = server.address().unwrap();
        runtime.spawn(server.run());
        Subject { address, root, _runtime: runtime }
    }

    /// Ends it and starts another in the same directory.
    pub fn restart(self) -> Subject {
        let Subject { root, _runtime: runtime, .. } = self;
        drop(runtime);
        Subject::start_in(root, Users::default(), None, false)
    }

    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        http::request(method, self.address, path, headers, body).unwrap()
    }

    pub fn get(&self, path: &str) -> Response {
        self.call("GET", path, &[], &[])
    }

    pub fn status(&self, method: &str, path: &str) -> u16 {
        self.call(method, path, &[], &[]).status
    }

    /// Pushes a blob at once; returns its digest.
    pub fn blob(&self, name: &str, data: &[u8]) -> String {
        let digest = digest(data);
        let answer = self.call("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], data);
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest
    }

    /// Pushes a small image; returns its manifest's digest.
    pub fn image(&self, name: &str, reference: &str, extra: Value) -> String {
        let config = self.blob(name, b"{}");
        let layer = self.blob(name, name.as_bytes());
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": name.len()}],
        });
        manifest.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
        let bytes = manifest.to_string().into_bytes();
        let digest = digest(&bytes);
        let reference = if reference.is_empty() { &digest } else { reference };
        let answer = self.put(name, reference, MANIFEST, &bytes);
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        digest
    }

    pub fn put(&self, name: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Response {
        let path = format!("/v2/{name}/manifests/{reference}");
        self.call("PUT", &path, &[("Content-Type", media_type)], bytes)
    }

    pub fn blob_file(&self, digest: &str) -> std::path::PathBuf {
        self.root.path().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }
}

pub fn code(answer: &Response) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}

pub fn body(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// Says whether nothing is left of uploads.
pub fn nothing_left(root: &Path) -> bool {
    std::fs::read_dir(root.join("uploads")).unwrap().next().is_none()
}
