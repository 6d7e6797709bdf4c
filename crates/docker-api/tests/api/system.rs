//! The engine itself, versions, errors.

use std::sync::Arc;

use crate::client::{get, post, raw, request};
use crate::fake::Fake;

#[tokio::test]
async fn ping_answers_ok_with_the_servers_versions_and_is_never_cached() {
    let fake = Arc::new(Fake::default());
    for target in ["/_ping", "/v1.24/_ping"] {
        let answer = get(&fake, target).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "OK"));
        for (name, value) in [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Api-Version", "1.51"),
            ("Docker-Experimental", "false"),
            ("Ostype", "linux"),
            ("Server", "Docker/28.5.2 (linux)"),
            ("Builder-Version", "2"),
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Pragma", "no-cache"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    }
    let head = request(&fake, "HEAD", "/_ping", None).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn versions_out_of_range_are_refused() {
    let fake = Arc::new(Fake::default());
    let old = get(&fake, "/v1.20/version").await;
    assert_eq!(old.status, 400);
    assert_eq!(
        old.message(),
        "client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
    );
    assert_eq!(old.header("api-version"), Some("1.51"));
    let new = get(&fake, "/v1.99/version").await;
    assert_eq!(new.status, 400);
    assert_eq!(new.message(), "client version 1.99 is too new. Maximum supported API version is 1.51");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_not_found() {
    let fake = Arc::new(Fake::default());
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/v1.41"),
        ("GET", "/v1.2.3/info"),
        ("GET", "/vx/info"),
        ("PUT", "/info"),
        ("GET", "/containers/a/nothing"),
        ("DELETE", "/images/"),
    ] {
        let answer = request(&fake, method, target, None).await;
        assert!(matches!(answer.status, 400 | 404), "{method} {target}: {}", answer.head);
    }
    let answer = get(&fake, "/nothing").await;
    assert_eq!(answer.text(), "{\"message\":\"page not found\"}\n");
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn version_has_components_and_both_api_versions() {
    let fake = Arc::new(Fake::default());
    insta::assert_json_snapshot!(get(&fake, "/v1.51/version").await.json());
}

#[tokio::test]
async fn info_has_every_field_of_dockerds() {
    let fake = Arc::new(Fake::default());
    insta::assert_json_snapshot!(get(&fake, "/info").await.json());
}

#[tokio::test]
async fn info_for_api_124_has_that_times_fields() {
    let fake = Arc::new(Fake::default());
    let info = get(&fake, "/v1.24/info").await.json();
    assert_eq!(info["ExecutionDriver"], "<not supported>");
    assert_eq!(info["SecurityOptions"], serde_json::json!(["seccomp", "cgroupns"]));
    assert_eq!(info["BridgeNfIptables"], false);
}

#[tokio::test]
async fn events_come_one_a_line_with_the_old_fields_too() {
    let fake = Arc::new(Fake::default());
    let target = "/events?since=1.5&until=2&filters=%7B%22type%22%3A%5B%22container%22%5D%7D";
    let answer = get(&fake, target).await;
    assert_eq!(answer.status, 200);
    let events: Vec<serde_json::Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    insta::assert_json_snapshot!(events);
    insta::assert_snapshot!(fake.last_call());
}

#[tokio::test]
async fn events_refuse_bad_times_and_filters() {
    let fake = Arc::new(Fake::default());
    let message = |answer: crate::client::Answer| (answer.status, answer.message());
    assert_eq!(
        message(get(&fake, "/events?since=5&until=4").await),
        (400, "`since` time (5) cannot be after `until` time (4)".to_owned())
    );
    assert_eq!(get(&fake, "/events?since=x").await.status, 400);
    assert_eq!(get(&fake, "/events?filters=%7B%22x%22%3A%5B%5D%7D").await.status, 200);
    assert_eq!(message(get(&fake, "/events?filters=x").await), (400, "invalid filter".to_owned()));
}

#[tokio::test]
async fn disk_usage_has_what_was_asked_for() {
    let fake = Arc::new(Fake::default());
    insta::assert_json_snapshot!(get(&fake, "/system/df").await.json());
    let volumes = get(&fake, "/system/df?type=volume").await.json();
    assert_eq!(volumes["Images"], serde_json::Value::Null);
    assert_eq!(volumes["Volumes"][0]["UsageData"]["Size"], 3);
    assert_eq!(get(&fake, "/system/df?type=x").await.message(), "unknown object type: x");
}

#[tokio::test]
async fn swarm_and_plugins_answer_as_an_engine_without_them() {
    let fake = Arc::new(Fake::default());
    for target in ["/swarm", "/nodes", "/services", "/tasks/x", "/v1.41/secrets", "/configs"] {
        let answer = get(&fake, target).await;
        assert_eq!(answer.status, 503, "{target}");
        assert_eq!(
            answer.message(),
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
        );
    }
    assert_eq!(post(&fake, "/swarm/leave").await.message(), "This node is not part of a swarm");
    for target in ["/swarm/nonesuch", "/nodes/a/b", "/tasks/x/y"] {
        assert_eq!(get(&fake, target).await.status, 404, "{target}");
    }
    assert_eq!(get(&fake, "/plugins").await.text(), "[]\n");
    let unknown = get(&fake, "/plugins/vieux/sshfs:latest/json").await;
    assert_eq!(
        (unknown.status, unknown.message()),
        (404, "plugin \"vieux/sshfs:latest\" not found".to_owned())
    );
    assert_eq!(post(&fake, "/plugins/x/enable").await.status, 404);
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused_in_dockerds_words() {
    let fake = Arc::new(Fake::default());
    let send = async |kind: &str, body: &str| {
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let length = body.len();
        let answer = raw(
            &fake,
            &format!("POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n{body}"),
        )
        .await;
        assert_eq!(answer.status, 400);
        answer.message()
    };
    assert_eq!(
        send("text/plain", "{}").await,
        "unsupported Content-Type header (text/plain): must be 'application/json'"
    );
    assert_eq!(send("", "{}").await, "malformed Content-Type header (): mime: no media type");
    assert_eq!(send("", "").await, "invalid JSON: got EOF while reading request body");
    assert_eq!(send("application/json; charset=utf-8", "{}{}").await, "unexpected content after JSON");
    assert!(send("application/json", "{").await.starts_with("invalid JSON: "));
    let huge = "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n\
                Content-Length: 9000000\r\n\r\n";
    let answer = raw(&fake, huge).await;
    assert_eq!(answer.status, 413);
}
