//! The transport where every stream is a connection, and joining streams.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use skiff_link::{Args, CloseReason, Error, Link, OpenError, ReplyCode, StreamHeader, copy_both, unix};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn pair() -> (tempfile::TempDir, Link, Link) {
    let directory = tempfile::tempdir().unwrap();
    let (host, guest) = (directory.path().join("host.sock"), directory.path().join("guest.sock"));
    let near = unix::link(Some(&host), Some(&guest)).unwrap();
    let far = unix::link(Some(&guest), Some(&host)).unwrap();
    (directory, near, far)
}

fn api() -> StreamHeader {
    Args::Api {}.into()
}

#[tokio::test]
async fn both_sides_open_streams_over_unix_sockets() {
    let (_directory, host, guest) = pair();
    for (opener, accepter) in [(&host, &guest), (&guest, &host)] {
        let header = api();
        let (opened, incoming) = tokio::join!(opener.open(&header), async {
            let incoming = accepter.accept().await.unwrap();
            assert_eq!(incoming.header, api());
            incoming.accept(None).await.unwrap()
        });
        let (mut near, mut far) = (opened.unwrap(), incoming);
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        far.write_all(b"answer").await.unwrap();
        drop(far);
        text.clear();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
    }
}

#[tokio::test]
async fn refusals_and_absent_peers_are_told_apart() {
    let (directory, host, guest) = pair();
    let refusing = tokio::spawn(async move {
        guest.accept().await.unwrap().refuse(ReplyCode::NotFound, "no such container").await;
        guest
    });
    let error = host.open(&api()).await.err().unwrap();
    assert!(matches!(error, OpenError::Refused { code: ReplyCode::NotFound, .. }));
    let guest = refusing.await.unwrap();
    guest.close();
    assert_eq!(guest.closed().await, CloseReason::Local);
    assert!(matches!(guest.accept().await, Err(Error::Closed { .. })));
    assert!(!directory.path().join("guest.sock").exists());
    let error = host.open(&api()).await.err().unwrap();
    assert!(matches!(error, OpenError::Link { source: Error::Io { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_slow_or_malformed_header_holds_nobody_up() {
    let (directory, host, guest) = pair();
    let path = directory.path().join("guest.sock");
    let mut slow = UnixStream::connect(&path).await.unwrap();
    slow.write_all(&[1]).await.unwrap();
    let mut wrong = UnixStream::connect(&path).await.unwrap();
    wrong.write_all(&[1, 99, 0, 0]).await.unwrap();
    let reply = skiff_link::read_reply(&mut wrong).await.unwrap();
    assert_eq!(reply.code, ReplyCode::Unsupported);
    let header = api();
    let (opened, ()) = tokio::join!(host.open(&header), async {
        guest.accept().await.unwrap().accept(None).await.map(drop).unwrap();
    });
    opened.unwrap();
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("link.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let link = unix::link(Some(&path), None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = unix::link(Some(&path), None).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", path.display()));
    drop(link);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert!(unix::link(Some(&path), None).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_closed_link_lets_waiting_callers_go() {
    let (_directory, host, guest) = pair();
    let waiting = tokio::spawn(async move { guest.accept().await.map(drop) });
    drop(host);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    waiting.abort();
    let link = unix::link(None, None).unwrap();
    let waiting = tokio::spawn({
        let link = link.clone();
        async move { link.accept().await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    link.close();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Closed { .. })));
}

#[tokio::test]
async fn copying_passes_half_closes_on_and_counts_both_ways() {
    let (mut client, a) = UnixStream::pair().unwrap();
    let (b, mut server) = UnixStream::pair().unwrap();
    let copying = tokio::spawn(copy_both(a, b));
    let serving = tokio::spawn(async move {
        let mut request = Vec::new();
        server.read_to_end(&mut request).await.unwrap();
        // The request's end has arrived, and the answer still passes.
        server.write_all(&request).await.unwrap();
        server.write_all(&request).await.unwrap();
    });
    let request = vec![5; 300_000];
    client.write_all(&request).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 600_000);
    serving.await.unwrap();
    assert_eq!(copying.await.unwrap().unwrap(), (300_000, 600_000));
}

#[tokio::test]
async fn copying_delivers_the_last_words_of_a_side_that_takes_no_more() {
    let (mut client, a) = UnixStream::pair().unwrap();
    let (b, mut server) = UnixStream::pair().unwrap();
    server.write_all(b"413 too large").await.unwrap();
    drop(server);
    let copying = tokio::spawn(copy_both(a, b));
    client.write_all(b"a very long request").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "413 too large");
    assert!(copying.await.unwrap().is_err());
}

#[tokio::test]
async fn a_reset_on_one_side_resets_the_other() {
    let (a, _far_a) = tokio::io::duplex(64);
    struct Reset;
    impl tokio::io::AsyncRead for Reset {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
        }
    }
    let broken = tokio::io::join(Reset, tokio::io::sink());
    let error = copy_both(a, broken).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
