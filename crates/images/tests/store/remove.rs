//! Names and removal.

use skiff_images::{Code, Image, InUse, Parents, Removed, Silent, Store};

use crate::content::{Layer, Packing, tar_of};
use crate::load::docker_archive;
use crate::pull::two_layers;
use crate::registry::Registry;
use crate::workspace::Workspace;

async fn load(store: &Store, name: &str, files: &[&str]) -> Image {
    let layers: Vec<_> =
        files.iter().map(|f| Layer::new(tar_of(&[(f, f.as_bytes())]), Packing::Plain)).collect();
    let archive = docker_archive(&layers, &[name]);
    store.load(&archive[..], None, &Silent).await.unwrap().remove(0).image
}

fn unused(_: &str) -> Option<InUse> {
    None
}

fn text(result: Result<Vec<Removed>, skiff_images::Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::Conflict);
    error.to_string()
}

#[tokio::test]
async fn a_layer_stays_until_its_last_image_goes() {
    let workspace = Workspace::new();
    let store = workspace.open();
    let one = load(&store, "one", &["base", "a"]).await;
    let two = load(&store, "two", &["base", "b"]).await;
    assert_eq!(workspace.names("layers").len(), 3);
    let removed = store.remove("one", false, Parents::Prune, &unused).unwrap();
    assert_eq!(removed[0], Removed::Untagged("one:latest".to_owned()));
    assert_eq!(removed[1], Removed::Deleted(one.id.clone()));
    assert_eq!(removed.len(), 3, "one layer goes with it");
    assert_eq!(workspace.names("layers").len(), 2);
    assert!(store.lower_dirs(&two.id).unwrap().iter().all(|d| d.exists()));
    assert_eq!(store.get("one").unwrap_err().to_string(), "No such image: one:latest");
    store.remove(&two.id[7..19], false, Parents::Prune, &unused).unwrap();
    drop(store);
    workspace.assert_clean();
    assert_eq!(workspace.names("partial"), [""; 0]);
    assert!(workspace.open().list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_held_while_its_image_goes_leaves_nothing() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let image = two_layers(1);
    registry.push("a/b", "v1", &image);
    let (store, name) = (workspace.open(), registry.name("a/b:v1"));
    store.pull(&name, None, None, &Silent).await.unwrap();
    let reader = store.save(std::slice::from_ref(&name)).unwrap();
    store.remove(&name, false, Parents::Prune, &unused).unwrap();
    assert_eq!(workspace.names("layers").len(), 2);
    drop(reader);
    workspace.assert_clean();
    assert_eq!(workspace.names("partial"), [""; 0]);
}

#[tokio::test]
async fn names_come_and_go_one_by_one() {
    let workspace = Workspace::new();
    let store = workspace.open();
    let image = load(&store, "a:1", &["x"]).await;
    store.tag("a:1", "a:2").unwrap();
    store.tag(&image.id, "b").unwrap();
    assert_eq!(store.get("b").unwrap().repo_tags, ["a:1", "a:2", "b:latest"]);
    assert_eq!(store.tag("nope", "x").unwrap_err().to_string(), "No such image: nope:latest");
    assert_eq!(store.tag("b", "B").unwrap_err().code(), Code::InvalidArgument);
    let short = &image.id[7..19];
    assert_eq!(
        text(store.remove(short, false, Parents::Prune, &unused)),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(
        store.remove("a:1", false, Parents::Prune, &unused).unwrap(),
        [Removed::Untagged("a:1".to_owned())]
    );
    let other = load(&store, "b", &["y"]).await;
    assert_eq!(store.get("b").unwrap().id, other.id, "the name moves");
    assert_eq!(store.get(&image.id).unwrap().repo_tags, ["a:2"]);
    drop(store);
    let store = workspace.open();
    assert_eq!(store.get("a:2").unwrap().id, image.id);
    assert_eq!(store.remove(short, true, Parents::Prune, &unused).unwrap().len(), 3);
}

#[tokio::test]
async fn containers_keep_their_image() {
    let workspace = Workspace::new();
    let store = workspace.open();
    let image = load(&store, "a", &["x"]).await;
    let short = &image.id[7..19];
    let container = "0123456789abcdef";
    let running = |_: &str| Some(InUse::Running(container.to_owned()));
    let stopped = |_: &str| Some(InUse::Stopped(container.to_owned()));
    assert_eq!(
        text(store.remove("a", false, Parents::Prune, &stopped)),
        format!(
            "conflict: unable to remove repository reference \"a\" (must force) - container 0123456789ab is using its referenced image {short}"
        )
    );
    assert_eq!(
        text(store.remove(short, true, Parents::Prune, &running)),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
        )
    );
    assert_eq!(
        text(store.remove(short, false, Parents::Prune, &stopped)),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
        )
    );
    // By force the image goes out of sight, and the container keeps its files.
    store.remove("a", true, Parents::Prune, &stopped).unwrap();
    assert!(store.list().is_empty());
    drop(store);
    let store = workspace.open();
    assert!(store.list().is_empty());
    assert!(store.lower_dirs(&image.id).unwrap()[0].join("x").exists());
    store.collect(&|_| true).unwrap();
    assert!(store.lower_dirs(&image.id).is_ok());
    store.collect(&|_| false).unwrap();
    assert!(store.lower_dirs(&image.id).is_err());
    workspace.assert_clean();
}
