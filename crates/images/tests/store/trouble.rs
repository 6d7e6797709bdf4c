//! Registries that fail for a moment, lie about what they send, lead elsewhere, or whose token server does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use skiff_images::{Auth, Code, Digest, Secret, Silent};

use crate::content::{Layer, OCI_MANIFEST, Packing, TestImage, noise};
use crate::server::{Answer, Asked, Lie, Server};
use crate::workspace::Workspace;

fn image() -> TestImage {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    TestImage::new(vec![Layer::file("data", &noise(50, 200_000), Packing::Gzip)], architecture)
}

/// What of an image is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Manifest,
    Config,
    Layer,
    Other,
}

fn part(image: &TestImage, asked: &Asked) -> Part {
    let is = |bytes: &[u8]| asked.path.ends_with(Digest::of(bytes).as_str());
    match asked.path.as_str() {
        path if path.contains("/manifests/") => Part::Manifest,
        _ if is(&image.config) => Part::Config,
        _ if is(&image.layers[0].blob) => Part::Layer,
        _ => Part::Other,
    }
}

/// Answers as a registry should, ranges included.
fn honest(image: &TestImage, asked: &Asked) -> Answer {
    let body = match part(image, asked) {
        Part::Manifest => &image.manifest,
        Part::Config => &image.config,
        Part::Layer => &image.layers[0].blob,
        Part::Other => return Answer::new(404, "{}"),
    };
    let from = asked.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')?.parse().ok());
    match from {
        Some(from) if from < body.len() => {
            let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
            Answer::new(206, &body[from..]).with("Content-Range", range)
        }
        _ => Answer::new(200, body.clone()).with("Content-Type", OCI_MANIFEST),
    }
}

/// Pulls from a registry that answers the n-th question for a part in its own way.
async fn pull(
    workspace: &Workspace,
    answer: impl Fn(Part, usize, Answer) -> Answer + Send + Sync + 'static,
) -> Result<String, skiff_images::Error> {
    let image = image();
    let counts: [AtomicUsize; 4] = Default::default();
    let server = Server::start(move |asked| {
        let part = part(&image, asked);
        let number = counts[part as usize].fetch_add(1, Ordering::SeqCst);
        answer(part, number, honest(&image, asked))
    })
    .await;
    let name = format!("127.0.0.1:{}/x", server.port);
    workspace.open().pull(&name, None, None, &Silent).await.map(|image| image.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_does_wrong_for_a_moment_costs_only_time() {
    type Trouble = fn(Answer) -> Answer;
    let troubles: [(&str, Trouble); 7] = [
        ("no answer", |right| right.lying(Lie::Silence)),
        ("a server error", |_| Answer::new(503, "busy")),
        ("a cut", |right| right.lying(Lie::Cut(100))),
        ("a cut before the first byte", |right| right.lying(Lie::Cut(0))),
        ("a stall", |right| right.lying(Lie::Stall(100))),
        ("too great a length", |right| {
            let length = right.body.len() + 1000;
            right.lying(Lie::Length(length))
        }),
        ("a date that has passed", |_| {
            Answer::new(429, "").with("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")
        }),
    ];
    for (name, trouble) in troubles {
        for wrong in [Part::Manifest, Part::Config, Part::Layer] {
            let workspace = Workspace::new();
            let pulled = pull(&workspace, move |part, number, right| match part == wrong && number == 0 {
                true => trouble(right),
                false => right,
            });
            let id = pulled.await.unwrap_or_else(|error| panic!("{name} at {wrong:?}: {error}"));
            assert_eq!(id, image().id());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_does_wrong_again_and_again_is_told_and_leaves_nothing() {
    type Trouble = fn(Part, Answer) -> Answer;
    let cases: [(&str, Trouble, &str); 7] = [
        ("always busy", |_, _| Answer::new(503, "busy"), "received unexpected HTTP status: 503"),
        (
            "never the layer",
            |part, right| if part == Part::Layer { right.lying(Lie::Cut(0)) } else { right },
            "unexpected EOF",
        ),
        (
            "other bytes",
            |part, mut right| {
                if part == Part::Layer {
                    right.body[1000] ^= 1;
                }
                right
            },
            "filesystem layer verification failed",
        ),
        (
            "a range that is another one",
            |part, right| match (part, right.status) {
                (Part::Layer, 200) => right.lying(Lie::Cut(5000)),
                (Part::Layer, _) => {
                    let end = right.body.len();
                    Answer::new(206, vec![7; end]).with("Content-Range", format!("bytes 5000-{end}/{end}"))
                }
                _ => right,
            },
            "filesystem layer verification failed",
        ),
        (
            "a loop",
            |part, right| match part {
                Part::Layer => Answer::new(307, "").with("Location", "?again"),
                Part::Other => Answer::new(307, "").with("Location", "/v2/loop"),
                _ => right,
            },
            "malformed redirect",
        ),
        (
            "a file",
            |part, right| match part {
                Part::Layer => Answer::new(307, "").with("Location", "file:///etc/passwd"),
                _ => right,
            },
            "malformed redirect",
        ),
        (
            "too long a wait",
            |_, _| Answer::new(429, "").with("Retry-After", "4000"),
            "toomanyrequests: too many requests",
        ),
    ];
    for (name, trouble, words) in cases {
        let workspace = Workspace::new();
        let error = pull(&workspace, move |part, _, right| trouble(part, right)).await.unwrap_err();
        assert!(error.to_string().contains(words), "{name}: {error}");
        workspace.assert_clean();
    }
    let workspace = Workspace::new();
    let looping = pull(&workspace, |part, _, right| match part {
        Part::Layer | Part::Other => Answer::new(302, "").with("Location", "/v2/loop"),
        _ => right,
    });
    let error = looping.await.unwrap_err();
    assert!(error.to_string().contains("stopped after 10 redirects"), "{error}");
    workspace.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_fails_is_asked_again_and_its_nonsense_is_named() {
    let image = Arc::new(image());
    let start = async |realm: &'static str, token: fn(usize) -> Answer| {
        let (image, count, port) = (Arc::clone(&image), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let own = Arc::clone(&port);
        let server = Server::start(move |asked| {
            if asked.path.starts_with("/token") {
                return token(count.fetch_add(1, Ordering::SeqCst));
            }
            if asked.header("authorization") == "Bearer good" {
                return honest(&image, asked);
            }
            let realm = realm.replace("PORT", &own.load(Ordering::SeqCst).to_string());
            Answer::new(401, "{}").with("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))
        })
        .await;
        port.store(usize::from(server.port), Ordering::SeqCst);
        server
    };
    let here = "http://127.0.0.1:PORT/token";
    let server =
        start(here, |n| if n < 2 { Answer::new(502, "") } else { Answer::new(200, r#"{"token":"good"}"#) });
    let server = server.await;
    let workspace = Workspace::new();
    let store = workspace.open();
    store.pull(&format!("127.0.0.1:{}/x", server.port), None, None, &Silent).await.unwrap();

    type Token = fn(usize) -> Answer;
    let cases: [(&'static str, Token, &str, Code); 6] = [
        (here, |_| Answer::new(500, ""), "received unexpected HTTP status: 500", Code::Unavailable),
        (here, |_| Answer::new(200, "<html>"), "malformed token answer", Code::Unavailable),
        (here, |_| Answer::new(200, "{}"), "did not include a token", Code::Unavailable),
        (here, |_| Answer::new(200, vec![b' '; 4 << 20]), "larger than", Code::Unavailable),
        ("file:///etc/passwd", |_| Answer::new(200, ""), "malformed token realm", Code::Unavailable),
        ("http://127.0.0.1:1/token", |_| Answer::new(200, ""), "connection refused", Code::Unavailable),
    ];
    for (realm, token, words, code) in cases {
        let server = start(realm, token).await;
        let workspace = Workspace::new();
        let name = format!("127.0.0.1:{}/x", server.port);
        let auth = Auth { username: "me".to_owned(), password: Secret::new("hush"), ..Auth::default() };
        let error = workspace.open().pull(&name, None, Some(auth), &Silent).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
        assert_eq!(error.code(), code, "{error}");
        workspace.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_survives_cuts_and_an_upload_elsewhere_gets_no_credentials() {
    let storage = Server::start(|asked| match asked.method.as_str() {
        "PATCH" => Answer::new(202, "").with("Location", "/elsewhere?part=2"),
        "PUT" => Answer::new(201, ""),
        _ => Answer::new(400, ""),
    })
    .await;
    let (port, cuts) = (storage.port, AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        if asked.header("authorization") != "Basic bWU6cHc=" {
            return Answer::new(401, "{}").with("WWW-Authenticate", "Basic realm=x");
        }
        match asked.method.as_str() {
            "HEAD" => Answer::new(404, ""),
            "POST" if cuts.fetch_add(1, Ordering::SeqCst) < 2 => Answer::new(202, "").lying(Lie::Silence),
            "POST" => Answer::new(202, "").with("Location", format!("http://127.0.0.1:{port}/elsewhere")),
            "PUT" if asked.path.contains("/manifests/") => Answer::new(201, ""),
            _ => Answer::new(400, ""),
        }
    })
    .await;
    let workspace = Workspace::new();
    let store = workspace.open();
    let name = format!("127.0.0.1:{}/x:1", server.port);
    let archive = crate::load::docker_archive(&[], &[&name]);
    store.load(&archive[..], None, &Silent).await.unwrap();
    let auth = Auth { username: "me".to_owned(), password: Secret::new("pw"), ..Auth::default() };
    store.push(&name, Some(auth), &Silent).await.unwrap();
    let seen = storage.asked();
    assert!(seen.len() >= 2 && seen.iter().all(|asked| asked.header("authorization").is_empty()), "{seen:?}");
}
