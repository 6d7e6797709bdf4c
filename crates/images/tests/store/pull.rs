//! Pulling: contents, names, progress, texts of failures, cut connections, several pulls at once.

use std::io::Write as _;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use skiff_images::{Code, Config, Dial, Digest, Io, Silent, Store, TcpDial};

use crate::content::{Layer, Packing, TestImage, list, noise, tar_of};
use crate::proxy::{Proxy, Trouble};
use crate::registry::Registry;
use crate::workspace::{Events, Workspace};

const MIB: usize = 1 << 20;

pub fn two_layers(seed: u64) -> TestImage {
    let layers = vec![
        Layer::new(tar_of(&[("etc/one", b"1"), ("etc/both", b"low")]), Packing::Gzip),
        Layer::new(tar_of(&[("etc/both", b"top"), ("data", &noise(seed, 3 * MIB))]), Packing::Zstd),
    ];
    TestImage::new(layers, "amd64")
}

fn host() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_list_is_pulled_with_its_names_and_contents() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let (image, other) =
        (two_layers(1), TestImage::new(vec![Layer::file("x", b"x", Packing::Plain)], "other"));
    let index = list(&[other.entry("other"), image.entry(host())]);
    let digest = registry.push_list("a/b", "v1", &index, &[&image, &other]);
    let store = workspace.open();
    let (name, events) = (registry.name("a/b:v1"), Events::default());
    let pulled = store.pull(&name, None, None, &events).await.unwrap();
    assert_eq!(pulled.id, image.id());
    assert_eq!(pulled.repo_tags, std::slice::from_ref(&name));
    assert_eq!(pulled.repo_digests, [format!("{}@{digest}", registry.name("a/b"))]);
    let lower = store.lower_dirs(&pulled.id).unwrap();
    assert_eq!(std::fs::read(lower[0].join("etc/both")).unwrap(), b"top");
    assert_eq!(std::fs::read(lower[0].join("data")).unwrap(), noise(1, 3 * MIB));
    assert_eq!(std::fs::read(lower[1].join("etc/both")).unwrap(), b"low");
    assert_eq!(pulled.size, 3 * MIB as u64 + 3 + 3 + 1);
    for status in [
        "Pulling from a/b",
        "Pulling fs layer",
        "Downloading",
        "Download complete",
        "Extracting",
        "Pull complete",
    ] {
        assert!(events.has(status), "{status} is missing in {:?}", events.statuses());
    }
    assert!(events.has(&format!("Digest: {digest}")));
    assert!(events.has(&format!("Status: Downloaded newer image for {name}")));

    // Every way to name it leads to it.
    let id = pulled.id.clone();
    for way in [
        id.clone(),
        id[7..].to_owned(),
        id[7..19].to_owned(),
        id[..15].to_owned(),
        pulled.repo_digests[0].clone(),
    ] {
        assert_eq!(store.get(&way).unwrap().id, id, "{way}");
    }
    // Again: nothing to do. And after a new start it is still there.
    let again = Events::default();
    store.pull(&name, None, None, &again).await.unwrap();
    assert!(!again.has("Already exists") && again.has(&format!("Status: Image is up to date for {name}")));
    drop(store);
    let store = workspace.open();
    assert_eq!(store.list().len(), 1);
    assert_eq!(store.history(&name).unwrap().len(), 2);
    assert_eq!(workspace.names("partial"), [""; 0]);
    assert_eq!(workspace.names("staging"), [""; 0]);
    // By digest, and for the other platform.
    let by_digest =
        store.pull(&format!("{}@{digest}", registry.name("a/b")), Some("linux/other"), None, &Silent).await;
    assert_eq!(by_digest.unwrap().id, other.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_goes_on_where_it_stopped() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = TestImage::new(vec![Layer::file("data", &noise(2, 8 * MIB), Packing::Gzip)], "amd64");
    registry.push("cut", "latest", &image);
    let proxy = Proxy::start(registry.port, Trouble::Cut(3 * MIB as u64), 2, false).await;
    let name = format!("127.0.0.1:{}/cut", proxy.port);
    workspace.open().pull(&name, None, None, &Silent).await.unwrap();
    assert_eq!(proxy.troubles(), 2);
    let ranges = proxy.ranges();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    let size = image.layers[0].blob.len() as u64;
    assert!(proxy.down() < size + 512 * 1024, "{} bytes for a layer of {size}", proxy.down());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = TestImage::new(vec![Layer::file("data", &noise(3, 4 * MIB), Packing::Zstd)], "amd64");
    registry.push("cut", "latest", &image);
    let proxy = Proxy::start(registry.port, Trouble::Cut(2 * MIB as u64), 1, true).await;
    let store = workspace.open();
    let pulled = store.pull(&format!("127.0.0.1:{}/cut", proxy.port), None, None, &Silent).await.unwrap();
    assert_eq!(proxy.ranges().len(), 1);
    assert!(proxy.down() > 6 * MIB as u64);
    let lower = store.lower_dirs(&pulled.id).unwrap();
    assert_eq!(std::fs::read(lower[0].join("data")).unwrap(), noise(3, 4 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_download_is_noticed_and_goes_on() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = TestImage::new(vec![Layer::file("data", &noise(4, 4 * MIB), Packing::Gzip)], "amd64");
    registry.push("stall", "latest", &image);
    let proxy = Proxy::start(registry.port, Trouble::Stall(2 * MIB as u64), 1, false).await;
    workspace.open().pull(&format!("127.0.0.1:{}/stall", proxy.port), None, None, &Silent).await.unwrap();
    assert_eq!((proxy.troubles(), proxy.ranges().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_always_cut_gives_up_with_an_error() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = TestImage::new(vec![Layer::file("data", &noise(5, 2 * MIB), Packing::Gzip)], "amd64");
    registry.push("cut", "latest", &image);
    let file = registry.blob_file(&image.layers[0].digest());
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..MIB]).unwrap();
    let store = workspace.open();
    let error = store.pull(&registry.name("cut"), None, None, &Silent).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    workspace.assert_clean();
    assert_eq!(workspace.partial_bytes(), MIB as u64, "what has come is kept");
    // The registry is mended: the rest comes, and the whole is right.
    std::fs::write(&file, &whole).unwrap();
    store.pull(&registry.name("cut"), None, None, &Silent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_layer_is_refused_and_leaves_nothing() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = two_layers(6);
    registry.push("bad", "latest", &image);
    let digest = image.layers[1].digest();
    let file = registry.blob_file(&digest);
    let whole = std::fs::read(&file).unwrap();
    for at in [20, whole.len() / 2, whole.len() - 2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::File::create(&file).unwrap().write_all(&bytes).unwrap();
        let store = workspace.open();
        let error = store.pull(&registry.name("bad"), None, None, &Silent).await.unwrap_err();
        assert_eq!(error.to_string(), format!("filesystem layer verification failed for digest {digest}"));
        assert!(store.list().is_empty());
        workspace.assert_clean();
        assert!(!workspace.names("partial").contains(&digest.hex().to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_kept_download_costs_only_time() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = TestImage::new(vec![Layer::file("data", &noise(7, 2 * MIB), Packing::Gzip)], "amd64");
    registry.push("x", "latest", &image);
    drop(workspace.open());
    // As after a power cut: the length is there, the bytes are not.
    std::fs::write(workspace.root().join("partial").join(image.layers[0].digest().hex()), vec![0; MIB])
        .unwrap();
    workspace.open().pull(&registry.name("x"), None, None, &Silent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_diff_id_and_a_wrong_layer_count_are_refused() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let layer = Layer::file("x", b"x", Packing::Gzip);
    let lie = Digest::of(b"lie").to_string();
    registry.push("lie", "1", &TestImage::with_diff_ids(vec![layer.clone()], "amd64", vec![lie.clone()]));
    registry.push("lie", "2", &TestImage::with_diff_ids(vec![layer.clone()], "amd64", vec![]));
    let store = workspace.open();
    let error = store.pull(&registry.name("lie:1"), None, None, &Silent).await.unwrap_err().to_string();
    assert!(error.contains("layers from manifest don't match image configuration"), "{error}");
    let error = store.pull(&registry.name("lie:2"), None, None, &Silent).await.unwrap_err().to_string();
    assert!(error.contains("layers from manifest don't match image configuration"), "{error}");
    workspace.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_layer_download_it_once() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let shared = Layer::file("data", &noise(8, 6 * MIB), Packing::Gzip);
    let size = shared.blob.len() as u64;
    let own = |name: &str| Layer::file(name, name.as_bytes(), Packing::Gzip);
    registry.push("one", "latest", &TestImage::new(vec![shared.clone(), own("a")], "amd64"));
    registry.push("two", "latest", &TestImage::new(vec![shared.clone(), own("b"), shared.clone()], "amd64"));
    let proxy = Proxy::start(registry.port, Trouble::Nothing, 0, false).await;
    let store = workspace.open();
    let name = |n: &str| format!("127.0.0.1:{}/{n}", proxy.port);
    let (one, two) = (name("one"), name("two"));
    let (one, two) =
        tokio::join!(store.pull(&one, None, None, &Silent), store.pull(&two, None, None, &Silent));
    assert_eq!(one.unwrap().layers[0], two.unwrap().layers[2]);
    assert!(proxy.down() < size + 200 * 1024, "{} bytes for a layer of {size}", proxy.down());
    assert_eq!(workspace.names("layers").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_the_words_of_docker() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = two_layers(9);
    registry.push_list("x", "other", &list(&[image.entry("riscv64")]), &[&image]);
    let store = workspace.open();
    let error = |name: String| {
        let store = store.clone();
        async move { store.pull(&name, Some("linux/arm64"), None, &Silent).await.unwrap_err() }
    };
    let name = registry.name("x");
    let missing = error(format!("{name}:nope")).await;
    assert_eq!(
        missing.to_string(),
        format!("manifest for {name}:nope not found: manifest unknown: manifest unknown")
    );
    assert_eq!(missing.code(), Code::NotFound);
    let platform = error(format!("{name}:other")).await;
    assert_eq!(platform.to_string(), "no matching manifest for linux/arm64 in the manifest list entries");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(
        error(format!("127.0.0.1:{port}/x")).await.to_string(),
        format!(
            "Get \"http://127.0.0.1:{port}/v2/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
    );
    assert_eq!(
        error("registry.invalid/x".to_owned()).await.to_string(),
        "Get \"https://registry.invalid/v2/\": dial tcp: lookup registry.invalid: no such host"
    );
    assert_eq!(error("UPPER".to_owned()).await.code(), Code::InvalidArgument);
    assert_eq!(store.get("nothing").unwrap_err().to_string(), "No such image: nothing:latest");
}

/// Reaches nothing but the loopback, and remembers what was wanted.
#[derive(Default)]
struct LoopbackOnly(std::sync::Mutex<Vec<String>>);

impl Dial for LoopbackOnly {
    fn dial<'a>(
        &'a self,
        tls: bool,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, std::io::Result<Box<dyn Io>>> {
        self.0.lock().unwrap().push(host.to_owned());
        if host == "127.0.0.1" {
            return TcpDial.dial(tls, host, port);
        }
        Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_docker_hub_and_the_hub_is_asked_after_it() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = two_layers(10).docker();
    registry.push("library/toolbox", "latest", &image);
    let dial = Arc::new(LoopbackOnly::default());
    let config = Config {
        mirrors: vec!["http://127.0.0.1:1".to_owned(), format!("http://127.0.0.1:{}", registry.port)],
        dial: Arc::clone(&dial) as Arc<dyn Dial>,
        ..workspace.config()
    };
    let store = Store::open(config).unwrap();
    let pulled = store.pull("toolbox", None, None, &Silent).await.unwrap();
    assert_eq!((pulled.id, pulled.repo_tags), (image.id(), vec!["toolbox:latest".to_owned()]));
    assert!(dial.0.lock().unwrap().iter().all(|host| host == "127.0.0.1"));
    let error = store.pull("absent", None, None, &Silent).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host"
    );
}
