//! Archives: `docker save`, OCI layouts, root file systems, built-in images.

use serde_json::json;
use skiff_images::{Code, Digest, Parents, Silent};

use crate::content::{Layer, OCI_MANIFEST, Packing, TestImage, descriptor, gzip, list, tar_of};
use crate::hostile::Archive;
use crate::workspace::Workspace;

/// What `docker save` wrote before version 25.
pub fn docker_archive(layers: &[Layer], names: &[&str]) -> Vec<u8> {
    let image = TestImage::new(layers.to_vec(), "amd64");
    let paths: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": paths}]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![("config.json", &image.config)];
    files.extend(paths.iter().zip(layers).map(|(path, layer)| (path.as_str(), &layer.blob[..])));
    files.push(("manifest.json", manifest.as_bytes()));
    tar_of(&files)
}

/// An OCI layout whose index has the given entries.
pub fn layout(images: &[&TestImage], lists: &[&[u8]], entries: &[serde_json::Value]) -> Vec<u8> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    files.push(("index.json".to_owned(), list(entries)));
    let mut add =
        |bytes: &[u8]| files.push((format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.to_vec()));
    for image in images {
        add(&image.manifest);
        add(&image.config);
        image.layers.iter().for_each(|layer| add(&layer.blob));
    }
    lists.iter().for_each(|list| add(list));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
    tar_of(&files)
}

fn layers(packing: Packing) -> Vec<Layer> {
    vec![Layer::file("a", b"1", packing), Layer::file("b", b"22", packing)]
}

#[tokio::test]
async fn a_saved_image_is_loaded_plain_and_compressed() {
    for outer in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let workspace = Workspace::new();
        let store = workspace.open();
        let layers = layers(Packing::Plain);
        let archive = Layer::new(docker_archive(&layers, &["x:1", "y"]), outer).blob;
        let loaded = store.load(&archive[..], None, &Silent).await.unwrap().remove(0);
        assert_eq!(loaded.names, ["x:1", "y:latest"]);
        assert_eq!(loaded.image.id, TestImage::new(layers, "amd64").id());
        assert_eq!(loaded.image.size, 3);
        let lower = store.lower_dirs("y").unwrap();
        assert_eq!(std::fs::read(lower[0].join("b")).unwrap(), b"22");
        assert_eq!(workspace.names("staging"), [""; 0]);
        assert_eq!(workspace.names("partial"), [""; 0]);
    }
}

#[tokio::test]
async fn an_oci_layout_is_loaded_with_its_manifests() {
    let workspace = Workspace::new();
    let store = workspace.open();
    let image = TestImage::new(layers(Packing::Zstd), "amd64");
    let foreign = TestImage::new(layers(Packing::Gzip), "s390x");
    let inner = list(&[image.entry("amd64"), foreign.entry("s390x")]);
    let mut named = descriptor("application/vnd.oci.image.index.v1+json", &inner);
    named["annotations"] = json!({"io.containerd.image.name": "docker.io/library/n:1", "org.opencontainers.image.ref.name": "1"});
    let archive = layout(&[&image, &foreign], &[&inner], &[named]);
    let loaded = store.load(&archive[..], Some("linux/s390x"), &Silent).await.unwrap().remove(0);
    assert_eq!((loaded.names[0].as_str(), loaded.image.id), ("n:1", foreign.id()));
    let loaded = store.load(&archive[..], Some("linux/amd64"), &Silent).await.unwrap().remove(0);
    assert_eq!(loaded.image.id, image.id());
    // An image of a foreign platform alone in its archive is loaded whatever was asked for; a bare tag is no name.
    let mut entry = foreign.entry("s390x");
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let loaded = store.load(&layout(&[&foreign], &[], &[entry])[..], None, &Silent).await.unwrap().remove(0);
    assert_eq!((loaded.names.len(), loaded.image.architecture.as_str()), (0, "s390x"));
}

#[tokio::test]
async fn bad_archives_are_refused_and_leave_nothing() {
    let workspace = Workspace::new();
    let store = workspace.open();
    let good = docker_archive(&layers(Packing::Plain), &["x"]);
    let image = TestImage::new(layers(Packing::Gzip), "amd64");
    let mut lying = layout(&[&image], &[], &[descriptor(OCI_MANIFEST, &image.manifest)]);
    let at = lying.windows(20).position(|w| w == &image.layers[0].blob[..20]).unwrap();
    lying[at + 12] ^= 1;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"this is no archive at all".to_vec(), "unexpected EOF"),
        (vec![b'x'; 2000], "invalid"),
        (good[..good.len() / 2].to_vec(), ""),
        (gzip(&good)[..300].to_vec(), ""),
        (tar_of(&[("some", b"file")]), "neither manifest.json nor index.json"),
        (tar_of(&[("manifest.json", b"[]")]), "no image"),
        (tar_of(&[("manifest.json", br#"[{"Config":"gone.json"}]"#)]), "\"gone.json\" is missing"),
        (tar_of(&[("manifest.json", br#"[{"Config":"/etc/passwd"}]"#)]), "is missing"),
        (tar_of(&[("manifest.json", b"{")]), "manifest.json"),
        (Archive::default().file("../../evil", b"x").bytes(), "leads out"),
        (lying, "filesystem layer verification failed"),
    ];
    for (archive, words) in cases {
        let error = store.load(&archive[..], None, &Silent).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} should say {words:?}");
        assert!(store.list().is_empty());
        workspace.assert_clean();
    }
}

#[tokio::test]
async fn a_root_file_system_becomes_an_image() {
    let workspace = Workspace::new();
    let store = workspace.open();
    let rootfs = gzip(&tar_of(&[("bin/sh", b"#!"), ("etc/os", b"x")]));
    let changes = ["CMD [\"/bin/sh\"]".to_owned(), "ENV A=b".to_owned(), "EXPOSE 80".to_owned()];
    let image = store.import(&rootfs[..], Some("made:1"), "by hand", &changes, None, "28.0.0").await.unwrap();
    assert_eq!(image.repo_tags, ["made:1"]);
    assert_eq!(image.comment, "by hand");
    let config = image.config.config().as_ref().unwrap();
    assert_eq!(config.cmd().as_ref().unwrap(), &["/bin/sh"]);
    assert_eq!(image.raw_config["config"]["ExposedPorts"], json!({"80/tcp": {}}));
    assert_eq!(store.history("made:1").unwrap()[0].comment, "by hand");
    assert!(store.lower_dirs("made:1").unwrap()[0].join("bin/sh").exists());
    let error = store.import(&rootfs[..], None, "", &["RUN x".to_owned()], None, "28.0.0").await.unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (Code::InvalidArgument, "RUN is not a valid change command")
    );
    assert!(store.import(&b"garbage"[..], Some("g"), "", &[], None, "28.0.0").await.is_err());
    assert_eq!(store.list().len(), 1);
    assert_eq!(workspace.names("layers").len(), 1);
}

#[tokio::test]
async fn a_seeded_image_that_was_removed_stays_removed() {
    let workspace = Workspace::new();
    let archive = workspace.root().with_extension("tar");
    std::fs::write(&archive, docker_archive(&layers(Packing::Plain), &["skiff/toolbox"])).unwrap();
    let store = workspace.open();
    assert_eq!(store.seed(&archive, "toolbox-1").await.unwrap().len(), 1);
    store.remove("skiff/toolbox", false, Parents::Prune, &|_| None).unwrap();
    drop(store);
    let store = workspace.open();
    assert!(store.seed(&archive, "toolbox-1").await.unwrap().is_empty());
    assert!(store.list().is_empty());
    assert_eq!(store.seed(&archive, "toolbox-2").await.unwrap().len(), 1, "a newer one comes in");
}
