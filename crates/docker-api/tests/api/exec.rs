//! Execs, but for their streams (see `hijack`).

use std::sync::Arc;

use crate::client::{get, post, request};
use crate::fake::Fake;

#[tokio::test]
async fn creating_needs_a_command() {
    let fake = Arc::new(Fake::default());
    let answer = request(&fake, "POST", "/containers/web/exec", Some(r#"{"Cmd":["sh"],"Tty":true}"#)).await;
    assert_eq!((answer.status, answer.text().as_str()), (201, "{\"Id\":\"e1\"}\n"));
    assert_eq!(fake.last_call(), "exec web Some([\"sh\"])");
    for body in ["{}", r#"{"Cmd":[]}"#] {
        let answer = request(&fake, "POST", "/containers/web/exec", Some(body)).await;
        assert_eq!((answer.status, answer.message()), (400, "No exec command specified".to_owned()));
    }
    let keys =
        request(&fake, "POST", "/containers/web/exec", Some(r#"{"Cmd":["sh"],"DetachKeys":"ctrl-1"}"#)).await;
    assert_eq!(keys.message(), "Invalid detach keys (ctrl-1) provided: Unknown character: 'ctrl-1'");
}

#[tokio::test]
async fn inspect_has_every_field_of_dockerds() {
    let fake = Arc::new(Fake::default());
    insta::assert_json_snapshot!(get(&fake, "/exec/e1/json").await.json());
    assert_eq!(get(&fake, "/exec/missing/json").await.message(), "No such exec instance: missing");
}

#[tokio::test]
async fn starting_detached_answers_at_once() {
    let fake = Arc::new(Fake::default());
    let answer = request(&fake, "POST", "/exec/e1/start", Some(r#"{"Detach":true}"#)).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
    assert!(fake.last_call().starts_with("start detached e1"));
}

#[tokio::test]
async fn resize_and_console_size_are_passed_on() {
    let fake = Arc::new(Fake::default());
    assert_eq!(post(&fake, "/exec/e1/resize?h=1&w=2").await.status, 200);
    assert_eq!(fake.last_call(), "resize e1 TerminalSize { height: 1, width: 2 }");
    let body = r#"{"Detach":true,"Tty":true,"ConsoleSize":[24,80]}"#;
    request(&fake, "POST", "/exec/e1/start", Some(body)).await;
    assert!(fake.last_call().contains("height: 24, width: 80"));
    let body = r#"{"Detach":true,"ConsoleSize":[24,80]}"#;
    let answer = request(&fake, "POST", "/exec/e1/start", Some(body)).await;
    assert_eq!(answer.message(), "console size is only supported when TTY is enabled");
}
