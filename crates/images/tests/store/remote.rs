//! Lists that are made by hand of what a registry has.

use serde_json::json;
use skiff_images::{Code, Silent};

use crate::content::{Layer, OCI_INDEX, Packing, TestImage, list};
use crate::registry::Registry;
use crate::workspace::Workspace;

#[tokio::test(flavor = "multi_thread")]
async fn a_list_brings_its_members_and_their_blobs_along() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let store = workspace.open();
    let image = |architecture: &str| {
        TestImage::new(vec![Layer::file(architecture, b"for it", Packing::Gzip)], architecture)
    };
    let images = [image("amd64"), image("arm64")];
    registry.push("one/amd", "1", &images[0]);
    registry.push("two/arm", "1", &images[1]);
    let found = store.remote_manifest(&registry.name("two/arm:1"), None).await.unwrap();
    assert_eq!((found.bytes, found.is_list), (images[1].manifest.clone(), false));
    assert_eq!(found.platforms, [json!({"architecture": "arm64", "os": "linux"})]);

    let made = list(&[images[0].entry("amd64"), images[1].entry("arm64")]);
    let target = registry.name("both:1");
    let members = [registry.name("one/amd:1"), registry.name("two/arm:1")];
    let (digest, pushed) = store.push_list(&target, made.clone(), &members, None).await.unwrap();
    assert_eq!(pushed[1].reference, format!("{}@{}", registry.name("both"), pushed[1].digest));
    let there = store.remote_manifest(&target, None).await.unwrap();
    assert_eq!((there.digest, there.is_list, there.platforms.len()), (digest, true, 2));
    assert_eq!(there.media_type.as_deref(), Some(OCI_INDEX));
    for (platform, image) in [("linux/amd64", &images[0]), ("linux/arm64", &images[1])] {
        let pulled = store.pull(&target, Some(platform), None, &Silent).await.unwrap();
        assert_eq!(pulled.id, image.id());
    }

    // What can't be in it.
    let error = store.push_list(&target, made.clone(), &["elsewhere.test/x:1".to_owned()], None).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot use source images from a different registry"), "{error}");
    let error = store.push_list(&registry.name("list:1"), made, std::slice::from_ref(&target), None).await;
    assert!(error.unwrap_err().to_string().ends_with("is a manifest list"));
    let error = store.push_list(&target, images[0].manifest.clone(), &[], None).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let missing = store.remote_manifest(&registry.name("both:2"), None).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert_eq!(workspace.names("staging"), [""; 0]);
}
