//! Kills in the middle: nothing half-made shows, nothing committed is lost, downloads go on.

use std::process::{Command, Stdio};
use std::time::Duration;

use skiff_images::{Parents, Silent, Store};

use crate::content::{Layer, Packing, TestImage, noise};
use crate::load::docker_archive;
use crate::proxy::{Proxy, Trouble};
use crate::registry::Registry;
use crate::workspace::{Workspace, config};

const MIB: usize = 1 << 20;
const ROOT: &str = "SKIFF_TEST_PULL_ROOT";
const TINY: &str = "SKIFF_TEST_TINY_DISK";
const WORK: &str = "SKIFF_TEST_WORK_ROOT";
const NAMES: &str = "SKIFF_TEST_PULL_NAMES";

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_shows_nothing_and_the_next_one_resumes() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = TestImage::new(vec![Layer::file("data", &noise(20, 8 * MIB), Packing::Gzip)], "amd64");
    registry.push("x", "latest", &image);
    let proxy = Proxy::start(registry.port, Trouble::Stall(5 * MIB as u64), 1, false).await;
    let name = format!("127.0.0.1:{}/x", proxy.port);
    let store = workspace.open();
    let (for_task, for_name) = (store.clone(), name.clone());
    let task = tokio::spawn(async move { for_task.pull(&for_name, None, None, &Silent).await });
    while workspace.partial_bytes() < 4 * MIB as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(store.list().is_empty());
    drop(store);
    let store = reopen(&workspace).await;
    assert!(store.list().is_empty());
    workspace.assert_clean();
    let (kept, before) = (workspace.partial_bytes(), proxy.down());
    assert!(kept >= 4 * MIB as u64);
    store.pull(&name, None, None, &Silent).await.unwrap();
    let (more, size) = (proxy.down() - before, image.layers[0].blob.len() as u64);
    assert!(more < size - kept + 100 * 1024, "{more} more bytes, {kept} of {size} were kept");
    assert_eq!(proxy.ranges(), [format!("range: bytes={kept}-")]);
}

/// Opens the store again; threads of a cancelled pull may hold it for a moment.
async fn reopen(workspace: &Workspace) -> Store {
    for _ in 0..200 {
        if let Ok(store) = Store::open(workspace.config()) {
            return store;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    workspace.open()
}

/// Not a test of its own: the process that `killed_at_any_moment…` kills.
#[tokio::test(flavor = "multi_thread")]
async fn pulls_when_another_test_tells_it_to() {
    let (Ok(root), Ok(names)) = (std::env::var(ROOT), std::env::var(NAMES)) else { return };
    let store = Store::open(config(root.as_ref())).unwrap();
    for name in names.split(' ') {
        let image = store.pull(name, None, None, &Silent).await.unwrap();
        println!("committed {} {}", name, image.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_store_keeps_what_was_committed_and_nothing_else() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let names: Vec<String> = (0..4)
        .map(|n| {
            let layers = vec![
                Layer::file("data", &noise(30, 2 * MIB), Packing::Gzip),
                Layer::file("own", &noise(31 + n, MIB), Packing::Zstd),
            ];
            registry.push(&format!("i{n}"), "latest", &TestImage::new(layers, "amd64"));
            registry.name(&format!("i{n}"))
        })
        .collect();
    for delay in [3, 8, 12, 16, 20, 25, 32, 40, 70, 110, 160, 230] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::pulls_when_another_test_tells_it_to", "--nocapture"])
            .env(ROOT, workspace.root())
            .env(NAMES, names.join(" "))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let store = workspace.open();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some((name, id)) = line.strip_prefix("committed ").and_then(|l| l.split_once(' ')) {
                assert_eq!(store.get(name).unwrap().id, id, "answered before the kill at {delay} ms");
            }
        }
        for image in store.list() {
            for (directory, size) in store.lower_dirs(&image.id).unwrap().iter().zip([MIB, 2 * MIB]) {
                let file = std::fs::read_dir(directory).unwrap().next().unwrap().unwrap();
                assert_eq!(file.metadata().unwrap().len(), size as u64);
            }
        }
        let layers: std::collections::HashSet<_> = store.list().into_iter().flat_map(|i| i.layers).collect();
        assert_eq!(workspace.names("layers").len(), layers.len(), "only committed layers remain");
        assert_eq!(workspace.names("staging"), [""; 0]);
    }
    let store = workspace.open();
    for name in &names {
        store.pull(name, None, None, &Silent).await.unwrap();
    }
    assert_eq!(store.list().len(), names.len());
    assert_eq!(workspace.names("partial"), [""; 0]);
}

/// Not a test of its own: the process that `killed_in_other_work…` kills.
#[tokio::test(flavor = "multi_thread")]
async fn works_when_another_test_tells_it_to() {
    let (Ok(root), Ok(name)) = (std::env::var(WORK), std::env::var(NAMES)) else { return };
    let store = Store::open(config(root.as_ref())).unwrap();
    for round in 0.. {
        let loaded = store.load(&saved(&name)[..], None, &Silent).await.unwrap().remove(0).image;
        println!("committed {name} {}", loaded.id);
        let rootfs = Layer::file("data", &noise(70 + round, 2 * MIB), Packing::Gzip).blob;
        let imported = format!("made:{round}");
        let id = store.import(&rootfs[..], Some(&imported), "", &[], None, "28.0.0").await.unwrap().id;
        println!("committed {imported} {id}");
        store.push(&name, None, &Silent).await.unwrap();
        store.remove(&name, true, Parents::Prune, &|_| None).unwrap();
    }
}

/// An archive that takes a while.
fn saved(name: &str) -> Vec<u8> {
    let layer = |seed| Layer::file("data", &noise(seed, 2 * MIB), Packing::Plain);
    docker_archive(&[layer(60), layer(61)], &[name])
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_other_work_the_store_has_no_halves_and_goes_on() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let name = registry.name("pushed:1");
    for delay in [15, 40, 80, 130, 200, 320, 500, 800] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::works_when_another_test_tells_it_to", "--nocapture"])
            .env(WORK, workspace.root())
            .env(NAMES, &name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let store = workspace.open();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some((name, id)) = line.strip_prefix("committed made").and_then(|l| l.split_once(' ')) {
                assert_eq!(
                    store.get(&format!("made{name}")).unwrap().id,
                    id,
                    "answered before the kill at {delay} ms"
                );
            }
        }
        for image in store.list() {
            for directory in store.lower_dirs(&image.id).unwrap() {
                let file = std::fs::read_dir(directory).unwrap().next().unwrap().unwrap();
                assert_eq!(file.metadata().unwrap().len(), 2 * MIB as u64);
            }
        }
        let layers: std::collections::HashSet<_> = store.list().into_iter().flat_map(|i| i.layers).collect();
        assert_eq!(workspace.names("layers").len(), layers.len(), "only committed layers remain");
        assert_eq!(workspace.names("staging"), [""; 0]);
    }
    let store = workspace.open();
    store.load(&saved(&name)[..], None, &Silent).await.unwrap();
    store.push(&name, None, &Silent).await.unwrap();
    let elsewhere = Workspace::new();
    let id = elsewhere.open().pull(&name, None, None, &Silent).await.unwrap().id;
    assert_eq!(store.get(&name).unwrap().id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_kept_out() {
    let workspace = Workspace::new();
    let _first = workspace.open();
    let error = Store::open(workspace.config()).err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
}

/// Not a test of its own: runs on a tiny disk that `a_full_disk…` makes.
#[tokio::test(flavor = "multi_thread")]
async fn fills_its_disk_when_another_test_tells_it_to() {
    let (Ok(root), Ok(names)) = (std::env::var(TINY), std::env::var(NAMES)) else { return };
    let root = std::path::Path::new(&root).join("images");
    let (large, small) = names.split_once(' ').unwrap();
    let store = Store::open(config(&root)).unwrap();
    let layer = |size| Layer::file("data", &noise(41, size), Packing::Gzip);
    // An archive is on the disk beside what it unpacks to; a root file system is unpacked alone.
    let archive = docker_archive(&[layer(6 * MIB)], &["large:1"]);
    let rootfs = layer(12 * MIB).blob;
    for way in ["pull", "load", "import"] {
        let error = match way {
            "pull" => store.pull(large, None, None, &Silent).await.err(),
            "load" => store.load(&archive[..], None, &Silent).await.err(),
            _ => store.import(&rootfs[..], Some("large"), "", &[], None, "").await.err(),
        };
        let error = error.expect(way);
        assert!(error.is_storage_full(), "{way}: {error}");
        assert!(error.to_string().contains("No space left on device"), "{way}: {error}");
        assert!(store.list().is_empty());
        for directory in ["layers", "staging", "blobs/sha256", "partial"] {
            let left: Vec<_> = std::fs::read_dir(root.join(directory)).unwrap().collect();
            assert!(left.is_empty(), "{way} left in {directory}: {left:?}");
        }
    }
    let fits = docker_archive(&[layer(MIB)], &["fits:1"]);
    let id = store.load(&fits[..], None, &Silent).await.unwrap().remove(0).image.id;
    store.remove(&id, true, Parents::Prune, &|_| None).unwrap();
    store.pull(small, None, None, &Silent).await.unwrap();
    assert_eq!(store.list().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_leaves_nothing() {
    let (registry, directory) = (Registry::start(), tempfile::tempdir().unwrap());
    for (name, size) in [("large", 12 * MIB), ("small", MIB)] {
        let layers = vec![Layer::file("data", &noise(40, size), Packing::Gzip)];
        registry.push(name, "latest", &TestImage::new(layers, "amd64"));
    }
    // The tiny disk is mounted in a mount namespace of its own and goes with the process.
    let script = r#"mount -t tmpfs -o size=10m tmpfs "$1" && exec "$2" --exact "$3""#;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .arg("crash::fills_its_disk_when_another_test_tells_it_to")
        .env(TINY, directory.path())
        .env(NAMES, format!("{} {}", registry.name("large"), registry.name("small")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
