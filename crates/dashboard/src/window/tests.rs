use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;

use super::*;

/// An engine that says what it was sent, and how that ended.
async fn engine(listener: UnixListener) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let service = service_fn(|request: Request<Incoming>| async move {
            let line = format!("{} {}", request.method(), request.uri());
            let kind = request.headers().get("content-type").cloned();
            let body = request.into_body().collect().await?.to_bytes();
            let said = format!("{line} {kind:?} {} bytes", body.len());
            Ok::<_, hyper::Error>(Response::new(http_body_util::Full::new(Bytes::from(said))))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(client), service));
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    window: Window,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("engine.sock");
    tokio::spawn(engine(UnixListener::bind(&socket).unwrap()));
    Fixture { _dir: dir, window: Window::new(Upstream::Engine(socket)) }
}

impl Fixture {
    fn open(&self) -> (u32, std_mpsc::Receiver<Option<Said>>) {
        let (sender, heard) = std_mpsc::channel();
        let id = self.window.open(move |said| sender.send(said).is_ok()).unwrap();
        (id, heard)
    }

    async fn tell(&self, id: u32, text: &str) {
        self.window.say(id, Said::Text(text.to_owned())).await.unwrap();
    }
}

/// The next thing that is heard.
async fn next(heard: &std_mpsc::Receiver<Option<Said>>) -> Option<Said> {
    for _ in 0..3000 {
        match heard.try_recv() {
            Ok(said) => return said,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("nothing was heard");
}

fn text(said: Option<Said>) -> String {
    match said {
        Some(Said::Text(text)) => text,
        Some(Said::Bytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        None => "over".to_owned(),
    }
}

#[tokio::test]
async fn a_request_is_asked_over_a_stream_and_its_end_is_told() {
    let fixture = fixture();
    let (id, heard) = fixture.open();
    fixture.tell(id, r#"{"docker":{"method":"DELETE","path":"/containers/a?force=true"}}"#).await;
    assert!(text(next(&heard).await).starts_with(r#"{"begun":{"status":200"#));
    assert_eq!(text(next(&heard).await), "DELETE /containers/a?force=true None 0 bytes");
    assert_eq!(text(next(&heard).await), r#"{"end":true}"#);
    fixture.window.close(id);
    assert_eq!(next(&heard).await, None);
    assert_eq!(fixture.window.say(id, Said::Text("{}".to_owned())).await, Err(NoPipe::Closed { id }));
}

#[tokio::test]
async fn an_upload_arrives_whole_or_is_broken_off() {
    let fixture = fixture();
    let put = r#"{"docker":{"method":"PUT","path":"/containers/a/archive","upload":true}}"#;
    let (id, heard) = fixture.open();
    fixture.tell(id, put).await;
    for _ in 0..40 {
        fixture.window.say(id, Said::Bytes(Bytes::from(vec![7; 1 << 16]))).await.unwrap();
    }
    fixture.tell(id, r#"{"eof":null}"#).await;
    assert!(text(next(&heard).await).contains("begun"));
    let said = text(next(&heard).await);
    assert!(said.ends_with(&format!("{} bytes", 40 << 16)) && said.contains("application/x-tar"), "{said}");

    let (id, heard) = fixture.open();
    fixture.tell(id, put).await;
    fixture.window.say(id, Said::Bytes(Bytes::from_static(b"half"))).await.unwrap();
    fixture.window.close(id);
    assert_eq!(next(&heard).await, None, "and nobody answered half of it");
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_their_page() {
    let fixture = fixture();
    let open: Vec<_> = (0..PIPES).map(|_| fixture.open()).collect();
    assert_eq!(fixture.window.open(|_| true), Err(NoPipe::Many));
    let long = Said::Bytes(Bytes::from(vec![0; stream::LONGEST + 1]));
    assert!(matches!(fixture.window.say(open[0].0, long).await, Err(NoPipe::Long { .. })));
    fixture.window.close_all();
    for (_, heard) in &open {
        assert_eq!(next(heard).await, None);
    }
    fixture.window.open(|_| true).unwrap();
}

#[tokio::test]
async fn the_shell_looks_at_what_is_there_and_no_further() {
    let fixture = fixture();
    let seen = fixture.window.look("/containers/json").await.unwrap();
    assert_eq!(seen, "GET /containers/json None 0 bytes");
    assert_eq!(fixture.window.look("/../x").await, None);
    assert_eq!(Window::new(Upstream::Engine("/nonexistent".into())).look("/_ping").await, None);
}

#[test]
fn the_window_s_page_has_the_policy_of_the_browser_s() {
    let response = assets::find("/", SHELL, "abc").unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("connect-src 'self' ipc: http://ipc.localhost; base-uri 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
}
