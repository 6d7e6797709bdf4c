//! BuildKit's doors: upgrades to HTTP/2, gRPC without one, builds by query.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::client::{connect, delete, get, parse, post, raw, read_head, within};
use crate::fake::Fake;

fn upgrade(target: &str, more: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{more}\r\n")
}

/// Makes a gRPC call on a connection that speaks HTTP/2 from its next byte on.
async fn call(stream: UnixStream, path: &str, body: &'static str) -> (String, Bytes) {
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://docker{path}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap();
    let response = within(send.send_request(request)).await.unwrap();
    let seen = response.headers()["x-path"].to_str().unwrap().to_owned();
    (seen, response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn grpc_is_served_after_an_upgrade_and_from_the_first_byte_on() {
    const PATH: &str = "/moby.buildkit.v1.Control/Info";
    let fake = Arc::new(Fake::default());
    for prefix in ["", "/v1.47"] {
        let mut stream = connect(&fake);
        stream.write_all(upgrade(&format!("{prefix}/grpc"), "").as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: h2c\r\n"), "{head}");
        assert_eq!(call(stream, PATH, "message").await, (PATH.to_owned(), Bytes::from("message")));
    }
    assert_eq!(call(connect(&fake), PATH, "message").await, (PATH.to_owned(), Bytes::from("message")));
    assert_eq!(fake.calls(), [format!("grpc {PATH}"), format!("grpc {PATH}"), format!("grpc {PATH}")]);
}

#[tokio::test]
async fn a_session_gets_its_offer_and_every_byte_of_its_connection() {
    let fake = Arc::new(Fake::default());
    let mut stream = connect(&fake);
    let offer = "X-Docker-Expose-Session-Uuid: s1\r\nX-Docker-Expose-Session-Sharedkey: k\r\n\
                 X-Docker-Expose-Session-Grpc-Method: /a/B\r\nX-Docker-Expose-Session-Grpc-Method: /c/D\r\n";
    // Bytes that come along with the request belong to the session.
    let bytes = format!("{}early ", upgrade("/v1.41/session", offer));
    stream.write_all(bytes.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    stream.write_all(b"late").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    within(stream.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "hello early late");
    assert_eq!(
        fake.last_call(),
        "SessionOffer { id: \"s1\", shared_key: \"k\", methods: [\"/a/B\", \"/c/D\"] }"
    );
}

#[tokio::test]
async fn a_refused_upgrade_leaves_the_connection_as_it_was() {
    let fake = Arc::new(Fake::default());
    let refused = upgrade("/session", "X-Docker-Expose-Session-Uuid: taken\r\n");
    let answers =
        raw(&fake, &format!("{refused}GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(answers.status, 400);
    let next = answers.body.windows(5).position(|window| window == b"HTTP/").expect("a second answer");
    assert_eq!(parse(answers.body[next..].to_vec()).status, 200);
    for target in ["/session", "/grpc"] {
        assert_eq!(post(&fake, target).await.message(), "no upgrade proto in request");
        let other = upgrade(target, "Connection: close\r\n").replace("h2c", "websocket");
        assert_eq!(raw(&fake, &other).await.message(), "protocol websocket not supported");
    }
}

#[tokio::test]
async fn a_build_by_query_answers_in_lines() {
    let fake = Arc::new(Fake::default());
    let answer = post(&fake, "/v1.41/build?version=2&remote=client-session&session=s&t=a&buildid=b").await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "{\"id\":\"moby.buildkit.trace\",\"aux\":\"AAAA\"}\n")
    );
    assert!(fake.last_call().contains("session: \"s\""), "{}", fake.last_call());
    let failing = Arc::new(Fake { fail_late: true, ..Fake::default() });
    let text = post(&failing, "/build?version=2").await.text();
    assert!(
        text.ends_with("{\"error\":\"failed to solve\",\"errorDetail\":{\"message\":\"failed to solve\"}}\n"),
        "{text}"
    );
    assert_eq!(post(&fake, "/build?version=2&buildid=upload-request:b").await.text(), "");
    assert_eq!(post(&fake, "/build/cancel?id=b").await.status, 200);
    assert_eq!(fake.last_call(), "cancel build b");
    assert_eq!(post(&fake, "/build/cancel").await.message(), "build ID not provided");
}

#[tokio::test]
async fn the_history_of_builds_is_listed_told_and_shortened() {
    let fake = Arc::new(Fake::default());
    let list = get(&fake, "/build/history").await.json();
    assert_eq!((list[0]["Id"].as_str(), list[0]["State"].as_str()), (Some("b1"), Some("error")));
    assert_eq!((list[0]["Tags"][0].as_str(), list[0]["Cached"].as_u64()), (Some("app:1"), Some(1)));
    let tale = get(&fake, "/build/history/b1").await.text();
    let tale: Vec<serde_json::Value> = tale.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((tale[0]["Kind"].as_str(), tale[0]["Name"].as_str()), (Some("step"), Some("RUN x")));
    assert_eq!((tale[1]["Kind"].as_str(), tale[1]["Text"].as_str()), (Some("log"), Some("hi\n")));
    assert_eq!(get(&fake, "/build/history/none").await.status, 404);
    assert_eq!(delete(&fake, "/build/history/b1").await.status, 204);
    assert_eq!(fake.last_call(), "forget b1");
}
