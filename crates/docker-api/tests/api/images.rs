//! Images.

use std::sync::Arc;

use crate::client::{delete, get, post, raw, request};
use crate::fake::Fake;

fn fake() -> Arc<Fake> {
    Arc::new(Fake::default())
}

#[tokio::test]
async fn pull_sends_progress_a_line_each() {
    let fake = fake();
    let answer = raw(
        &fake,
        "POST /v1.47/images/create?fromImage=busybox&tag=1.36&platform=linux/arm64 HTTP/1.1\r\nHost: d\r\n\
         X-Registry-Auth: eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImIifQ==\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    insta::assert_snapshot!(answer.text());
    insta::assert_snapshot!(fake.last_call());
}

#[tokio::test]
async fn a_pull_that_fails_at_once_has_an_errors_status() {
    let fake = Arc::new(Fake { fail_first: true, ..Fake::default() });
    let answer = post(&fake, "/images/create?fromImage=busybox&tag=x").await;
    assert_eq!((answer.status, answer.message()), (404, "pull access denied for busybox".to_owned()));
}

#[tokio::test]
async fn a_pull_that_fails_later_says_so_in_its_last_line() {
    let fake = Arc::new(Fake { fail_late: true, ..Fake::default() });
    let answer = post(&fake, "/images/create?fromImage=busybox&tag=x").await;
    assert_eq!(answer.status, 200);
    let last = answer.text().lines().last().unwrap().to_owned();
    assert_eq!(last, r#"{"error":"unexpected EOF","errorDetail":{"message":"unexpected EOF"}}"#);
}

#[tokio::test]
async fn a_push_names_tag_and_credentials() {
    let fake = fake();
    let answer = raw(
        &fake,
        "POST /v1.47/images/reg.test:5000/a/b/push?tag=1 HTTP/1.1\r\nHost: d\r\n\
         X-Registry-Auth: eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImIifQ==\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status, 200);
    insta::assert_snapshot!(fake.last_call());
    post(&fake, "/images/a/push").await;
    assert!(
        fake.last_call().contains("reference: \"a\", platform: None, auth: None"),
        "{}",
        fake.last_call()
    );
}

#[tokio::test]
async fn credentials_are_checked_and_remote_images_described() {
    let fake = fake();
    let login = async |password: &str| {
        let body = format!(r#"{{"username":"u","password":"{password}","serveraddress":"reg.test"}}"#);
        request(&fake, "POST", "/v1.47/auth", Some(&body)).await
    };
    let answer = login("right").await;
    assert_eq!((answer.status, answer.json()["IdentityToken"].as_str()), (200, Some("token")));
    assert_eq!(answer.json()["Status"], "Login Succeeded");
    assert_eq!(login("wrong").await.status, 401);
    let answer = get(&fake, "/v1.47/distribution/reg.test/a/b:1/json").await;
    assert_eq!((answer.status, fake.last_call()), (200, "reg.test/a/b:1 None".to_owned()));
}

#[tokio::test]
async fn import_and_load_read_their_body_as_it_comes() {
    let fake = fake();
    let chunked = |target: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/x-tar\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"
        )
    };
    let answer = raw(
        &fake,
        &chunked("/images/create?fromSrc=-&repo=a/b&tag=c&message=m&changes=CMD%20x&changes=ENV%20y=z"),
    )
    .await;
    assert_eq!(answer.text(), "{\"status\":\"sha256:02\"}\n");
    insta::assert_snapshot!(fake.last_call());
    let answer = raw(&fake, &chunked("/images/load?quiet=0")).await;
    assert_eq!(answer.text(), "{\"stream\":\"Loaded image: busybox:latest\\n\"}\n");
    assert_eq!(fake.last_call(), "load 7 quiet=false");
    assert_eq!(post(&fake, "/images/create?fromSrc=a/b.tar&repo=c").await.status, 200);
    assert!(fake.last_call().contains("url: Some(\"http://a/b.tar\")"), "{}", fake.last_call());
    assert_eq!(post(&fake, "/images/create").await.status, 400);
}

#[tokio::test]
async fn the_list_depends_on_the_api_version() {
    let fake = fake();
    insta::assert_json_snapshot!("list", get(&fake, "/images/json?all=1&digests=1").await.json());
    let old = get(&fake, "/v1.40/images/json?filter=busy*").await.json();
    assert_eq!(old[0]["VirtualSize"], 2);
    assert_eq!(old[0]["RepoTags"], serde_json::json!(["<none>:<none>"]));
    assert!(fake.last_call().contains("reference"));
}

#[tokio::test]
async fn names_may_have_slashes() {
    let fake = fake();
    insta::assert_json_snapshot!("inspect", get(&fake, "/images/localhost:5000/a/b:c/json").await.json());
    assert_eq!(fake.last_call(), "inspect image localhost:5000/a/b:c");
    get(&fake, "/images/localhost%3A5000%2Fa%2Fb/json").await;
    assert_eq!(fake.last_call(), "inspect image localhost:5000/a/b");
    insta::assert_json_snapshot!("inspect_before_145", get(&fake, "/v1.43/images/a/json").await.json());
    assert_eq!(get(&fake, "/images/a/missing/json").await.message(), "No such image: a/missing");
    assert_eq!(
        get(&fake, "/images/a/b/history").await.text(),
        "[{\"Comment\":\"\",\"Created\":1,\"CreatedBy\":\"sh\",\"Id\":\"sha256:01\",\"Size\":5,\"Tags\":null}]\n"
    );
    assert_eq!(post(&fake, "/images/a/b/tag?repo=c/d&tag=e").await.status, 201);
    assert_eq!(fake.last_call(), "tag a/b c/d e");
}

#[tokio::test]
async fn removing_lists_what_went() {
    let fake = fake();
    let answer = delete(&fake, "/images/a/b:c?force=1&noprune=true").await;
    assert_eq!(answer.text(), "[{\"Untagged\":\"busybox:latest\"},{\"Deleted\":\"sha256:01\"}]\n");
    assert_eq!(fake.last_call(), "remove a/b:c RemoveImage { force: true, no_prune: true, platform: None }");
    assert_eq!(delete(&fake, "/images/%20").await.message(), "image name cannot be blank");
    assert_eq!(post(&fake, "/images/prune").await.text(), "{\"ImagesDeleted\":null,\"SpaceReclaimed\":0}\n");
}
