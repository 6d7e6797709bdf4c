//! Networks.

use std::sync::Arc;

use crate::client::{delete, get, post, request};
use crate::fake::Fake;

#[tokio::test]
async fn networks_have_every_field_of_dockerds() {
    let fake = Arc::new(Fake::default());
    insta::assert_json_snapshot!("list", get(&fake, "/networks").await.json());
    insta::assert_json_snapshot!(
        "inspect",
        get(&fake, "/networks/bridge?verbose=1&scope=local").await.json()
    );
    assert_eq!(fake.last_call(), "InspectNetwork { verbose: true, scope: Some(\"local\") }");
    assert!(get(&fake, "/v1.47/networks/").await.json()[0].get("EnableIPv4").is_none());
    assert_eq!(get(&fake, "/networks/missing").await.message(), "No such network: missing");
}

#[tokio::test]
async fn networks_are_made_joined_left_and_removed() {
    let fake = Arc::new(Fake::default());
    let body = r#"{"Name":"front","CheckDuplicate":true,"Internal":true,"Labels":{"a":"b"}}"#;
    let created = request(&fake, "POST", "/networks/create", Some(body)).await;
    assert_eq!((created.status, created.text().trim()), (201, r#"{"Id":"n2","Warning":""}"#));
    assert_eq!(fake.last_call(), r#"create network front Some(true) Some({"a": "b"})"#);

    let body = r#"{"Container":"web","EndpointConfig":{"Aliases":["www"],"IPAMConfig":{}}}"#;
    assert_eq!(request(&fake, "POST", "/networks/front/connect", Some(body)).await.status, 200);
    assert_eq!(fake.last_call(), r#"connect web to front as Some(["www"])"#);
    let body = r#"{"Container":"web","Force":true}"#;
    assert_eq!(request(&fake, "POST", "/networks/front/disconnect", Some(body)).await.status, 200);
    assert_eq!(fake.last_call(), "disconnect web from front true");
    assert_eq!(request(&fake, "POST", "/networks/front/connect", Some("{}")).await.status, 400);
    assert_eq!(
        request(&fake, "POST", "/networks/missing/connect", Some(r#"{"Container":"web"}"#)).await.status,
        404
    );

    assert_eq!(delete(&fake, "/networks/front").await.status, 204);
    assert_eq!(fake.last_call(), "remove network front");
    assert_eq!(post(&fake, "/networks/prune").await.text(), "{\"NetworksDeleted\":null}\n");
    assert_eq!(request(&fake, "POST", "/networks/create", Some("[]")).await.status, 400);
}
