//! Pushing: to a real registry, again, next door, with troubles, without rights.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use skiff_images::{Auth, Code, Secret, Silent};

use crate::content::{Layer, Packing, TestImage, noise, tar_of};
use crate::load::docker_archive;
use crate::registry::Registry;
use crate::server::{Answer, Server};
use crate::workspace::{Events, Workspace};

fn layers() -> Vec<Layer> {
    let large = tar_of(&[("data", &noise(7, 2 << 20))]);
    vec![Layer::file("etc/one", b"1", Packing::Plain), Layer::new(large, Packing::Plain)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_image_is_pushed_and_comes_back_the_same() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let store = workspace.open();
    let name = registry.name("a/b:v1");
    let archive = docker_archive(&layers(), &[&name]);
    let id = store.load(&archive[..], None, &Silent).await.unwrap().remove(0).image.id;
    let events = Events::default();
    let pushed = store.push(&name, None, &events).await.unwrap().remove(0);
    assert!(events.has(&format!("The push refers to repository [{}]", registry.name("a/b"))));
    assert!(events.has("Pushed"), "{:?}", events.statuses());
    assert!(events.has(&format!("v1: digest: {} size: {}", pushed.digest, pushed.size)));
    let digests = store.get(&id).unwrap().repo_digests;
    assert_eq!(digests, [format!("{}@{}", registry.name("a/b"), pushed.digest)]);

    let again = Events::default();
    assert_eq!(store.push(&name, None, &again).await.unwrap(), std::slice::from_ref(&pushed));
    assert!(again.has("Layer already exists") && !again.has("Pushed"), "{:?}", again.statuses());
    assert_eq!(workspace.names("staging"), [""; 0]);

    // Another machine, and this one after a restart, agree on the digest.
    drop(store);
    let reopened = workspace.open();
    assert_eq!(reopened.push(&name, None, &Silent).await.unwrap()[0].digest, pushed.digest);
    let elsewhere = Workspace::new();
    let pulled = elsewhere.open().pull(&name, None, None, &Silent).await.unwrap();
    assert_eq!(pulled.id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_keeps_its_manifest_and_is_mounted_next_door() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = TestImage::new(
        vec![Layer::file("x", b"x", Packing::Gzip), Layer::file("y", b"y", Packing::Zstd)],
        "amd64",
    );
    let digest = registry.push("from/here", "1", &image);
    let store = workspace.open();
    store.pull(&registry.name("from/here:1"), Some("linux/amd64"), None, &Silent).await.unwrap();
    for tag in ["1", "2"] {
        store.tag(&registry.name("from/here:1"), &registry.name(&format!("to/there:{tag}"))).unwrap();
    }
    let events = Events::default();
    let pushed = store.push(&registry.name("to/there"), None, &events).await.unwrap();
    assert_eq!(pushed.iter().map(|p| p.tag.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert!(pushed.iter().all(|p| p.digest == digest), "{pushed:?}");
    assert!(events.has("Mounted from from/here"), "{:?}", events.statuses());
    let found = store.describe_remote(&registry.name("to/there:2"), None).await.unwrap();
    assert_eq!(found["Descriptor"]["digest"], digest.to_string());
    assert_eq!(found["Platforms"][0]["architecture"], "amd64");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_a_moment_is_tried_again() {
    let uploads = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&uploads);
    let server = Server::start(move |asked| match asked.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        "POST" => Answer::new(202, "").with("Location", "/upload/1?state=x"),
        "PATCH" if seen.fetch_add(1, Ordering::SeqCst) < 2 => Answer::new(500, ""),
        "PATCH" => Answer::new(202, "").with("Location", "/upload/2?state=y"),
        "PUT" if asked.path.starts_with("/upload/2?state=y&digest=sha256%3A") => Answer::new(201, ""),
        "PUT" if asked.path == "/v2/x/manifests/1" => Answer::new(201, ""),
        _ => Answer::new(400, ""),
    })
    .await;
    let workspace = Workspace::new();
    let store = workspace.open();
    let name = format!("127.0.0.1:{}/x:1", server.port);
    // Text only: the little server reads its bodies as text.
    let archive = docker_archive(&[], &[&name]);
    store.load(&archive[..], None, &Silent).await.unwrap();
    store.push(&name, None, &Silent).await.unwrap();
    assert_eq!(uploads.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_missing_names_have_the_words_of_docker() {
    let server = Server::start(|asked| match asked.header("authorization") {
        "Basic bWU6cHc=" if asked.path == "/v2/" => Answer::new(200, "{}"),
        "Basic bWU6cHc=" => Answer::new(
            403,
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
        ),
        _ => Answer::new(401, "{}").with("WWW-Authenticate", "Basic realm=x"),
    })
    .await;
    let workspace = Workspace::new();
    let store = workspace.open();
    let host = format!("127.0.0.1:{}", server.port);
    let user = |password: &str| Auth {
        username: "me".to_owned(),
        password: Secret::new(password),
        ..Auth::default()
    };

    let missing = store.push("nothing:here", None, &Silent).await.unwrap_err();
    assert_eq!(missing.to_string(), "An image does not exist locally with the tag: nothing");
    let missing = store.push("nothing", None, &Silent).await.unwrap_err();
    assert_eq!(missing.to_string(), "An image does not exist locally with the tag: nothing");
    let archive = docker_archive(&layers(), &[&format!("{host}/x:1")]);
    store.load(&archive[..], None, &Silent).await.unwrap();
    let denied = store.push(&format!("{host}/x:1"), Some(user("pw")), &Silent).await.unwrap_err();
    // A HEAD's answer has no body to explain itself.
    assert_eq!(denied.to_string(), "denied: requested access to the resource is denied");

    store.login(&host, user("pw")).await.unwrap();
    let wrong = store.login(&host, user("no")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::Unauthorized);
    assert_eq!(
        wrong.to_string(),
        format!("Get \"http://{host}/v2/\": unauthorized: incorrect username or password")
    );
}
