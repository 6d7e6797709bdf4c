//! Volumes.

use std::sync::Arc;

use crate::client::{delete, get, post, request};
use crate::fake::Fake;

#[tokio::test]
async fn volumes_have_every_field_of_dockerds() {
    let fake = Arc::new(Fake::default());
    insta::assert_json_snapshot!(get(&fake, "/volumes").await.json());
    let created = request(&fake, "POST", "/volumes/create", Some(r#"{"Name":"x","Labels":{"a":"b"}}"#)).await;
    assert_eq!((created.status, created.json()["Labels"]["a"].as_str()), (201, Some("b")));
    assert_eq!(post(&fake, "/volumes/create").await.json()["Name"], "anonymous");
    assert_eq!(get(&fake, "/volumes/data").await.json()["Options"], serde_json::Value::Null);
    assert_eq!(get(&fake, "/volumes/missing").await.status, 404);
    assert_eq!(delete(&fake, "/volumes/data?force=1").await.status, 204);
    assert_eq!(fake.last_call(), "remove volume data true");
}

#[tokio::test]
async fn old_clients_prune_named_volumes_too() {
    let fake = Arc::new(Fake::default());
    post(&fake, "/v1.41/volumes/prune").await;
    assert!(fake.last_call().contains("all"));
    let answer = post(&fake, "/v1.42/volumes/prune").await;
    assert!(!fake.last_call().contains("all"));
    assert_eq!(answer.text(), "{\"SpaceReclaimed\":0,\"VolumesDeleted\":[]}\n");
}

#[tokio::test]
async fn files_of_a_volume_are_listed_read_and_written() {
    let fake = Arc::new(Fake::default());
    let list = get(&fake, "/volumes/data/files?path=/a%20b").await.json();
    assert_eq!(
        (list["Files"][0]["Name"].as_str(), list["Files"][0]["Kind"].as_str()),
        (Some("/a b"), Some("directory"))
    );
    assert_eq!(get(&fake, "/volumes/data/files").await.json()["Files"][0]["Name"], "/");
    let archive = get(&fake, "/volumes/data/archive?path=/x").await;
    assert_eq!(archive.status, 200);
    assert!(archive.head.to_lowercase().contains("x-docker-container-path-stat"));
    assert_eq!(request(&fake, "HEAD", "/volumes/data/archive?path=/x", None).await.status, 200);
    assert_eq!(request(&fake, "PUT", "/volumes/data/archive?path=/x", Some("abc")).await.status, 200);
    assert_eq!(fake.last_call(), "put /x 3");
    assert_eq!(get(&fake, "/volumes/missing/archive?path=/").await.status, 404);
    assert_eq!(post(&fake, "/volumes/data/archive").await.status, 404);
}
