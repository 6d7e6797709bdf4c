//! Files of containers and images.

use std::sync::Arc;

use base64::Engine as _;

use crate::client::{get, post, raw, request};
use crate::fake::Fake;

fn fake() -> Arc<Fake> {
    Arc::new(Fake::default())
}

#[tokio::test]
async fn a_path_is_described_in_a_header() {
    for method in ["HEAD", "GET"] {
        let answer = request(&fake(), method, "/containers/web/archive?path=/etc", None).await;
        assert_eq!(answer.status, 200, "{method}");
        let header = answer.header("x-docker-container-path-stat").unwrap();
        let stat = base64::engine::general_purpose::STANDARD.decode(header).unwrap();
        let stat: serde_json::Value = serde_json::from_slice(&stat).unwrap();
        assert_eq!(stat["name"], "etc");
        assert_eq!(stat["mode"], 0x8000_0000u32 | 0o755);
        assert_eq!(stat["mtime"], "2026-01-02T03:04:05Z");
    }
}

#[tokio::test]
async fn an_archive_comes_as_tar_and_goes_in_as_it_is_sent() {
    let fake = fake();
    let answer = get(&fake, "/containers/web/archive?path=/etc").await;
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("a tar stream", Some("application/x-tar"))
    );
    let put = "PUT /containers/web/archive?path=/tmp&copyUIDGID=1&noOverwriteDirNonDir=true HTTP/1.1\r\nHost: d\r\n\
               Connection: close\r\nContent-Length: 5\r\n\r\nbytes";
    assert_eq!(raw(&fake, put).await.status, 200);
    assert_eq!(
        fake.last_call(),
        "PutArchive { path: \"/tmp\", copy_uid_gid: true, no_overwrite_dir_non_dir: true } 5"
    );
}

#[tokio::test]
async fn a_path_must_be_given() {
    let answer = get(&fake(), "/containers/web/archive").await;
    assert_eq!((answer.status, answer.message()), (400, "bad parameter: pathcannot be empty".to_owned()));
    assert_eq!(post(&fake(), "/containers/web/archive?path=/").await.status, 404);
    assert_eq!(get(&fake(), "/containers/missing/archive?path=/").await.status, 404);
}

#[tokio::test]
async fn changes_are_listed_and_none_is_null() {
    let answer = get(&fake(), "/containers/web/changes").await;
    assert_eq!(answer.text(), "[{\"Kind\":0,\"Path\":\"/etc\"}]\n");
    assert_eq!(get(&fake(), "/containers/unchanged/changes").await.text(), "null\n");
}

#[tokio::test]
async fn a_container_is_exported_and_images_are_saved() {
    let fake = fake();
    let answer = get(&fake, "/containers/web/export").await;
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("a tar stream", Some("application/octet-stream"))
    );
    let answer = get(&fake, "/images/get?names=busybox&names=a/b:1").await;
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("a tar stream", Some("application/x-tar"))
    );
    assert_eq!(fake.last_call(), "save [\"busybox\", \"a/b:1\"]");
    get(&fake, "/images/registry.example/a/b/get").await;
    assert_eq!(fake.last_call(), "save [\"registry.example/a/b\"]");
    assert_eq!(get(&fake, "/images/missing/get").await.status, 404);
}

#[tokio::test]
async fn a_commit_pauses_unless_told_otherwise() {
    let fake = fake();
    let target = "/commit?container=web&repo=a/b&tag=1&changes=USER+1&changes=CMD+x";
    let answer = request(&fake, "POST", target, Some("null")).await;
    assert_eq!((answer.status, answer.text().as_str()), (201, "{\"Id\":\"sha256:03\"}\n"));
    assert_eq!(fake.last_call(), "commit Some(\"a/b:1\") true [\"USER 1\", \"CMD x\"] false");
    let config = r#"{"User":"1"}"#;
    request(&fake, "POST", "/commit?container=web&pause=0", Some(config)).await;
    assert_eq!(fake.last_call(), "commit None false [] true");
    assert_eq!(post(&fake, "/commit?container=missing").await.status, 404);
}
