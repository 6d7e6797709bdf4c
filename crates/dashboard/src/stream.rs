//! Streams: what goes on until somebody has had enough. A browser's are WebSockets; a window's ([`crate::window`]) carry the
//! same messages.
//!
//! ```text
//! page   → text   {"docker": {"method": "GET", "path": "/events"}}      or {"control": {"op": "logs", …}}
//!                                                                       or {"shell": {"columns": 80, "rows": 24}}
//!        ← text   {"begun": {"status": 200, "contentType": "…"}}        or {"error": {…}}, and the end
//!        ← binary what the engine sends, as it comes
//! page   → text   {"credit": 65536}     so many bytes have been dealt with
//! page   → binary what a terminal is to read, or what is uploaded
//! page   → text   {"eof": null}         there will be no more of it
//! page   → text   {"resize": [80, 24]}  a terminal's columns and rows
//!        ← text   {"end": true}         and the end
//! ```
//!
//! A page can't stop a socket from filling its memory, so it has to say how much it has dealt with: no more than
//! [`WINDOW`] bytes are under way, and the engine is not read any further until then.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::answer::{Body, Refusal, whole};
use crate::shell::{self, Screen};
use crate::upstream::{Purpose, Upstream, engine_away};
use crate::{control, docker, guard};

/// Bytes under way to the page.
pub(crate) const WINDOW: usize = 512 << 10;
/// Bytes in one message.
const PIECE: usize = 64 << 10;
/// Longest message of a page in bytes.
pub(crate) const LONGEST: usize = 1 << 20;
/// How long a page may take to read the rest and hang up.
const HANGING_UP: Duration = Duration::from_secs(60);
/// Longest answer of the engine that says what went wrong, in bytes.
const WORDS: usize = 64 << 10;

/// What a page asks for with its first message.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Wanted {
    Docker(Call),
    Control(skiff_host::control::Request),
    Shell(Screen),
}

/// A request to the engine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    method: Verb,
    path: String,
    /// Sent as JSON.
    #[serde(default)]
    body: Option<serde_json::Value>,
    /// Whether an archive is sent, piece by piece after this message and until there are no more.
    #[serde(default)]
    upload: bool,
    /// `X-Registry-Auth`, for pulls and pushes.
    #[serde(default)]
    auth: Option<String>,
    /// Whether the connection becomes a terminal's.
    #[serde(default)]
    upgrade: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    Get,
    Head,
    Post,
    Put,
    Delete,
}

impl From<Verb> for Method {
    fn from(verb: Verb) -> Method {
        match verb {
            Verb::Get => Method::GET,
            Verb::Head => Method::HEAD,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Delete => Method::DELETE,
        }
    }
}

/// What a page says later.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Word {
    Credit(usize),
    Eof(()),
    Resize(u16, u16),
}

/// What a page is told beside the bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Told<'a> {
    #[serde(rename_all = "camelCase")]
    Begun {
        status: u16,
        content_type: &'a str,
    },
    Error(&'a Refusal),
    End(bool),
}

/// The page is gone.
pub(crate) type Gone = tokio_tungstenite::tungstenite::Error;

/// A way to a page and back.
pub(crate) trait Socket:
    Stream<Item = Result<Message, Gone>> + Sink<Message, Error = Gone> + Unpin + Send
{
}

impl<S> Socket for S where S: Stream<Item = Result<Message, Gone>> + Sink<Message, Error = Gone> + Unpin + Send
{}

/// Serves a socket to its end.
pub(crate) async fn serve(upstream: &Upstream, mut socket: impl Socket) {
    let wanted = loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => break serde_json::from_str::<Wanted>(&text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return,
        }
    };
    let (sink, source) = socket.split();
    let page = Page { sink, credit: WINDOW };
    let result = match wanted {
        Err(error) => {
            let refusal =
                Refusal::new(StatusCode::BAD_REQUEST, format!("the request makes no sense: {error}"));
            page.refuse(&refusal).await
        }
        Ok(Wanted::Docker(call)) => engine(upstream, call, page, source).await,
        Ok(Wanted::Control(request)) => daemon(upstream, request, page, source).await,
        Ok(Wanted::Shell(screen)) => in_guest(upstream, screen, page, source).await,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a page has gone");
    }
}

/// The way to the page, with what it is ready for.
struct Page<S> {
    sink: SplitSink<S, Message>,
    credit: usize,
}

/// What comes from the page while a stream lasts.
#[derive(Debug)]
pub(crate) enum Input {
    /// What is typed or uploaded.
    Bytes(Bytes),
    /// There will be no more of it.
    Eof,
    /// The terminal has other measures now.
    Resize(Screen),
}

impl<S: Socket> Page<S> {
    async fn tell(&mut self, told: &Told<'_>) -> Result<(), Gone> {
        let text = serde_json::to_string(told).unwrap_or_default();
        self.sink.send(Message::text(text)).await
    }

    async fn refuse(mut self, refusal: &Refusal) -> Result<(), Gone> {
        self.tell(&Told::Error(refusal)).await?;
        self.sink.close().await
    }

    /// Says that this was all, and waits until the page has hung up: what it still says about its credit, left unread, would
    /// have the kernel reset the connection and throw away what the page has not read yet.
    async fn end(
        mut self,
        ears: impl Future<Output = ()>,
        mut credits: mpsc::Receiver<usize>,
    ) -> Result<(), Gone> {
        self.tell(&Told::End(true)).await?;
        let hung_up = async {
            tokio::pin!(ears);
            loop {
                tokio::select! {
                    () = &mut ears => return,
                    more = credits.recv() => if more.is_none() { return },
                }
            }
        };
        // One that never does has had its time.
        let _ = tokio::time::timeout(HANGING_UP, hung_up).await;
        self.sink.close().await
    }

    /// Sends bytes when the page is ready for them; returns `false` when it has gone in the meantime.
    async fn send(&mut self, mut bytes: Bytes, credits: &mut mpsc::Receiver<usize>) -> Result<bool, Gone> {
        while !bytes.is_empty() {
            while let Ok(more) = credits.try_recv() {
                self.add(more);
            }
            if self.credit == 0 {
                match credits.recv().await {
                    Some(more) => self.add(more),
                    None => return Ok(false),
                }
                continue;
            }
            let piece = bytes.split_to(bytes.len().min(PIECE).min(self.credit));
            self.credit -= piece.len();
            self.sink.send(Message::binary(piece)).await?;
        }
        Ok(true)
    }

    fn add(&mut self, more: usize) {
        // A page that says more than it got does not get a larger window.
        self.credit = self.credit.saturating_add(more).min(WINDOW);
    }
}

/// Reads what the page says until it is gone, and hands it out by kind.
async fn listen(
    mut source: SplitStream<impl Socket>,
    credits: mpsc::Sender<usize>,
    input: Option<mpsc::Sender<Input>>,
) {
    while let Some(Ok(message)) = source.next().await {
        let said = match message {
            Message::Binary(bytes) => Input::Bytes(bytes),
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(Word::Credit(more)) => {
                    if credits.send(more).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Word::Eof(())) => Input::Eof,
                Ok(Word::Resize(columns, rows)) => Input::Resize(Screen { columns, rows }),
                Err(_) => return,
            },
            Message::Close(_) => return,
            _ => continue,
        };
        if let Some(input) = &input
            && input.send(said).await.is_err()
            && credits.is_closed()
        {
            return;
        }
    }
}

async fn engine<S: Socket>(
    upstream: &Upstream,
    call: Call,
    mut page: Page<S>,
    source: SplitStream<S>,
) -> Result<(), Gone> {
    let (credits, mut credit) = mpsc::channel(64);
    let (input, keys) = mpsc::channel(16);
    let ears = listen(source, credits, (call.upload || call.upgrade).then_some(input));
    tokio::pin!(ears);
    let mut keys = Some(keys);
    let upload = if call.upload { keys.take() } else { None };
    let answer = tokio::select! {
        answer = ask(upstream, &call, upload) => answer,
        () = &mut ears => return Ok(()),
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(refusal) => return page.refuse(&refusal).await,
    };
    let status = response.status();
    let is_upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
    if !status.is_success() && !is_upgraded {
        let refusal = refusal_of(response).await;
        return page.refuse(&refusal).await;
    }
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    page.tell(&Told::Begun { status: status.as_u16(), content_type: &content_type }).await?;
    if is_upgraded {
        match hyper::upgrade::on(&mut response).await {
            Ok(upgraded) => {
                let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
                let page_side = async {
                    match keys {
                        Some(keys) => {
                            tokio::join!(type_in(keys, writer), ears);
                        }
                        None => ears.await,
                    }
                };
                tokio::pin!(page_side);
                // Whichever ends first: the program, or the page.
                tokio::select! {
                    open = pump(&mut page, reader, &mut credit) => { if !open? { return Ok(()); } }
                    () = &mut page_side => return Ok(()),
                }
                page.end(page_side, credit).await
            }
            Err(error) => page.refuse(&engine_away(error)).await,
        }
    } else {
        let mut body = response.into_body();
        let mouth = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { break };
                if let Ok(bytes) = frame.into_data()
                    && !page.send(bytes, &mut credit).await?
                {
                    return Ok::<_, Gone>(false);
                }
            }
            Ok(true)
        };
        tokio::select! {
            open = mouth => { if !open? { return Ok(()); } }
            () = &mut ears => return Ok(()),
        }
        page.end(ears, credit).await
    }
}

async fn ask(
    upstream: &Upstream,
    call: &Call,
    upload: Option<mpsc::Receiver<Input>>,
) -> Result<Response<hyper::body::Incoming>, Refusal> {
    guard::path(&call.path)?;
    let method = Method::from(call.method);
    let (body, kind): (Body, _) = match (upload, &call.body) {
        (Some(pieces), _) => (uploaded(pieces), Some("application/x-tar")),
        (None, Some(body)) => (whole(body.to_string()), Some("application/json")),
        (None, None) => (whole(""), None),
    };
    let mut request = docker::new(&method, &call.path, body)?;
    let headers = request.headers_mut();
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(auth) = &call.auth {
        let value = HeaderValue::from_str(auth)
            .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the login can't be sent"))?;
        headers.insert("x-registry-auth", value);
    }
    if call.upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    }
    let mut sender = upstream.engine(Purpose::of(&method, &call.path)).await?;
    sender.send_request(request).await.map_err(engine_away)
}

/// What the page sends, as a body: an end that the page has not said itself breaks the request off, so that the engine does
/// not take half an archive for a whole one.
fn uploaded(pieces: mpsc::Receiver<Input>) -> Body {
    let frames = futures_util::stream::unfold(Some(pieces), async |pieces| {
        let mut pieces = pieces?;
        loop {
            match pieces.recv().await {
                Some(Input::Bytes(bytes)) => return Some((Ok(Frame::data(bytes)), Some(pieces))),
                Some(Input::Eof) => return None,
                Some(Input::Resize(_)) => {}
                None => return Some((Err("the page has gone in the middle of it".into()), None)),
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The engine's own words for why it does not.
async fn refusal_of(response: Response<hyper::body::Incoming>) -> Refusal {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), WORDS).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|value| Some(value.get("message")?.as_str()?.to_owned()))
        .unwrap_or_else(|| format!("the engine answered with status {status}"));
    Refusal::new(status, message)
}

async fn pump(
    page: &mut Page<impl Socket>,
    mut reader: impl AsyncRead + Unpin,
    credit: &mut mpsc::Receiver<usize>,
) -> Result<bool, Gone> {
    let mut buffer = vec![0; PIECE];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(true),
            Ok(count) => {
                if !page.send(Bytes::copy_from_slice(&buffer[..count]), credit).await? {
                    return Ok::<_, Gone>(false);
                }
            }
        }
    }
}

/// Writes what the page types until there is no more of it.
async fn type_in(mut keys: mpsc::Receiver<Input>, mut writer: impl AsyncWrite + Unpin) {
    while let Some(said) = keys.recv().await {
        match said {
            Input::Bytes(bytes) => {
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            // The size of an exec is told to the engine.
            Input::Resize(_) => {}
            Input::Eof => break,
        }
    }
    let _ = writer.shutdown().await;
}

/// A shell in the guest, as root.
async fn in_guest<S: Socket>(
    upstream: &Upstream,
    screen: Screen,
    mut page: Page<S>,
    source: SplitStream<S>,
) -> Result<(), Gone> {
    let (credits, mut credit) = mpsc::channel(64);
    let (input, keys) = mpsc::channel(16);
    let ears = listen(source, credits, Some(input));
    tokio::pin!(ears);
    let opened = tokio::select! {
        opened = shell::open(upstream, screen) => opened,
        () = &mut ears => return Ok(()),
    };
    let shell = match opened {
        Ok(shell) => shell,
        Err(refusal) => return page.refuse(&refusal).await,
    };
    page.tell(&Told::Begun { status: 200, content_type: "application/octet-stream" }).await?;
    let (output, typing) = shell.split();
    let page_side = async {
        tokio::join!(typing.from(keys), ears);
    };
    tokio::pin!(page_side);
    let mouth = async {
        let mut output = output;
        while let Some(bytes) = output.next().await {
            if !page.send(bytes, &mut credit).await? {
                return Ok::<_, Gone>(false);
            }
        }
        Ok(true)
    };
    tokio::select! {
        open = mouth => { if !open? { return Ok(()); } }
        () = &mut page_side => return Ok(()),
    }
    page.end(page_side, credit).await
}

async fn daemon<S: Socket>(
    upstream: &Upstream,
    request: skiff_host::control::Request,
    mut page: Page<S>,
    source: SplitStream<S>,
) -> Result<(), Gone> {
    let client = match control::purpose(&request) {
        Ok(purpose) => upstream.control(purpose).await,
        Err(refusal) => Err(refusal),
    };
    let mut lines = match client {
        Ok(client) => control::events(client, request),
        Err(refusal) => return page.refuse(&refusal).await,
    };
    page.tell(&Told::Begun { status: 200, content_type: "application/x-ndjson" }).await?;
    let (credits, mut credit) = mpsc::channel(64);
    let ears = listen(source, credits, None);
    tokio::pin!(ears);
    let mouth = async {
        while let Some(line) = lines.recv().await {
            if !page.send(line.into(), &mut credit).await? {
                return Ok::<_, Gone>(false);
            }
        }
        Ok(true)
    };
    tokio::select! {
        open = mouth => { if !open? { return Ok(()); } }
        () = &mut ears => return Ok(()),
    }
    page.end(ears, credit).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_is_told_and_says_has_the_form_of_the_drawing() {
        let told = |told: &Told<'_>| serde_json::to_string(told).unwrap();
        assert_eq!(
            told(&Told::Begun { status: 200, content_type: "a/b" }),
            r#"{"begun":{"status":200,"contentType":"a/b"}}"#
        );
        assert_eq!(told(&Told::End(true)), r#"{"end":true}"#);
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, "no");
        assert_eq!(
            told(&Told::Error(&refusal)),
            r#"{"error":{"status":400,"code":"refused","message":"no"}}"#
        );
        assert!(matches!(serde_json::from_str(r#"{"credit":7}"#), Ok(Word::Credit(7))));
        assert!(matches!(serde_json::from_str(r#"{"eof":null}"#), Ok(Word::Eof(()))));
        assert!(serde_json::from_str::<Word>(r#"{"credit":-1}"#).is_err());
        let call = r#"{"docker":{"method":"POST","path":"/a","body":{"Tty":true},"upgrade":true}}"#;
        assert!(matches!(serde_json::from_str(call), Ok(Wanted::Docker(Call { upgrade: true, .. }))));
        assert!(serde_json::from_str::<Wanted>(r#"{"docker":{"method":"CONNECT","path":"/a"}}"#).is_err());
        assert!(matches!(serde_json::from_str(r#"{"control":{"op":"status"}}"#), Ok(Wanted::Control(_))));
    }
}
