//! Registries that answer with something else than an image, several tags, or search results.

use std::collections::HashMap;

use serde_json::{Value, json};
use skiff_images::{Code, Digest, Parents, Search, Silent};

use crate::content::{DOCKER_MANIFEST, Layer, OCI_INDEX, OCI_MANIFEST, Packing, TestImage, descriptor, list};
use crate::server::{Answer, Asked, Server};
use crate::workspace::{Events, Workspace};

/// What a registry has, by the path that it is asked for.
#[derive(Default)]
struct Contents {
    paths: HashMap<String, (String, Vec<u8>)>,
}

impl Contents {
    fn blob(&mut self, name: &str, bytes: &[u8]) {
        let path = format!("/v2/{name}/blobs/{}", Digest::of(bytes));
        self.paths.insert(path, ("application/octet-stream".to_owned(), bytes.to_vec()));
    }

    fn manifest(&mut self, name: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        for named in [tag.to_owned(), Digest::of(bytes).to_string()] {
            self.paths
                .insert(format!("/v2/{name}/manifests/{named}"), (media_type.to_owned(), bytes.to_vec()));
        }
    }

    /// An image whose manifest and configuration were changed first.
    fn image(&mut self, name: &str, tag: &str, change: impl FnOnce(&mut Value, &mut Value)) -> Value {
        let image = TestImage::new(vec![Layer::file("a", b"hello", Packing::Gzip)], "amd64");
        let mut config: Value = serde_json::from_slice(&image.config).unwrap();
        let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
        config["architecture"] = json!(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
        change(&mut manifest, &mut config);
        let config = config.to_string().into_bytes();
        let kind = manifest["config"]["mediaType"].clone();
        manifest["config"] = descriptor(kind.as_str().unwrap(), &config);
        let manifest = manifest.to_string().into_bytes();
        self.blob(name, &config);
        self.blob(name, &image.layers[0].blob);
        self.manifest(name, tag, OCI_MANIFEST, &manifest);
        descriptor(OCI_MANIFEST, &manifest)
    }

    async fn serve(self) -> Server {
        Server::start(move |asked: &Asked| match self.paths.get(&asked.path) {
            Some((media_type, body)) => Answer::new(200, body.clone()).with("Content-Type", media_type),
            None => {
                Answer::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
            }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_is_refused_in_the_words_of_docker_and_leaves_nothing() {
    let mut contents = Contents::default();
    let kind = |manifest: &mut Value, media_type: &str| manifest["config"]["mediaType"] = json!(media_type);
    contents.image("artefact", "1", |m, _| kind(m, "application/vnd.oci.empty.v1+json"));
    contents.image("plugin", "1", |m, _| {
        m["mediaType"] = json!(DOCKER_MANIFEST);
        kind(m, "application/vnd.docker.plugin.v1+json");
    });
    contents.image("foreign", "1", |m, _| {
        m["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    });
    contents.image("windows", "1", |_, c| c["os"] = json!("windows"));
    contents.image("created", "1", |_, c| c["created"] = json!("yesterday"));
    contents.image("history", "1", |_, c| c["history"] = json!([{"created_by": "a"}, {"created_by": "b"}]));
    contents.image("rootfs", "1", |_, c| drop(c.as_object_mut().unwrap().remove("rootfs")));
    contents.image("small", "1", |m, _| m["layers"][0]["size"] = json!(5));
    contents.image("large", "1", |m, _| m["layers"][0]["size"] = json!(5000));
    contents.image("env", "1", |_, c| c["config"]["Env"] = json!({"a": "b"}));
    contents.image("layers", "1", |m, _| {
        let one = m["layers"][0].clone();
        m["layers"] = Value::Array(vec![one; 513]);
    });
    contents.image("config", "1", |_, c| c["config"]["Labels"] = json!({"large": "x".repeat(9 << 20)}));
    contents.manifest("other", "1", OCI_INDEX, &list(&[descriptor(OCI_MANIFEST, b"what was promised")]));
    contents.paths.insert(
        format!("/v2/other/manifests/{}", Digest::of(b"what was promised")),
        (OCI_MANIFEST.to_owned(), b"{}".to_vec()),
    );
    contents.manifest("old", "1", OCI_MANIFEST, br#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#);
    contents.manifest("html", "1", "text/html", b"<html>");
    contents.manifest("none", "1", OCI_INDEX, &list(&[]));
    contents.manifest("huge", "1", OCI_MANIFEST, &vec![b' '; 5 << 20]);
    let server = contents.serve().await;
    let workspace = Workspace::new();
    let store = workspace.open();
    for (name, words) in [
        ("artefact", "unsupported media type application/vnd.oci.empty.v1+json"),
        ("plugin", "Encountered remote \"application/vnd.docker.plugin.v1+json\"(plugin) when fetching"),
        ("foreign", "foreign.diff.tar.gzip is not supported"),
        ("windows", "image operating system \"windows\" cannot be used on this platform"),
        ("created", "parsing time \"yesterday\""),
        ("history", "too many non-empty layers in History section"),
        ("rootfs", "invalid rootfs in image configuration"),
        ("small", "sends more than the 5 bytes"),
        ("large", "unexpected EOF"),
        ("env", "expected a sequence"),
        (
            "old",
            "schema 1 support is disabled by default and will be removed in an upcoming release. Suggest the author of 127.0.0.1:",
        ),
        ("html", "manifest: "),
        ("layers", "513 layers are too many"),
        ("config", "the image configuration is too large"),
        ("other", "manifest verification failed for digest sha256:"),
        ("none", "no matching manifest for linux/"),
        ("huge", "larger than 4194304 bytes"),
    ] {
        let name = format!("127.0.0.1:{}/{name}:1", server.port);
        let error = store.pull(&name, None, None, &Silent).await.unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
    assert!(store.list().is_empty());
    workspace.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_may_be_in_lists_and_entries_without_a_platform() {
    let mut contents = Contents::default();
    let mine = contents.image("many", "plain", |_, _| {});
    let attestation = json!({
        "mediaType": OCI_MANIFEST, "digest": Digest::of(b"a").as_str(), "size": 3,
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    });
    let mut inner = list(&[attestation, mine]);
    contents.manifest("many", "1", OCI_INDEX, &inner);
    for depth in 2..=5 {
        inner = list(&[descriptor(OCI_INDEX, &inner)]);
        contents.manifest("many", &depth.to_string(), OCI_INDEX, &inner);
    }
    let server = contents.serve().await;
    let workspace = Workspace::new();
    let store = workspace.open();
    let name = |tag: u32| format!("127.0.0.1:{}/many:{tag}", server.port);
    for tag in 1..=3 {
        store.pull(&name(tag), None, None, &Silent).await.unwrap();
    }
    let error = store.pull(&name(5), None, None, &Silent).await.unwrap_err().to_string();
    assert!(error.contains("nested too deeply"), "{error}");
    assert_eq!(store.list().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_are_pulled_however_many_pages_name_them() {
    let mut contents = Contents::default();
    for tag in ["one", "two"] {
        contents.image("app", tag, |_, _| {});
    }
    let server = Server::start(move |asked: &Asked| match asked.path.as_str() {
        "/v2/app/tags/list" => Answer::new(200, r#"{"name":"app","tags":["one"]}"#)
            .with("Link", "</v2/app/tags/list?last=one>; rel=\"next\""),
        // A page elsewhere is nobody's next page.
        "/v2/app/tags/list?last=one" => Answer::new(200, r#"{"name":"app","tags":["two","-odd"]}"#)
            .with("Link", "<http://127.0.0.1:1/v2/app/tags/list>; rel=\"next\""),
        "/v2/gone/tags/list" => Answer::new(
            404,
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#,
        ),
        path => match contents.paths.get(path) {
            Some((media_type, body)) => Answer::new(200, body.clone()).with("Content-Type", media_type),
            None => Answer::new(404, ""),
        },
    })
    .await;
    let workspace = Workspace::new();
    let store = workspace.open();
    let name = format!("127.0.0.1:{}/app", server.port);
    let events = Events::default();
    store.pull_all(&name, None, None, &events).await.unwrap();
    assert_eq!(store.list()[0].repo_tags, [format!("{name}:one"), format!("{name}:two")]);
    assert!(events.has(&format!("Status: Downloaded newer image for {name}")), "{:?}", events.statuses());
    let again = Events::default();
    store.pull_all(&name, None, None, &again).await.unwrap();
    assert!(again.has(&format!("Status: Image is up to date for {name}")), "{:?}", again.statuses());
    let gone = format!("127.0.0.1:{}/gone", server.port);
    let error = store.pull_all(&gone, None, None, &Silent).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("repository {gone} not found: name unknown: repository name not known to registry")
    );
    // Another platform's image is pulled and said to be another's.
    let other = store.pull(&format!("{name}:one"), Some("linux/s390x"), None, &Silent).await.unwrap_err();
    assert_eq!(other.code(), Code::NotFound);
    assert!(
        other.to_string().contains("does not match the specified platform: wanted linux/s390x"),
        "{other}"
    );
    store.remove(&format!("{name}:one"), false, Parents::Prune, &|_| None).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_searched() {
    let server = Server::start(|asked: &Asked| match asked.path.as_str() {
        "/v1/search?q=a%2Fb&n=25" => Answer::new(
            200,
            r#"{"num_results":1,"query":"a/b","results":[{"star_count":3,"is_official":true,"name":"a/b","is_automated":true,"description":"d"}]}"#,
        ),
        _ => Answer::new(404, ""),
    })
    .await;
    let workspace = Workspace::new();
    let store = workspace.open();
    let search =
        |term: &str, limit| Search { term: format!("127.0.0.1:{}/{term}", server.port), limit, auth: None };
    let found = store.search(search("a/b", 0)).await.unwrap();
    assert_eq!((found.len(), found[0].star_count, found[0].is_automated), (1, 3, false));
    let error = store.search(search("other", 5)).await.unwrap_err().to_string();
    assert_eq!(error, "Unexpected status code 404");
    let error = store.search(search("x", 101)).await.unwrap_err().to_string();
    assert_eq!(error, "limit 101 is outside the range of [1, 100]");
    let term = "http://x".to_owned();
    let error = store.search(Search { term, ..Search::default() }).await.unwrap_err().to_string();
    assert!(error.ends_with("(http://x) should not have a scheme"), "{error}");
}
