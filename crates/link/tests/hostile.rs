//! A guest that breaks the rules costs itself its session, and the host nothing.
#![cfg(unix)]

mod common;

use std::time::Duration;

use common::small;
use common::wire::*;
use skiff_link::mux::{Config, HostListener};
use skiff_link::{Args, CloseReason, Link, Reply, ReplyCode, StreamHeader, Violation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn session(config: Config) -> (RawGuest, Link, HostListener) {
    let (mut guest, mut listener) = RawGuest::with_host(config).await;
    let link = listener.next().await.unwrap();
    guest.read_ack().await;
    (guest, link, listener)
}

/// The session ends for this reason, and the host takes the next greeting on the same byte stream.
async fn ends_with(mut guest: RawGuest, link: Link, mut listener: HostListener, violation: Violation) {
    assert_eq!(link.closed().await, CloseReason::Violation { violation });
    drop(link);
    // Reads away what the host wrote meanwhile.
    let mut stale = vec![0; 1 << 20];
    let _ = tokio::time::timeout(Duration::from_millis(10), guest.stream.read(&mut stale)).await;
    guest.send(&hello(NONCE)).await;
    let next = listener.next().await.unwrap();
    guest.read_ack().await;
    guest.send(&frame(OPEN, 2, &header(1))).await;
    next.accept().await.unwrap();
}

#[tokio::test]
async fn breaking_the_rules_ends_the_session_and_nothing_else() {
    let ok = Reply::ok(None).encode().unwrap();
    let cases: Vec<(Vec<Vec<u8>>, Violation)> = vec![
        (vec![vec![0; 12]], Violation::Type(0)),
        (vec![vec![77; 12]], Violation::Type(77)),
        (vec![frame(DATA, 1, &[])], Violation::Length { kind: DATA, length: 0 }),
        (
            vec![vec![DATA, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255]],
            Violation::Length { kind: DATA, length: u32::MAX },
        ),
        (vec![frame_with_tag(PING, 0, &[0; 8], b"oops")], Violation::Tag),
        // Numbers that are not the guest's, not upwards, or never opened.
        (vec![frame(OPEN, 3, &header(1))], Violation::StreamId(3)),
        (vec![frame(OPEN, 6, &header(1)), frame(OPEN, 4, &header(1))], Violation::StreamId(4)),
        (vec![frame(OPEN, 6, &header(1)), frame(OPEN, 6, &header(1))], Violation::StreamId(6)),
        (vec![frame(DATA, 8, b"x")], Violation::StreamId(8)),
        (vec![frame(REPLY, 5, &ok)], Violation::StreamId(5)),
        // Frames out of order.
        (vec![frame(DATA, 1, b"x")], Violation::State { kind: DATA, stream: 1 }),
        (vec![frame(FIN, 1, b"")], Violation::State { kind: FIN, stream: 1 }),
        (vec![frame(REPLY, 1, &ok), frame(REPLY, 1, &ok)], Violation::State { kind: REPLY, stream: 1 }),
        (vec![frame(OPEN, 2, &header(1)), frame(REPLY, 2, &ok)], Violation::State { kind: REPLY, stream: 2 }),
        (vec![frame(OPEN, 2, &header(1)), frame(DATA, 2, b"x")], Violation::State { kind: DATA, stream: 2 }),
        (
            vec![frame(REPLY, 1, &ok), frame(FIN, 1, b""), frame(FIN, 1, b"")],
            Violation::State { kind: FIN, stream: 1 },
        ),
        (
            vec![frame(REPLY, 1, &ok), frame(FIN, 1, b""), frame(DATA, 1, b"x")],
            Violation::State { kind: DATA, stream: 1 },
        ),
        (vec![frame(REPLY, 1, &[1, 200, 0, 0])], Violation::Reply(1)),
        (vec![frame(REPLY, 1, &[1, 0, 9, 0, b'{'])], Violation::Reply(1)),
        // Credit: more than was granted, more than makes sense.
        (
            std::iter::once(frame(REPLY, 1, &ok))
                .chain((0..5).map(|_| frame(DATA, 1, &[0; 65536])))
                .collect(),
            Violation::Credit(1),
        ),
        (
            std::iter::once(frame(REPLY, 1, &ok))
                .chain((0..2).map(|_| frame(CREDIT, 1, &[0, 0, 0, 0x3f])))
                .collect(),
            Violation::Credit(1),
        ),
    ];
    for (frames, violation) in cases {
        let (mut guest, link, listener) = session(small()).await;
        // Stream 1 waits for its reply and then holds the stream without reading.
        let opener = link.clone();
        let opening = tokio::spawn(async move {
            let header = StreamHeader::new(Args::Api {});
            let stream = opener.open(&header).await;
            std::future::pending::<()>().await;
            drop(stream);
        });
        guest.read_until(OPEN).await;
        for bytes in frames {
            guest.send(&bytes).await;
        }
        ends_with(guest, link, listener, violation).await;
        opening.abort();
    }
}

#[tokio::test]
async fn an_unknown_service_is_refused_and_the_session_lives() {
    let (mut guest, link, _listener) = session(small()).await;
    guest.send(&frame(OPEN, 2, &header(99))).await;
    guest.send(&frame(OPEN, 4, &[2, 1, 0, 0])).await;
    guest.send(&frame(OPEN, 6, &[1, 2, 2, 0, b'{', b'}'])).await;
    guest.send(&frame(OPEN, 8, &header(1))).await;
    for (id, code) in [(2, ReplyCode::Unsupported), (4, ReplyCode::Unsupported), (6, ReplyCode::Invalid)] {
        let (stream, reply) = guest.read_until(REPLY).await;
        assert_eq!((stream, Reply::decode(&reply).unwrap().code), (id, code));
    }
    assert_eq!(link.accept().await.unwrap().header, StreamHeader::new(Args::Api {}));
}

#[tokio::test]
async fn a_guest_cannot_open_streams_beyond_the_limit() {
    let (mut guest, link, _listener) = session(Config { max_streams: 10, backlog: 5, ..small() }).await;
    for id in 1..=20 {
        guest.send(&frame(OPEN, id * 2, &header(1))).await;
    }
    for _ in 0..15 {
        let (_, reply) = guest.read_until(REPLY).await;
        assert_eq!(Reply::decode(&reply).unwrap().code, ReplyCode::Limit);
    }
    for _ in 0..5 {
        link.accept().await.unwrap();
    }
}

#[tokio::test]
async fn a_guest_that_asks_and_never_reads_is_cut_off() {
    let (mut guest, link, _listener) = session(small()).await;
    // The refusals fill the socket, then the queue; the pings cost nothing.
    let flood = tokio::spawn(async move {
        for id in 1.. {
            let bytes = [frame(OPEN, id * 2, &header(99)), frame(PING, 0, &[1; 8])].concat();
            if guest.stream.write_all(&bytes).await.is_err() {
                break;
            }
        }
        guest
    });
    let reason = tokio::time::timeout(Duration::from_secs(20), link.closed()).await.unwrap();
    assert_eq!(reason, CloseReason::Violation { violation: Violation::Flood });
    flood.abort();
}

#[tokio::test]
async fn pings_are_answered_with_their_bytes() {
    let (mut guest, _link, _listener) = session(small()).await;
    guest.send(&frame(PING, 0, b"12345678")).await;
    assert_eq!(guest.read_until(PONG).await, (0, b"12345678".to_vec()));
}

#[tokio::test]
async fn a_withdrawn_stream_frees_its_place() {
    let (mut guest, link, _listener) = session(Config { max_streams: 2, backlog: 2, ..small() }).await;
    for id in 1..200 {
        guest.send(&frame(OPEN, id * 2, &header(1))).await;
        guest.send(&frame(RESET, id * 2, b"")).await;
    }
    guest.send(&frame(OPEN, 1000, &header(3))).await;
    // Some were already being looked at when they were withdrawn; those cannot be accepted.
    loop {
        let incoming = link.accept().await.unwrap();
        if incoming.header == StreamHeader::new(Args::Shell {}) {
            break incoming.accept(None).await.map(drop).unwrap();
        }
    }
}

#[tokio::test]
async fn unread_bytes_stay_within_the_budget() {
    let config = Config { window: 64 * 1024, receive_budget: 256 * 1024, ..small() };
    let (mut guest, link, _listener) = session(config).await;
    let mut granted = 0;
    let mut held = Vec::new();
    for id in 1..=32 {
        guest.send(&frame(OPEN, id * 2, &header(1))).await;
        held.push(link.accept().await.unwrap().accept(None).await.unwrap());
        let (stream, credit) = guest.read_until(CREDIT).await;
        assert_eq!(stream, id * 2);
        granted += u32::from_le_bytes(credit.try_into().unwrap());
    }
    assert!(granted <= 256 * 1024 + 64 * 1024 + 32 * 16 * 1024, "{granted}");
}

#[tokio::test]
async fn garbage_instead_of_a_greeting_is_discarded_in_bounded_memory() {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let mut listener = HostListener::new(theirs, small());
    let mut guest = RawGuest { stream: ours };
    let listening = tokio::spawn(async move { (listener.next().await.unwrap(), listener) });
    for _ in 0..64 {
        guest.send(&b"\xF5SKIFF-LINK-HELL ".repeat(4096)).await;
    }
    guest.send(b"\xF5SKIFF-LIN").await;
    guest.send(&hello(NONCE)).await;
    let (link, _listener) = listening.await.unwrap();
    guest.read_ack().await;
    guest.send(&frame(OPEN, 2, &header(1))).await;
    link.accept().await.unwrap();
}
