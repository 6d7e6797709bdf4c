//! One byte stream, one session after the other: whoever dies in the middle of a frame leaves nothing behind.
#![cfg(unix)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::small;
use common::wire::*;
use skiff_link::mux::{self, HostListener, Role};
use skiff_link::{Args, CloseReason, Error, Link, Reply, StreamHeader, Violation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn port_pair() -> (Port, Port) {
    let (a, b) = UnixStream::pair().unwrap();
    (Port(Arc::new(a)), Port(Arc::new(b)))
}

/// Starts a guest on the port and carries a stream over the session it gets.
///
/// The host may yield a session that is dead already: it has answered the greeting of a guest that is gone.
async fn reconnect(listener: &mut HostListener, port: Port) -> (Link, Link) {
    let greeting = async {
        let guest = mux::connect(port, Role::Guest, small()).await.unwrap();
        let mut near = guest.open(&Args::Resolve { name: "x".into() }.into()).await.unwrap();
        near.write_all(b"ping").await.unwrap();
        near.shutdown().await.unwrap();
        near.read_u8().await.unwrap();
        guest
    };
    let accepting = async {
        loop {
            let host = listener.next().await.unwrap();
            if let Ok(incoming) = host.accept().await {
                let mut far = incoming.accept(None).await.unwrap();
                let mut text = String::new();
                far.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "ping");
                far.write_all(b"!").await.unwrap();
                break host;
            }
        }
    };
    tokio::join!(accepting, greeting)
}

#[tokio::test]
async fn a_guest_that_died_in_a_frame_leaves_no_byte_of_it() {
    // However far it came: in the head, in the payload, in the tag, between frames.
    let whole = frame(DATA, 1, &[0xAB; 4000]);
    for cut in [1, 7, 12, 13, 2000, whole.len() - 4, whole.len() - 1, whole.len()] {
        let (host_port, guest_port) = port_pair();
        let mut listener = HostListener::new(host_port, small());
        let mut raw = RawGuest { stream: guest_port.clone() };
        raw.send(&hello(NONCE)).await;
        let first = listener.next().await.unwrap();
        raw.read_ack().await;
        let opening = tokio::spawn({
            let first = first.clone();
            async move { first.open(&StreamHeader::new(Args::Api {})).await.unwrap() }
        });
        raw.read_until(OPEN).await;
        raw.send(&frame(REPLY, 1, &Reply::ok(None).encode().unwrap())).await;
        let mut stream = opening.await.unwrap();
        raw.send(&whole[..cut]).await;
        drop(raw);
        // The process is started again and finds the port as it was left.
        reconnect(&mut listener, guest_port).await;
        let mut received = Vec::new();
        assert!(stream.read_to_end(&mut received).await.is_err());
        assert_eq!(received.len(), if cut == whole.len() { 4000 } else { 0 }, "{cut}");
        assert!(matches!(first.closed().await, CloseReason::Violation { .. }));
    }
}

#[tokio::test]
async fn a_guest_that_died_in_its_greeting_is_forgotten() {
    for cut in [1, 15, 16, 20, 35, 36, 39] {
        let (host_port, guest_port) = port_pair();
        let mut listener = HostListener::new(host_port, small());
        guest_port.clone().write_all(&hello(NONCE)[..cut]).await.unwrap();
        reconnect(&mut listener, guest_port).await;
    }
}

#[tokio::test]
async fn a_host_that_died_in_a_frame_makes_the_guest_greet_again() {
    let whole = frame_with_tag(DATA, 2, &[0xAB; 4000], b"none");
    for cut in [1, 12, 2000, whole.len() - 4] {
        let (mut host_port, guest_port) = port_pair();
        let guest = tokio::spawn(mux::connect(guest_port.clone(), Role::Guest, small()));
        let nonce = read_hello(&mut host_port).await;
        host_port.write_all(&ack(nonce)).await.unwrap();
        let guest = guest.await.unwrap().unwrap();
        host_port.write_all(&whole[..cut]).await.unwrap();
        // The daemon is started again and takes the port over; the guest is started again when its session ends.
        let mut listener = HostListener::new(host_port, small());
        let ending = tokio::spawn(async move {
            let reason = guest.closed().await;
            assert!(matches!(reason, CloseReason::Violation { .. }), "{reason}");
        });
        let first = tokio::time::timeout(Duration::from_millis(100), listener.next()).await;
        ending.await.unwrap();
        drop(first);
        reconnect(&mut listener, guest_port).await;
    }
}

#[tokio::test]
async fn a_restarted_guest_between_frames_gets_a_new_session() {
    let (host_port, guest_port) = port_pair();
    let mut listener = HostListener::new(host_port, small());
    let mut old: Option<Link> = None;
    for round in 0..5 {
        let (host, guest) = reconnect(&mut listener, guest_port.clone()).await;
        if let Some(old) = old.replace(host) {
            assert_ne!(old.closed().await, CloseReason::Local, "{round}");
        }
        guest.close();
        guest.closed().await;
    }
}

#[tokio::test]
async fn a_greeting_with_another_nonce_restarts_the_session_at_once() {
    let (mut guest, mut listener) = RawGuest::with_host(small()).await;
    let first = listener.next().await.unwrap();
    guest.read_ack().await;
    // The same greeting again only means that the answer was slow.
    guest.send(&hello(NONCE)).await;
    guest.send(&frame(OPEN, 2, &header(1))).await;
    first.accept().await.unwrap();
    guest.send(&hello(*b"another nonce...")).await;
    assert_eq!(first.closed().await, CloseReason::Restarted);
    listener.next().await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_byte_stream_ends_the_listener() {
    let (guest, mut listener) = RawGuest::with_host(small()).await;
    let link = listener.next().await.unwrap();
    drop(guest);
    assert_eq!(link.closed().await, CloseReason::HungUp);
    assert!(matches!(listener.next().await, Err(Error::Closed { reason: CloseReason::HungUp })));
    assert!(matches!(listener.next().await, Err(Error::Closed { reason: CloseReason::HungUp })));
}

#[tokio::test]
async fn peers_without_a_common_version_both_say_so() {
    let (mut host_port, guest_port) = port_pair();
    let guest = tokio::spawn(mux::connect(guest_port, Role::Guest, small()));
    let nonce = read_hello(&mut host_port).await;
    let refusal = greeting(b"\xF5SKIFF-LINK-OK\r\n", (0, 9), nonce);
    host_port.write_all(&refusal).await.unwrap();
    let error = guest.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Version { host_max: 9, guest_max: 1, .. }), "{error}");

    let (host_port, mut guest_port) = port_pair();
    let mut listener = HostListener::new(host_port, small());
    guest_port.write_all(&greeting(b"\xF5SKIFF-LINK-HI\r\n", (7, 9), NONCE)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.next()).await.is_err());
    let expected = greeting(b"\xF5SKIFF-LINK-OK\r\n", (0, 1), NONCE);
    let mut seen = Vec::new();
    while !seen.ends_with(&expected) {
        seen.push(guest_port.read_u8().await.unwrap());
    }
    // And one that was updated meanwhile is welcome.
    guest_port.write_all(&hello(NONCE)).await.unwrap();
    listener.next().await.unwrap();
}

#[tokio::test]
async fn a_frame_with_the_tag_of_another_session_is_cut_off() {
    let (mut guest, mut listener) = RawGuest::with_host(small()).await;
    let link = listener.next().await.unwrap();
    guest.send(&frame_with_tag(PING, 0, &[0; 8], b"host")).await;
    assert_eq!(link.closed().await, CloseReason::Violation { violation: Violation::Tag });
}
