//! Whatever is sent: an answer that isn't 500, or a closed connection.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{connect, parse};
use crate::fake::Fake;

fn answer_to(bytes: Vec<u8>) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fake = Arc::new(Fake::default());
        let mut stream = connect(&fake);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut all = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all));
        if read.await.is_err() {
            panic!("no end of the answer to {bytes:?}");
        }
        all
    })
}

fn no_server_error(answer: &[u8]) {
    if !answer.is_empty() {
        assert!(answer.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(answer));
        if answer.windows(4).any(|window| window == b"\r\n\r\n") && !answer.starts_with(b"HTTP/1.1 101") {
            let status = &answer[9..12];
            assert!(status != b"500", "{:?}", String::from_utf8_lossy(answer));
        }
    }
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "containers",
            "images",
            "exec",
            "volumes",
            "networks",
            "json",
            "create",
            "start",
            "wait",
            "logs",
            "v1.41",
            "v1.2",
            "events",
            "info",
            "system",
            "df",
            "prune",
            "top",
            "stats",
            "tag",
            "history",
            "a",
            "",
            "..",
            "resize",
            "kill",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,6}"
            .prop_map(|text| text
                .replace([' ', '\r', '\n', '#', '"', '<', '>', '\\', '^', '`', '{', '|', '}'], "%20")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_never_break_the_server(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        no_server_error(&answer_to(bytes));
    }

    #[test]
    fn random_requests_are_answered(
        method in prop::sample::select(vec!["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "CONNECT"]),
        path in prop::collection::vec(segment(), 0..5),
        query in "[a-z=&%0-9\\[\\]{}:]{0,30}",
        body in "[ -~]{0,40}",
    ) {
        let request = format!(
            "{method} /{}?{query} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            path.join("/"), body.len()
        );
        no_server_error(&answer_to(request.into_bytes()));
    }

    #[test]
    fn requests_in_pieces_are_the_same_as_at_once(cuts in prop::collection::vec(0usize..400, 0..6)) {
        let bytes = b"POST /images/load HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
                      POST /containers/a/kill?signal=9 HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}\
                      POST /exec/missing/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}\
                      GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
        cuts.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fake = Arc::new(Fake::default());
            let mut stream = connect(&fake);
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                stream.write_all(&bytes[from..cut]).await.unwrap();
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                from = cut;
            }
            let mut all = Vec::new();
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await.unwrap().unwrap();
            let text = String::from_utf8(all).unwrap();
            assert_eq!(text.matches("HTTP/1.1 ").count(), 4, "{text}");
            assert!(text.contains("HTTP/1.1 404") && text.ends_with("OK"), "{text}");
            assert_eq!(fake.calls(), ["load 5 quiet=true", "kill a Some(\"9\")"]);
        });
    }
}

#[tokio::test]
async fn the_largest_head_is_hypers() {
    let fake = Arc::new(Fake::default());
    let mut stream = connect(&fake);
    let head = format!(
        "GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\nX-Long: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(parse(all).status, 200);
}
