//! Networks.

use std::sync::Arc;

use crate::client::get;
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
