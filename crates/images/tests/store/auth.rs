//! Tokens, credentials, redirects and being told to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use skiff_images::{Auth, Code, Delegate, Delegated, Digest, Secret, Silent};

use crate::content::{Layer, OCI_MANIFEST, Packing, TestImage};
use crate::server::{Answer, Asked, Server};
use crate::workspace::Workspace;

fn image() -> TestImage {
    TestImage::new(vec![Layer::file("x", b"hello", Packing::Gzip)], "amd64")
}

/// Answers like a registry with one image.
fn registry(image: &TestImage, asked: &Asked) -> Answer {
    let path = asked.path.as_str();
    if path.contains("/manifests/") {
        return Answer::new(200, image.manifest.clone()).with("Content-Type", OCI_MANIFEST);
    }
    let blobs = [&image.config, &image.layers[0].blob];
    match blobs.into_iter().find(|b| path.ends_with(Digest::of(b).as_str())) {
        Some(blob) => Answer::new(200, blob.clone()),
        None => Answer::new(404, "{}"),
    }
}

fn user() -> Auth {
    Auth { username: "me".to_owned(), password: Secret::new("pw"), ..Auth::default() }
}

/// A registry that wants tokens, with its own token server.
async fn token_registry() -> Server {
    let image = image();
    let tokens = Server::start(|asked| {
        let basic = "Basic bWU6cHc=";
        let token = match (asked.method.as_str(), asked.header("authorization")) {
            ("GET", "") => "anonymous",
            ("GET", value) if value == basic => "mine",
            ("POST", _) if asked.body.contains("refresh_token=refresh") => "refreshed",
            _ => return Answer::new(401, "{}"),
        };
        Answer::new(200, format!(r#"{{"access_token":"{token}","expires_in":300}}"#))
    })
    .await;
    let realm = format!("http://127.0.0.1:{}/token", tokens.port);
    Server::start(move |asked| {
        let _keep = &tokens;
        let challenge = format!(r#"Bearer realm="{realm}",service="reg",scope="repository:priv/x:pull""#);
        let private = asked.path.contains("/priv/");
        match asked.header("authorization") {
            "Bearer mine" | "Bearer refreshed" => registry(&image, asked),
            "Bearer anonymous" if !private => registry(&image, asked),
            "Bearer anonymous" => Answer::new(
                401,
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
            )
            .with("WWW-Authenticate", format!("{challenge},error=\"insufficient_scope\"")),
            _ => Answer::new(401, "{}").with("WWW-Authenticate", challenge),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_anonymously_and_with_credentials() {
    let (server, workspace) = (token_registry().await, Workspace::new());
    let store = workspace.open();
    let name = |path: &str| format!("127.0.0.1:{}/{path}", server.port);
    store.pull(&name("pub/x"), None, None, &Silent).await.unwrap();
    let challenged = server.asked().iter().filter(|a| a.header("authorization").is_empty()).count();
    assert!(challenged <= 2, "one token serves the whole pull (and one request is the protocol probe)");
    let denied = store.pull(&name("priv/x"), None, None, &Silent).await.unwrap_err();
    assert_eq!(
        denied.to_string(),
        format!(
            "pull access denied for {}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            name("priv/x")
        )
    );
    store.pull(&name("priv/x"), None, Some(user()), &Silent).await.unwrap();
    let identity = Auth { identity_token: Secret::new("refresh"), ..Auth::default() };
    store.pull(&name("priv/y"), None, Some(identity), &Silent).await.unwrap();
    let wrong = Auth { password: Secret::new("no"), ..user() };
    let error = store.pull(&name("priv/z"), None, Some(wrong), &Silent).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthorized);
    assert!(error.to_string().ends_with("unauthorized: incorrect username or password"), "{error}");
}

/// Somebody who has a login, and may know how to fetch tokens with it.
struct Holder {
    token: Option<&'static str>,
    asked: std::sync::Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Delegate for Holder {
    fn id(&self) -> String {
        format!("{:?}", self.token)
    }

    async fn token(&self, _: &str, service: &str, scopes: &[&str]) -> Result<Option<(Secret, u64)>, String> {
        self.asked.lock().unwrap().push(format!("{service} {}", scopes.join(" ")));
        match self.token {
            Some("refuse") => Err("not for you".to_owned()),
            token => Ok(token.map(|token| (Secret::new(token), 60))),
        }
    }

    async fn login(&self) -> Result<Option<Auth>, String> {
        self.asked.lock().unwrap().push("login".to_owned());
        Ok(Some(user()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_login_fetches_the_tokens() {
    let (server, workspace) = (token_registry().await, Workspace::new());
    let store = workspace.open();
    let name = format!("127.0.0.1:{}/priv/x", server.port);
    let pull = async |token| {
        let holder = Arc::new(Holder { token, asked: std::sync::Mutex::default() });
        let auth = Auth { delegate: Some(Delegated(Arc::clone(&holder) as _)), ..Auth::default() };
        let pulled = store.describe(&name, None, Some(auth)).await;
        let asked = holder.asked.lock().unwrap().clone();
        (pulled, asked)
    };
    let (pulled, asked) = pull(Some("mine")).await;
    pulled.unwrap();
    assert_eq!(asked, ["reg repository:priv/x:pull"], "one token for all, and nobody saw the password");
    let (pulled, asked) = pull(None).await;
    pulled.unwrap();
    assert_eq!(asked.last().unwrap(), "login", "it can't fetch tokens: then the login is used");
    let (pulled, _) = pull(Some("refuse")).await;
    let refused = pulled.unwrap_err();
    assert_eq!((refused.code(), refused.to_string().as_str()), (Code::Unauthorized, "not for you"));
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_credentials_are_sent_when_asked_for() {
    let image = image();
    let id = image.id();
    let server = Server::start(move |asked| match asked.header("authorization") {
        "Basic bWU6cHc=" => registry(&image, asked),
        _ => Answer::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    let workspace = Workspace::new();
    let (store, name) = (workspace.open(), format!("127.0.0.1:{}/x", server.port));
    let error = store.pull(&name, None, None, &Silent).await.unwrap_err().to_string();
    assert!(error.ends_with("no basic auth credentials"), "{error}");
    assert_eq!(store.pull(&name, None, Some(user()), &Silent).await.unwrap().id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_carries_no_credentials() {
    let image = Arc::new(image());
    let for_storage = Arc::clone(&image);
    let storage = Server::start(move |asked| registry(&for_storage, asked)).await;
    let port = storage.port;
    let server = Server::start(move |asked| match asked.header("authorization") {
        "Basic bWU6cHc=" if asked.path.contains("/blobs/") => {
            Answer::new(307, "").with("Location", format!("http://127.0.0.1:{port}{}", asked.path))
        }
        "Basic bWU6cHc=" => registry(&image, asked),
        _ => Answer::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    let workspace = Workspace::new();
    let name = format!("127.0.0.1:{}/x", server.port);
    workspace.open().pull(&name, None, Some(user()), &Silent).await.unwrap();
    assert_eq!(storage.asked().len(), 2);
    assert!(storage.asked().iter().all(|asked| asked.header("authorization").is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again_after_the_time_it_names() {
    let (image, count) = (image(), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        if asked.path.contains("/manifests/") && count.fetch_add(1, Ordering::SeqCst) == 0 {
            return Answer::new(429, "{}").with("Retry-After", "1");
        }
        registry(&image, asked)
    })
    .await;
    let (workspace, start) = (Workspace::new(), std::time::Instant::now());
    workspace.open().pull(&format!("127.0.0.1:{}/x", server.port), None, None, &Silent).await.unwrap();
    assert!(start.elapsed().as_millis() >= 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_answers_are_cut_off() {
    let server = Server::start(|asked| match asked.path.contains("/manifests/") {
        true => Answer::new(200, vec![b' '; 5 << 20]),
        false => Answer::new(404, ""),
    })
    .await;
    let workspace = Workspace::new();
    let error = workspace.open().pull(&format!("127.0.0.1:{}/x", server.port), None, None, &Silent).await;
    assert!(error.unwrap_err().to_string().contains("larger than"));
}
