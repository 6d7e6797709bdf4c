//! Connections that become a container's stdio.

use std::sync::Arc;
use std::time::{Duration, Instant};

use skiff_docker_api::backend::StreamKind::{Stderr, Stdout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::client::{connect, read_head, within};
use crate::fake::{Fake, chunk};

const ATTACH: &str = "/containers/web/attach?stream=1&stdin=1&stdout=1&stderr=1";

fn fake() -> Arc<Fake> {
    Arc::new(Fake::default())
}

fn terminal() -> Arc<Fake> {
    Arc::new(Fake { tty: true, ..Fake::default() })
}

fn upgrade(target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn bare(target: &str, body: &str) -> String {
    upgrade(target, body).replace("Connection: Upgrade\r\nUpgrade: tcp\r\n", "")
}

async fn send(fake: &Arc<Fake>, bytes: &str) -> (UnixStream, String) {
    let mut stream = connect(fake);
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    (stream, head)
}

async fn rest(stream: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    within(stream.read_to_end(&mut all)).await.unwrap();
    all
}

#[tokio::test]
async fn an_upgrade_answers_101_with_the_streams_format() {
    for (fake, target, format) in [
        (fake(), ATTACH.to_owned(), "application/vnd.docker.multiplexed-stream"),
        (fake(), format!("/v1.41{ATTACH}"), "application/vnd.docker.raw-stream"),
        (terminal(), ATTACH.to_owned(), "application/vnd.docker.raw-stream"),
    ] {
        let (_stream, head) = send(&fake, &upgrade(&target, "")).await;
        assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains(&format!("content-type: {format}\r\n")), "{head}");
        assert!(lower.contains("connection: upgrade\r\n") && lower.contains("upgrade: tcp\r\n"), "{head}");
        assert!(!lower.contains("content-length") && !lower.contains("transfer-encoding"), "{head}");
    }
}

#[tokio::test]
async fn without_upgrade_the_answer_is_a_bare_200() {
    for (target, body) in
        [(ATTACH, ""), ("/v1.24/containers/web/attach?stream=1&stdin=1", ""), ("/exec/e1/start", "{}")]
    {
        let fake = fake();
        let (mut stream, head) = send(&fake, &bare(target, body)).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains("content-type: application/vnd.docker.raw-stream\r\n"), "{head}");
        assert!(!lower.contains("content-length") && !lower.contains("transfer-encoding"), "{head}");
        let mut stdio = fake.take_stdio();
        stream.write_all(b"in").await.unwrap();
        let mut input = [0; 2];
        within(stdio.input.as_mut().unwrap().read_exact(&mut input)).await.unwrap();
        assert_eq!(&input, b"in");
        stdio.output.send(chunk(Stdout, "out")).await.unwrap();
        drop(stdio.output);
        assert_eq!(rest(&mut stream).await, b"\x01\0\0\0\0\0\0\x03out");
    }
}

#[tokio::test]
async fn docker_py_gets_output_only_after_it_has_read_the_head() {
    let nameless = "tc-python/4.15.0\r\nAccept-Encoding: gzip, deflate, br\r\nAccept: */*";
    for agent in ["docker-sdk-python/7.1.0", nameless] {
        let fake = fake();
        let mut stream = connect(&fake);
        let request = upgrade("/exec/e1/start", "{}");
        let request = request.replacen("Host: d", &format!("Host: d\r\nUser-Agent: {agent}"), 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        within(stream.readable()).await.unwrap();
        let stdio = fake.take_stdio();
        stdio.output.send(chunk(Stdout, "early")).await.unwrap();
        drop(stdio.output);
        // A busy machine: its buffered read of the head comes late, and must not take output along.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut buffer = [0; 4096];
        let read = within(stream.read(&mut buffer)).await.unwrap();
        let head = String::from_utf8_lossy(&buffer[..read]);
        assert!(head.starts_with("HTTP/1.1 101") && head.ends_with("\r\n\r\n"), "{head}");
        assert_eq!(rest(&mut stream).await, b"\x01\0\0\0\0\0\0\x05early");
    }
}

#[tokio::test]
async fn output_is_multiplexed_and_its_end_closes_the_connection() {
    let fake = fake();
    let (mut stream, _) = send(&fake, &upgrade(ATTACH, "")).await;
    let stdio = fake.take_stdio();
    stdio.output.send(chunk(Stdout, "a")).await.unwrap();
    stdio.output.send(chunk(Stderr, "bc")).await.unwrap();
    drop(stdio.output);
    assert_eq!(rest(&mut stream).await, b"\x01\0\0\0\0\0\0\x01a\x02\0\0\0\0\0\0\x02bc");
}

#[tokio::test]
async fn a_terminals_output_is_raw() {
    let fake = terminal();
    let (mut stream, _) = send(&fake, &upgrade(ATTACH, "")).await;
    let stdio = fake.take_stdio();
    stdio.output.send(chunk(Stdout, "raw")).await.unwrap();
    drop(stdio.output);
    assert_eq!(rest(&mut stream).await, b"raw");
}

#[tokio::test]
async fn a_half_close_ends_stdin_and_output_goes_on() {
    for request in [
        upgrade(ATTACH, ""),
        bare(ATTACH, ""),
        upgrade("/exec/e1/start", "{}"),
        bare("/exec/e1/start", "{\"Tty\":false}"),
    ] {
        let fake = fake();
        let (mut stream, _) = send(&fake, &request).await;
        let mut stdio = fake.take_stdio();
        stream.write_all(b"last").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut input = Vec::new();
        within(stdio.input.as_mut().unwrap().read_to_end(&mut input)).await.unwrap();
        assert_eq!(input, b"last");
        // Longer than the check whether the client is there at all.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        stdio.output.send(chunk(Stdout, "still")).await.unwrap();
        drop(stdio.output);
        assert!(rest(&mut stream).await.ends_with(b"still"));
    }
}

#[tokio::test]
async fn input_sent_before_the_answer_is_kept() {
    // What looks like a request is input here.
    let early = "early\nPOST /containers/x/attach HTTP/1.1\r\nHost: d\r\n\r\n";
    for request in
        [upgrade(ATTACH, ""), bare(ATTACH, ""), upgrade("/exec/e1/start", "{}"), bare("/exec/e1/start", "{}")]
    {
        let fake = fake();
        let (mut stream, _) = send(&fake, &format!("{request}{early}")).await;
        let mut stdio = fake.take_stdio();
        stream.write_all(b"late").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut input = String::new();
        within(stdio.input.as_mut().unwrap().read_to_string(&mut input)).await.unwrap();
        assert_eq!(input, format!("{early}late"));
    }
}

#[tokio::test]
async fn any_request_of_a_connection_may_hijack_it() {
    for request in [upgrade(ATTACH, ""), bare(ATTACH, "")] {
        let fake = fake();
        let mut stream = connect(&fake);
        let first = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n".to_owned()
            + "POST /images/load HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            + &bare("/containers/missing/attach", "")
            + &upgrade("/containers/missing/attach", "")
            + &bare("/exec/e1/start", "{\"Detach\": true}")
            + &upgrade("/info", "").replace("POST", "GET")
            + &request
            + "in";
        stream.write_all(first.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut statuses = Vec::new();
        for _ in 0..7 {
            let head = read_head(&mut stream).await;
            statuses.push(head[9..12].to_owned());
            let lower = head.to_ascii_lowercase();
            if let Some(length) = lower.split("content-length: ").nth(1) {
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                let mut body = vec![0; length];
                within(stream.read_exact(&mut body)).await.unwrap();
            } else if lower.contains("chunked") {
                let mut body = Vec::new();
                while !body.ends_with(b"0\r\n\r\n") {
                    body.push(within(stream.read_u8()).await.unwrap());
                }
            }
        }
        assert_eq!(statuses[..6], ["200", "200", "404", "404", "200", "200"]);
        assert!(["101", "200"].contains(&statuses[6].as_str()));
        let mut stdio = fake.take_stdio();
        let mut input = Vec::new();
        within(stdio.input.as_mut().unwrap().read_to_end(&mut input)).await.unwrap();
        assert_eq!(input, b"in");
    }
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_copying() {
    for stdin in ["stdin=1&", ""] {
        let fake = fake();
        let target = format!("/containers/web/attach?{stdin}stream=1&stdout=1");
        let (stream, _) = send(&fake, &upgrade(&target, "")).await;
        let stdio = fake.take_stdio();
        drop(stream);
        // Also while the container is silent.
        within(stdio.output.closed()).await;
    }
}

#[tokio::test]
async fn a_slow_client_slows_the_container_down() {
    let fake = fake();
    let (mut stream, _) = send(&fake, &upgrade(ATTACH, "")).await;
    let stdio = fake.take_stdio();
    let big: &'static str = "x".repeat(64 << 10).leak();
    let mut sent = 0;
    while let Ok(result) =
        tokio::time::timeout(Duration::from_millis(100), stdio.output.send(chunk(Stdout, big))).await
    {
        result.unwrap();
        sent += 1;
        assert!(sent < 100, "nothing holds the output back");
    }
    drop(stdio.output);
    assert_eq!(rest(&mut stream).await.len(), sent * (big.len() + 8));
}

#[tokio::test]
async fn detach_keys_end_the_connection_of_a_terminal_only() {
    let fake = terminal();
    let (mut stream, _) = send(&fake, &upgrade(ATTACH, "")).await;
    let mut stdio = fake.take_stdio();
    stream.write_all(b"ls\x10").await.unwrap();
    stream.write_all(b"\x11").await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    within(fake.detached.notified()).await;
    let mut input = Vec::new();
    within(stdio.input.as_mut().unwrap().read_to_end(&mut input)).await.unwrap();
    assert_eq!(input, b"ls");

    let own_keys = terminal();
    let (mut stream, _) = send(&own_keys, &upgrade(&format!("{ATTACH}&detachKeys=a,ctrl-b"), "")).await;
    stream.write_all(b"a\x02").await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");

    let plain = fake_with_input_of(b"\x10\x11end").await;
    assert_eq!(plain, b"\x10\x11end");
}

async fn fake_with_input_of(bytes: &[u8]) -> Vec<u8> {
    let fake = fake();
    let (mut stream, _) = send(&fake, &upgrade(ATTACH, "")).await;
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut stdio = fake.take_stdio();
    let mut input = Vec::new();
    within(stdio.input.as_mut().unwrap().read_to_end(&mut input)).await.unwrap();
    input
}

#[tokio::test]
async fn invalid_detach_keys_are_refused() {
    let fake = fake();
    let (_stream, head) = send(&fake, &upgrade("/containers/web/attach?detachKeys=ctrl-1", "")).await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
}

#[tokio::test]
async fn attach_options_are_passed_on() {
    let fake = fake();
    send(
        &fake,
        &upgrade("/containers/web/attach?logs=1&stream=1&stdout=true&stderr=0&detachKeys=ctrl-a", ""),
    )
    .await;
    insta::assert_snapshot!(fake.last_call());
}

#[tokio::test]
async fn a_client_that_would_lose_early_output_gets_it_after_the_head() {
    let fake = fake();
    let request =
        upgrade("/exec/e1/start", "{}").replace("Host: d", "Host: d\r\nUser-Agent: docker-sdk-python/7.0.0");
    let begin = Instant::now();
    let (mut stream, _) = send(&fake, &request).await;
    let stdio = fake.take_stdio();
    stdio.output.send(chunk(Stdout, "a")).await.unwrap();
    drop(stdio.output);
    assert_eq!(rest(&mut stream).await, b"\x01\0\0\0\0\0\0\x01a");
    assert!(begin.elapsed() >= Duration::from_millis(20), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_execs_start_says_how_its_output_is_framed() {
    for (fake, body, output) in
        [(terminal(), r#"{"Tty":false}"#, &b"\x01\0\0\0\0\0\0\x01a"[..]), (fake(), r#"{"Tty":true}"#, b"a")]
    {
        let (mut stream, _) = send(&fake, &upgrade("/exec/e1/start", body)).await;
        let stdio = fake.take_stdio();
        stdio.output.send(chunk(Stdout, "a")).await.unwrap();
        drop(stdio.output);
        assert_eq!(rest(&mut stream).await, output);
    }
}

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn a_websocket_carries_the_streams_in_frames() {
    let fake = fake();
    let target = "/v1.43/containers/web/attach/ws?stream=1&stdin=1&stdout=1";
    let (mut stream, head) =
        send(&fake, &format!("GET {target} HTTP/1.1\r\nHost: d\r\n{WEBSOCKET}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(lower.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(lower.contains("upgrade: websocket\r\n") && !lower.contains("content-type"), "{head}");
    assert!(fake.last_call().contains("stderr: false"), "{}", fake.last_call());
    let mut stdio = fake.take_stdio();
    stream.write_all(b"\x81\x82\x01\x02\x03\x04hl").await.unwrap();
    let mut input = [0; 2];
    within(stdio.input.as_mut().unwrap().read_exact(&mut input)).await.unwrap();
    assert_eq!(&input, b"in");
    stdio.output.send(chunk(Stdout, "out")).await.unwrap();
    drop(stdio);
    assert_eq!(rest(&mut stream).await, b"\x82\x03out\x88\x02\x03\xe8");
}

#[tokio::test]
async fn old_clients_get_text_frames_of_every_stream() {
    let fake = fake();
    let target = "/v1.27/containers/web/attach/ws?stream=1";
    let (mut stream, _) = send(&fake, &format!("GET {target} HTTP/1.1\r\nHost: d\r\n{WEBSOCKET}\r\n")).await;
    let stdio = fake.take_stdio();
    stdio.output.send(chunk(Stderr, "err")).await.unwrap();
    drop(stdio);
    assert_eq!(rest(&mut stream).await, b"\x81\x03err\x88\x02\x03\xe8");
}

#[tokio::test]
async fn what_asks_for_no_websocket_is_refused() {
    let answer = crate::client::get(&fake(), "/containers/web/attach/ws?stream=1").await;
    assert_eq!((answer.status, answer.message()), (400, "not websocket protocol".to_owned()));
    let missing = format!(
        "GET /containers/missing/attach/ws HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{}\r\n",
        WEBSOCKET.replace("Connection: Upgrade\r\n", "")
    );
    assert_eq!(crate::client::raw(&fake(), &missing).await.status, 404);
}
