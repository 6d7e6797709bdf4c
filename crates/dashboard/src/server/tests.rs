use std::path::Path;

use hyper::server::conn::http1 as server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use futures_util::{SinkExt as _, StreamExt as _};

/// A dashboard before an engine that says what it was asked.
struct Fixture {
    _dir: tempfile::TempDir,
    port: u16,
    links: Links,
}

/// What a browser holds after it has used a link.
struct Browser {
    cookie: String,
    key: String,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// An engine: echoes a request's line and headers; `/flood` never ends, `/long` does, `/hijack` gives back what it reads.
async fn engine(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let service = service_fn(|mut request: Request<Incoming>| async move {
            let mut response = Response::new(match request.uri().path() {
                "/long" => {
                    let piece = || Ok(hyper::body::Frame::data(bytes::Bytes::from(vec![b'x'; 1 << 16])));
                    let pieces = futures_util::stream::iter(std::iter::repeat_with(piece).take(LONG >> 16));
                    http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(pieces))
                }
                "/flood" => {
                    let pieces = futures_util::stream::repeat_with(|| {
                        FLOODED.fetch_add(1 << 16, std::sync::atomic::Ordering::Relaxed);
                        Ok(hyper::body::Frame::data(bytes::Bytes::from(vec![b'x'; 1 << 16])))
                    });
                    http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(pieces))
                }
                _ => whole(format!("{} {}\n{:?}", request.method(), request.uri(), request.headers())),
            });
            let headers = response.headers_mut();
            headers.insert(header::SET_COOKIE, HeaderValue::from_static("evil=1"));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            match request.uri().path() {
                "/missing" => {
                    *response.status_mut() = StatusCode::NOT_FOUND;
                    *response.body_mut() = whole(r#"{"message":"No such thing"}"#);
                }
                "/hijack" => {
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    let headers = response.headers_mut();
                    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
                    let coming = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(coming.await.unwrap()));
                        let _ = tokio::io::copy(&mut reader, &mut writer).await;
                        let _ = writer.write_all(b"bye").await;
                        let _ = writer.shutdown().await;
                    });
                }
                _ => {}
            }
            Ok::<_, Infallible>(response)
        });
        tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(client), service).with_upgrades());
    }
}

/// How much the endless answer has given.
static FLOODED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("engine.sock");
    let engine_socket = socket.clone();
    tokio::spawn(async move { engine(&engine_socket).await });
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    let server = Server::listen(0, Upstream::Engine(socket)).await.unwrap();
    let (port, links) = (server.state.address.port(), server.links());
    tokio::spawn(server.run());
    Fixture { _dir: dir, port, links }
}

impl Fixture {
    fn token(&self) -> String {
        let link = self.links.make();
        link.strip_prefix(&format!("http://127.0.0.1:{}/#token=", self.port)).unwrap().to_owned()
    }

    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Sends a request as a browser would, but for what `change` changes in its headers.
    async fn ask(&self, line: &str, browser: Option<&Browser>, change: &[(&str, Option<&str>)]) -> Answer {
        let host = format!("127.0.0.1:{}", self.port);
        let mut headers = vec![
            ("Host", host.clone()),
            ("Origin", format!("http://{host}")),
            ("Sec-Fetch-Site", "same-origin".to_owned()),
            ("Connection", "close".to_owned()),
        ];
        if let Some(Browser { cookie, key }) = browser {
            headers.push(("Cookie", cookie.clone()));
            headers.push(("X-Skiff-Key", key.clone()));
        }
        for (name, value) in change {
            headers.retain(|(other, _)| other != name);
            headers.extend(value.map(|value| (*name, value.to_owned())));
        }
        let (line, body) = line.split_once('|').unwrap_or((line, ""));
        headers.push(("Content-Length", body.len().to_string()));
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.raw(&format!("{line} HTTP/1.1\r\n{headers}\r\n{body}")).await
    }

    async fn browser(&self) -> Browser {
        let answer = self.ask(&format!("POST /session|{{\"token\":\"{}\"}}", self.token()), None, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let head = answer.head.to_lowercase();
        assert!(head.contains("httponly; samesite=strict"), "{head}");
        let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        Browser { cookie, key: value["key"].as_str().unwrap().to_owned() }
    }

    async fn socket(&self, browser: &Browser) -> WebSocketStream<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let Browser { cookie, key } = browser;
        let port = self.port;
        let request = format!(
            "GET /stream HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: http://localhost:{port}\r\nCookie: {cookie}\r\n\
             Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: skiff, key.{key}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the answer of RFC 6455, 1.3: {head}");
        assert!(!head.contains(key), "{head}");
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }
}

/// Bytes of `/long`.
const LONG: usize = 4 << 20;
const PING: &str = "GET /docker/_ping";

#[tokio::test]
async fn a_session_asks_the_engine_and_the_engine_sees_no_secret() {
    let fixture = fixture().await;
    let browser = fixture.browser().await;
    let answer = fixture.ask("POST /docker/containers/a/start?t=1|{}", Some(&browser), &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.starts_with("POST /containers/a/start?t=1\n"), "{}", answer.body);
    let seen = answer.body.to_lowercase();
    for hidden in ["cookie", "x-skiff-key", "origin", &browser.key.to_lowercase()] {
        assert!(!seen.contains(hidden), "{hidden}: {seen}");
    }
    let head = answer.head.to_lowercase();
    assert!(!head.contains("set-cookie") && !head.contains("access-control"), "{head}");
    for wanted in [
        "content-security-policy: default-src 'none'; sandbox",
        "content-disposition: attachment",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "x-frame-options: deny",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(head.contains(wanted), "{wanted}: {head}");
    }
}

#[tokio::test]
async fn without_cookie_or_key_nothing_of_the_user_s_is_told() {
    let fixture = fixture().await;
    let browser = fixture.browser().await;
    let other = fixture.browser().await;
    for line in [PING, "POST /control|{\"op\":\"status\"}", "GET /stream"] {
        let status = async |change: &[(&str, Option<&str>)]| {
            let answer = fixture.ask(line, Some(&browser), change).await;
            assert!(answer.body.contains("\"code\":\"session\""), "{line}: {}", answer.body);
            answer.status
        };
        assert_eq!(status(&[("Cookie", None)]).await, 401);
        assert_eq!(status(&[("X-Skiff-Key", None)]).await, 401);
        assert_eq!(status(&[("Cookie", Some("skiff-1=AAAA"))]).await, 401);
        assert_eq!(status(&[("X-Skiff-Key", Some(&other.key))]).await, 401, "of another session");
    }
    assert_eq!(fixture.ask(PING, Some(&browser), &[]).await.status, 200);
}

#[tokio::test]
async fn a_token_works_once() {
    let fixture = fixture().await;
    let line = format!("POST /session|{{\"token\":\"{}\"}}", fixture.token());
    let given = fixture.ask(&line, None, &[("Origin", Some("http://evil.example"))]).await;
    assert_eq!(given.status, 403, "and the token is not used up by that");
    assert_eq!(fixture.ask(&line, None, &[]).await.status, 200);
    assert_eq!(fixture.ask(&line, None, &[]).await.status, 401);
    assert_eq!(fixture.ask("POST /session|{\"token\":\"\"}", None, &[]).await.status, 401);
    assert_eq!(fixture.ask("POST /session|what", None, &[]).await.status, 400);
    assert_eq!(fixture.ask("GET /session", None, &[]).await.status, 404);
    assert_eq!(fixture.ask(&format!("POST /session|{}", "x".repeat(9000)), None, &[]).await.status, 400);
}

#[tokio::test]
async fn other_hosts_and_other_pages_are_refused_even_with_a_session() {
    let fixture = fixture().await;
    let browser = fixture.browser().await;
    let status = async |line: &str, change: &[(&str, Option<&str>)]| {
        fixture.ask(line, Some(&browser), change).await.status
    };
    for line in [PING, "GET /", "GET /stream", "POST /session|{}", "POST /control|{}"] {
        assert_eq!(status(line, &[("Host", Some("evil.example"))]).await, 421, "{line}");
        assert_eq!(status(line, &[("Origin", Some("http://evil.example"))]).await, 403, "{line}");
        assert_eq!(
            status(line, &[("Origin", Some("http://127.0.0.1:1"))]).await,
            403,
            "{line}: another port"
        );
        assert_eq!(status(line, &[("Sec-Fetch-Site", Some("same-site"))]).await, 403, "{line}");
    }
    assert_eq!(status("POST /docker/a", &[("Origin", None)]).await, 403);
    assert_eq!(status("GET /stream", &[("Origin", None)]).await, 403);
    assert_eq!(status("OPTIONS /docker/a", &[]).await, 405, "there is no CORS to be asked about");
    assert_eq!(status("PATCH /docker/a", &[]).await, 405);
    assert_eq!(status("GET /control", &[]).await, 405);
}

#[tokio::test]
async fn paths_lead_to_the_engine_or_nowhere() {
    let fixture = fixture().await;
    let browser = fixture.browser().await;
    for (path, status) in [
        ("/docker/../control", 400),
        ("/docker/a/..%2fb", 400),
        ("/docker//a", 400),
        ("/docker/", 400),
        ("/docker/a%5cb", 400),
        ("/docker", 404),
        ("/dockerx/a", 404),
        ("/assets/../../etc/passwd", 404),
        ("/assets/%2e%2e/index.html", 404),
        ("/../etc/passwd", 404),
        ("/docker/images/localhost:5000/a/b:1/json", 200),
    ] {
        let answer = fixture.ask(&format!("GET {path}"), Some(&browser), &[]).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn an_engine_without_a_daemon_says_so_and_a_dead_one_too() {
    let fixture = fixture().await;
    let browser = fixture.browser().await;
    let answer = fixture.ask("POST /control|{\"op\":\"status\"}", Some(&browser), &[]).await;
    assert!(answer.status == 503 && answer.body.contains("\"code\":\"alone\""), "{}", answer.body);
    let answer = fixture.ask("POST /control|{\"op\":\"shell\"}", Some(&browser), &[]).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    let server = Server::listen(0, Upstream::Engine("/nonexistent/sock".into())).await.unwrap();
    let dead = Fixture {
        _dir: tempfile::tempdir().unwrap(),
        port: server.state.address.port(),
        links: server.links(),
    };
    tokio::spawn(server.run());
    let browser = dead.browser().await;
    let answer = dead.ask(PING, Some(&browser), &[]).await;
    assert!(answer.status == 503 && answer.body.contains("\"code\":\"engine\""), "{}", answer.body);
}

#[tokio::test]
async fn a_terminal_is_typed_into_until_its_input_ends() {
    let fixture = fixture().await;
    let browser = fixture.browser().await;
    let mut socket = fixture.socket(&browser).await;
    let call = r#"{"docker":{"method":"POST","path":"/hijack","upgrade":true,"body":{"Tty":true}}}"#;
    socket.send(Message::text(call)).await.unwrap();
    let begun = socket.next().await.unwrap().unwrap();
    assert!(begun.to_text().unwrap().starts_with("{\"begun\":{\"status\":101"), "{begun}");
    socket.send(Message::binary("typed".as_bytes().to_vec())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_data(), "typed");
    socket.send(Message::text("{\"eof\":null}")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_data(), "bye");
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("{\"end\":true}"));
    socket.close(None).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_))) | None));
}

#[tokio::test]
async fn a_slow_page_gets_everything_to_the_last_byte() {
    let fixture = fixture().await;
    let browser = fixture.browser().await;
    let mut socket = fixture.socket(&browser).await;
    socket.send(Message::text(r#"{"docker":{"method":"GET","path":"/long"}}"#)).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let mut count = 0;
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => count += bytes.len(),
            Message::Text(text) => break assert_eq!(text, "{\"end\":true}"),
            other => panic!("{other:?} after {count} bytes"),
        }
        // What it says here may be said after the last byte was sent.
        tokio::time::sleep(Duration::from_millis(3)).await;
        socket.send(Message::text("{\"credit\":65536}")).await.unwrap();
    }
    assert_eq!(count, LONG);
}

#[tokio::test]
async fn a_page_that_does_not_keep_up_stops_the_engine() {
    let fixture = fixture().await;
    let browser = fixture.browser().await;
    let mut socket = fixture.socket(&browser).await;
    socket.send(Message::text(r#"{"docker":{"method":"GET","path":"/flood"}}"#)).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let read = async |socket: &mut WebSocketStream<TcpStream>| {
        let mut count = 0;
        while let Ok(Some(Ok(message))) =
            tokio::time::timeout(Duration::from_millis(300), socket.next()).await
        {
            count += message.len();
        }
        count
    };
    assert_eq!(
        read(&mut socket).await,
        stream::WINDOW,
        "no more than the window without a word from the page"
    );
    let given = FLOODED.load(std::sync::atomic::Ordering::Relaxed);
    assert!(given < 8 << 20, "the engine was read {given} bytes far");
    socket.send(Message::text("{\"credit\":1000}")).await.unwrap();
    assert_eq!(read(&mut socket).await, 1000);
    socket.send(Message::text("{\"credit\":999999999}")).await.unwrap();
    assert_eq!(read(&mut socket).await, stream::WINDOW, "whatever a page claims");
}

#[tokio::test]
async fn what_the_engine_refuses_comes_in_its_words() {
    let fixture = fixture().await;
    let browser = fixture.browser().await;
    for (call, wanted) in [
        (r#"{"docker":{"method":"GET","path":"/missing"}}"#, "No such thing"),
        (r#"{"docker":{"method":"GET","path":"/a/../b"}}"#, "the path is not one of the engine's"),
        (r#"{"docker":{"method":"PATCH","path":"/a"}}"#, "makes no sense"),
        (r#"{"control":{"op":"shell"}}"#, "can't be asked from a browser"),
        (r#"{"control":{"op":"status"}}"#, "no daemon"),
    ] {
        let mut socket = fixture.socket(&browser).await;
        socket.send(Message::text(call)).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        assert!(answer.to_text().unwrap().contains(wanted), "{call}: {answer}");
    }
}
