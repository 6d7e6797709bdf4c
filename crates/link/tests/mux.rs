//! Two ends of a multiplexed link over a unix socket pair.

#![cfg(unix)]

mod common;

use std::time::Duration;

use common::{pair, pair_with, small};
use serde_json::json;
use skiff_link::mux::Config;
use skiff_link::{Args, CloseReason, Error, OpenError, ReplyCode, StreamHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn api() -> StreamHeader {
    Args::Api {}.into()
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_half_closes() {
    let (host, guest) = pair().await;
    let serving = tokio::spawn(async move {
        let incoming = guest.accept().await.unwrap();
        assert_eq!(incoming.header, api());
        let mut stream = incoming.accept(None).await.unwrap();
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await.unwrap();
        assert_eq!(request, b"ping");
        stream.write_all(b"pong").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut stream = host.open(&api()).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"pong");
    serving.await.unwrap();
}

#[tokio::test]
async fn both_sides_open_streams_and_replies_carry_data() {
    let (host, guest) = pair().await;
    let publish = StreamHeader::new(Args::Publish {
        container: "web".into(),
        host_ip: "0.0.0.0".parse().unwrap(),
        host_port: 0,
        protocol: skiff_link::Protocol::Tcp,
        target: "172.17.0.2:80".parse().unwrap(),
    });
    let expected = publish.clone();
    let serving = tokio::spawn(async move {
        let incoming = host.accept().await.unwrap();
        assert_eq!(incoming.header, expected);
        incoming.accept(Some(json!({"host_port": 4711}))).await.unwrap()
    });
    let (_stream, reply) = guest.open_with_data(&publish).await.unwrap();
    assert_eq!(reply.data, Some(json!({"host_port": 4711})));
    serving.await.unwrap();
}

#[tokio::test]
async fn a_refusal_arrives_with_code_and_message() {
    let (host, guest) = pair().await;
    tokio::spawn(async move {
        let incoming = guest.accept().await.unwrap();
        incoming.refuse(ReplyCode::AddressInUse, "port 80 is taken").await;
        let dropped = guest.accept().await.unwrap();
        drop(dropped);
        std::future::pending::<()>().await;
    });
    let error = host.open(&api()).await.err().unwrap();
    assert_eq!(error.to_string(), "api: port 80 is taken");
    assert!(matches!(error, OpenError::Refused { code: ReplyCode::AddressInUse, .. }));
    let error = host.open(&api()).await.err().unwrap();
    assert!(matches!(error, OpenError::Refused { code: ReplyCode::Internal, .. }));
}

#[tokio::test]
async fn an_unanswered_stream_is_refused_at_its_deadline() {
    let config = Config { answer_deadline: Duration::from_millis(50), ..small() };
    let (host, guest) = pair_with(small(), config).await;
    // One is looked at and not answered, one is not even looked at.
    let first = tokio::spawn({
        let host = host.clone();
        async move { host.open(&api()).await.err().unwrap() }
    });
    let incoming = guest.accept().await.unwrap();
    let second = host.open(&api()).await.err().unwrap();
    for error in [first.await.unwrap(), second] {
        assert!(matches!(error, OpenError::Refused { code: ReplyCode::TimedOut, .. }), "{error}");
    }
    assert!(matches!(incoming.accept(None).await, Err(Error::Withdrawn)));
}

#[tokio::test]
async fn an_opener_does_not_wait_for_ever() {
    let config = Config { open_deadline: Duration::from_millis(50), ..small() };
    let (host, guest) = pair_with(config, small()).await;
    let error = host.open(&api()).await.err().unwrap();
    assert!(matches!(error, OpenError::Link { source: Error::Unanswered { .. }, .. }));
    // Giving up has withdrawn it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), guest.accept()).await.is_err());
}

#[tokio::test]
async fn a_stream_dropped_before_its_end_is_reset_after_its_bytes() {
    let (host, guest) = pair().await;
    let serving = tokio::spawn(async move {
        let mut stream = guest.accept().await.unwrap().accept(None).await.unwrap();
        stream.write_all(&[7; 5000]).await.unwrap();
        drop(stream);
        guest
    });
    let mut stream = host.open(&api()).await.unwrap();
    let mut received = Vec::new();
    let error = stream.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(received, [7; 5000]);
    assert_eq!(stream.write_all(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    serving.await.unwrap();
}

#[tokio::test]
async fn bytes_and_end_survive_the_death_of_the_link() {
    let (host, guest) = pair().await;
    let serving = tokio::spawn(async move {
        let mut stream = guest.accept().await.unwrap().accept(None).await.unwrap();
        stream.write_all(b"last words").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut nothing = [0; 1];
        let _ = stream.read(&mut nothing).await;
    });
    let mut stream = host.open(&api()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    host.close();
    let mut received = String::new();
    stream.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "last words");
    assert_eq!(host.closed().await, CloseReason::Local);
    assert!(host.open(&api()).await.is_err());
    serving.await.unwrap();
}

#[tokio::test]
async fn a_stream_nobody_reads_stops_alone() {
    let (host, guest) = pair().await;
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let mut stream = guest.accept().await.unwrap().accept(None).await.unwrap();
            if held.is_empty() {
                held.push(stream);
                continue;
            }
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..count]).await.unwrap();
            }
        }
    });
    let mut stuck = host.open(&api()).await.unwrap();
    let flood = tokio::spawn(async move {
        loop {
            stuck.write_all(&[1; 65536]).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut stream = host.open(&api()).await.unwrap();
    for _ in 0..100 {
        stream.write_all(b"0123456789").await.unwrap();
        let mut echo = [0; 10];
        stream.read_exact(&mut echo).await.unwrap();
    }
    assert!(!flood.is_finished());
    flood.abort();
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_places_come_back() {
    let config = Config { max_streams: 3, ..small() };
    let (host, guest) = pair_with(small(), config).await;
    tokio::spawn(async move {
        loop {
            let stream = guest.accept().await.unwrap().accept(None).await.unwrap();
            tokio::spawn(async move {
                let mut stream = stream;
                let mut nothing = Vec::new();
                let _ = stream.read_to_end(&mut nothing).await;
            });
        }
    });
    for _ in 0..5 {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(host.open(&api()).await.unwrap());
        }
        let error = host.open(&api()).await.err().unwrap();
        assert!(matches!(error, OpenError::Refused { code: ReplyCode::Limit, .. }), "{error}");
        drop(held);
        // The peer's tasks let go a moment later.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test]
async fn silence_ends_the_session() {
    let (io, mut other) = tokio::net::UnixStream::pair().unwrap();
    let config = Config {
        ping_interval: Some(Duration::from_millis(20)),
        ping_timeout: Duration::from_millis(60),
        ..small()
    };
    let host = tokio::spawn(skiff_link::mux::connect(io, skiff_link::mux::Role::Host, config));
    other.write_all(&common::wire::hello([9; 16])).await.unwrap();
    let host = host.await.unwrap().unwrap();
    assert!(matches!(host.closed().await, CloseReason::Silent { .. }));
}

#[tokio::test]
async fn pings_keep_an_idle_session_alive() {
    let config = Config {
        ping_interval: Some(Duration::from_millis(10)),
        ping_timeout: Duration::from_millis(200),
        ..small()
    };
    let (host, guest) = pair_with(config.clone(), config).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let opening = tokio::spawn(async move { host.open(&api()).await.map(drop) });
    guest.accept().await.unwrap().accept(None).await.unwrap();
    opening.await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_everything_ends_the_session_on_both_sides() {
    let (host, guest) = pair().await;
    let closed = guest.closed();
    drop(host);
    assert_eq!(closed.await, CloseReason::HungUp);
    assert!(matches!(guest.accept().await, Err(Error::Closed { .. })));
}
