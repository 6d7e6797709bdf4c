//! Containers.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{connect, delete, get, post, read_head, request, within};
use crate::fake::Fake;

fn fake() -> Arc<Fake> {
    Arc::new(Fake::default())
}

#[tokio::test]
async fn the_list_has_every_field_of_dockerds() {
    insta::assert_json_snapshot!(get(&fake(), "/containers/json").await.json());
}

#[tokio::test]
async fn the_list_takes_dockers_options_and_filters() {
    let fake = fake();
    let filters = "%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%7D%7D";
    let target = format!("/v1.41/containers/json?limit=2&size=1&before=x&filters={filters}");
    assert_eq!(get(&fake, &target).await.status, 200);
    insta::assert_snapshot!(fake.last_call());
    assert_eq!(
        get(&fake, "/containers/json?limit=x").await.message(),
        "strconv.Atoi: parsing \"x\": invalid syntax"
    );
    let unknown = get(&fake, "/containers/json?filters=%7B%22x%22%3A%7B%7D%7D").await;
    assert_eq!((unknown.status, unknown.message()), (400, "invalid filter 'x'".to_owned()));
}

#[tokio::test]
async fn inspect_has_every_field_of_dockerds() {
    let fake = fake();
    insta::assert_json_snapshot!(get(&fake, "/containers/web/json").await.json());
    let old = get(&fake, "/v1.43/containers/web/json?size=true").await.json();
    assert_eq!(fake.last_call(), "inspect web true");
    let endpoint = &old["NetworkSettings"]["Networks"]["bridge"];
    assert!(endpoint["DNSNames"].is_null() && endpoint.get("GwPriority").is_none());
}

#[tokio::test]
async fn creating_answers_201_with_id_and_warnings() {
    let fake = fake();
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"default"}}"#;
    let answer =
        request(&fake, "POST", "/v1.47/containers/create?name=web&platform=linux/arm64", Some(body)).await;
    assert_eq!((answer.status, answer.text().as_str()), (201, "{\"Id\":\"01\",\"Warnings\":[]}\n"));
    assert_eq!(fake.last_call(), "create Some(\"web\") Some(\"linux/arm64\") Some(\"busybox\") 1.47");
}

#[tokio::test]
async fn names_of_fields_count_in_any_case() {
    let fake = fake();
    let body = r#"{"image":"busybox","CMD":"true","hostconfig":{"networkmode":"none","restartpolicy":{"name":"no"}}}"#;
    assert_eq!(request(&fake, "POST", "/containers/create", Some(body)).await.status, 201);
    assert_eq!(fake.last_call(), "create None None Some(\"busybox\") 1.51");
    let body = r#"{"image":"busybox","hostconfig":{"mounts":[{"type":"weird","target":"/a"}]}}"#;
    let answer = request(&fake, "POST", "/containers/create", Some(body)).await;
    assert_eq!(
        (answer.status, answer.message().as_str()),
        (400, "invalid mount config for type \"weird\": mount type unknown")
    );
    for odd in [
        r#"{"Image":"a","HostConfig":"x"}"#,
        r#"{"Image":"a","HostConfig":{"Mounts":[1],"RestartPolicy":[]}}"#,
    ] {
        assert_eq!(request(&fake, "POST", "/containers/create", Some(odd)).await.status, 400, "{odd}");
    }
}

#[tokio::test]
async fn what_cannot_be_created_is_refused() {
    let fake = fake();
    let refuse = async |body: &str| {
        let answer = request(&fake, "POST", "/containers/create", Some(body)).await;
        assert_eq!(answer.status, 400, "{body}");
        answer.message()
    };
    assert_eq!(refuse("{}").await, "config cannot be empty in order to create a container");
    assert_eq!(
        refuse(r#"{"Image":"a","HostConfig":{"CgroupnsMode":"weird"}}"#).await,
        "invalid cgroup namespace mode: weird"
    );
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn changes_of_state_answer_204_or_304() {
    let fake = fake();
    for operation in ["start", "stop", "restart", "kill", "pause", "unpause", "rename?name=b"] {
        let answer = post(&fake, &format!("/containers/a/{operation}")).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{operation}");
        let answer = post(&fake, &format!("/containers/missing/{operation}")).await;
        assert_eq!(
            (answer.status, answer.message()),
            (404, "No such container: missing".to_owned()),
            "{operation}"
        );
    }
    for target in ["/containers/running/start", "/containers/stopped/stop"] {
        let answer = post(&fake, target).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{target}");
    }
    let answer = request(&fake, "POST", "/containers/a/start", Some(r#"{"Binds":["/:/x"]}"#)).await;
    assert!(answer.message().starts_with("starting container with non-empty request body"));
}

#[tokio::test]
async fn options_of_stop_and_kill_are_passed_on() {
    let fake = fake();
    post(&fake, "/containers/a/stop?t=5&signal=SIGINT").await;
    assert_eq!(fake.last_call(), "stop StopOptions { signal: Some(\"SIGINT\"), timeout_seconds: Some(5) }");
    post(&fake, "/v1.41/containers/a/stop?t=-1&signal=SIGINT").await;
    assert_eq!(fake.last_call(), "stop StopOptions { signal: None, timeout_seconds: Some(-1) }");
    assert_eq!(post(&fake, "/containers/a/restart?t=x").await.status, 400);
    post(&fake, "/containers/a/kill?signal=9").await;
    assert_eq!(fake.last_call(), "kill a Some(\"9\")");
}

#[tokio::test]
async fn removing_takes_its_options() {
    let fake = fake();
    assert_eq!(delete(&fake, "/containers/a?v=1&force=true&link=0").await.status, 204);
    insta::assert_snapshot!(fake.last_call());
    let conflict = delete(&fake, "/containers/running").await;
    assert_eq!(conflict.status, 409);
    assert!(conflict.message().contains("container is running"));
}

#[tokio::test]
async fn wait_sends_its_headers_before_the_container_ends() {
    let fake = fake();
    let mut stream = connect(&fake);
    stream
        .write_all(b"POST /containers/waiting/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(fake.last_call(), "wait NextExit");
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte)).await;
    assert!(early.is_err(), "the body comes with the exit");
    fake.exited.notify_one();
    let mut body = vec![0; 100];
    let length = within(stream.read(&mut body)).await.unwrap();
    assert!(String::from_utf8_lossy(&body[..length]).contains("{\"StatusCode\":4}\n"));
}

#[tokio::test]
async fn wait_reports_errors_and_conditions_as_dockerd() {
    let fake = fake();
    let broken = post(&fake, "/containers/broken/wait?condition=removed").await;
    assert_eq!((broken.status, broken.json()["Error"]["Message"].as_str()), (200, Some("removal failed")));
    assert_eq!(post(&fake, "/containers/missing/wait").await.status, 404);
    assert_eq!(post(&fake, "/containers/a/wait?condition=x").await.message(), "invalid condition: \"x\"");
    let old = post(&fake, "/v1.29/containers/a/wait?condition=ignored").await;
    assert_eq!(old.text(), "{\"StatusCode\":3}\n");
}

#[tokio::test]
async fn logs_are_multiplexed_unless_there_is_a_terminal() {
    let plain = fake();
    let answer =
        get(&plain, "/containers/a/logs?stdout=1&stderr=1&follow=1&since=1.5&until=0&tail=10&timestamps=1")
            .await;
    assert_eq!(answer.header("content-type"), Some("application/vnd.docker.multiplexed-stream"));
    assert_eq!(answer.body, b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n");
    insta::assert_snapshot!(plain.last_call());
    let old = get(&plain, "/v1.41/containers/a/logs?stdout=1&tail=all").await;
    assert_eq!(old.header("content-type"), Some("application/vnd.docker.raw-stream"));
    assert_eq!(old.body.len(), 24);

    let terminal = Arc::new(Fake { tty: true, ..Fake::default() });
    let answer = get(&terminal, "/containers/a/logs?stdout=1").await;
    assert_eq!(answer.header("content-type"), Some("application/vnd.docker.raw-stream"));
    assert_eq!(answer.text(), "out\nerr\n");
}

#[tokio::test]
async fn logs_need_a_stream() {
    let answer = get(&fake(), "/containers/a/logs").await;
    assert_eq!(
        (answer.status, answer.message()),
        (400, "Bad parameters: you must choose at least one stream".to_owned())
    );
}

#[tokio::test]
async fn stats_come_once_or_again_and_again() {
    let fake = fake();
    let once = get(&fake, "/containers/a/stats?stream=0&one-shot=1").await;
    assert_eq!(once.text().lines().count(), 1);
    assert_eq!(fake.last_call(), "StatsOptions { stream: false, one_shot: true }");
    insta::assert_json_snapshot!(once.json());
    assert_eq!(get(&fake, "/containers/a/stats").await.text().lines().count(), 2);
}

#[tokio::test]
async fn top_and_resize_take_their_options() {
    let fake = fake();
    assert_eq!(
        get(&fake, "/containers/a/top").await.text(),
        "{\"Processes\":[[\"1\"]],\"Titles\":[\"PID\"]}\n"
    );
    assert_eq!(fake.last_call(), "top -ef");
    get(&fake, "/containers/a/top?ps_args=aux%20w").await;
    assert_eq!(fake.last_call(), "top aux w");
    assert_eq!(post(&fake, "/containers/a/resize?h=24&w=80").await.status, 200);
    assert_eq!(fake.last_call(), "resize a TerminalSize { height: 24, width: 80 }");
    assert_eq!(post(&fake, "/containers/a/resize?h=24").await.status, 400);
}

#[tokio::test]
async fn prune_answers_null_when_nothing_went() {
    let fake = fake();
    let answer = post(&fake, "/containers/prune?filters=%7B%22until%22%3A%5B%221h%22%5D%7D").await;
    assert_eq!(answer.text(), "{\"ContainersDeleted\":null,\"SpaceReclaimed\":0}\n");
    assert!(fake.last_call().contains("1h"));
}

#[tokio::test]
async fn updates_take_limits_and_known_restart_policies() {
    let fake = fake();
    let answer =
        request(&fake, "POST", "/containers/web/update", Some(r#"{"Memory": 8388608, "PidsLimit": 0}"#))
            .await;
    assert_eq!((answer.status, answer.json()), (200, serde_json::json!({"Warnings": null})));
    assert_eq!(fake.last_call(), "update web Some(8388608) Some(0)");
    request(&fake, "POST", "/v1.39/containers/web/update", Some(r#"{"Memory": 8388608, "PidsLimit": 0}"#))
        .await;
    assert_eq!(fake.last_call(), "update web Some(8388608) None");
    let answer =
        request(&fake, "POST", "/containers/web/update", Some(r#"{"RestartPolicy": {"Name": "sometimes"}}"#))
            .await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().starts_with("invalid restart policy: unknown policy 'sometimes'"));
    assert_eq!(request(&fake, "POST", "/containers/missing/update", Some("{}")).await.status, 404);
}

#[tokio::test]
async fn a_link_is_removed_by_container_and_alias() {
    let fake = Arc::new(Fake::default());
    assert_eq!(delete(&fake, "/containers/web/db?link=1").await.status, 204);
    assert!(fake.last_call().contains("web/db"), "{}", fake.last_call());
    assert_eq!(delete(&fake, "/containers/web/db").await.status, 404);
}
