//! Requests to the daemon: the same messages as on its socket, over HTTP.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header;
use hyper::{Request as HttpRequest, Response, StatusCode};
use skiff_host::control::{Client, ClientError, Event, Failure, Request};
use tokio::sync::mpsc;

use crate::answer::{Body, Refusal, set};
use crate::upstream::{Purpose, Upstream};

/// Longest request in bytes.
const REQUEST: usize = 64 << 10;
/// Events that may wait for the page.
const WAITING: usize = 1 << 16;

/// Tells what a request is for, or refuses what is not for browsers: streams have a way of their own. The daemon may be ended:
/// some settings are true with a new one only, and the next use starts that.
pub(crate) fn purpose(request: &Request) -> Result<Purpose, Refusal> {
    match request {
        Request::Version {}
        | Request::Status {}
        | Request::Logs { .. }
        | Request::Port { .. }
        | Request::Network {}
        | Request::Doctor {}
        | Request::Diagnose {}
        | Request::Settings {}
        | Request::Configure { .. }
        | Request::Reclaim {}
        | Request::Suspend {}
        | Request::Prune {}
        | Request::Shutdown {}
        | Request::Stop {} => Ok(Purpose::Look),
        Request::Start { .. } | Request::Restart { .. } => Ok(Purpose::Use),
        Request::Shell {} | Request::Engine {} => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "this can't be asked from a browser"))
        }
    }
}

/// Carries one request out; the answer is the daemon's events, a line of JSON each, as they come.
pub(crate) async fn answer(
    upstream: &Upstream,
    request: HttpRequest<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let wrong = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
    let body = Limited::new(request.into_body(), REQUEST).collect().await;
    let body = body.map_err(|error| wrong(error.to_string()))?.to_bytes();
    let request: Request = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    let client = upstream.control(purpose(&request)?).await?;
    let lines = events(client, request);
    let frames = futures_util::stream::unfold(lines, async |mut lines| {
        let line = lines.recv().await?;
        Some((Ok(Frame::data(Bytes::from(line))), lines))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    set(&mut response, header::CONTENT_TYPE, "application/x-ndjson");
    Ok(response)
}

/// Sends a request and gives the events as lines. Nobody listening any more ends it; who listens too slowly misses some, which
/// are in the daemon's log all the same.
pub(crate) fn events(client: Client, request: Request) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let gone = sender.clone();
        let work = client.run(&request, |event| drop(sender.try_send(line(&event))));
        let last = tokio::select! {
            result = work => match result {
                Ok(()) => Event::Done {},
                Err(ClientError::Failed(failure)) => Event::Error(failure),
                Err(error) => Event::Error(Failure { message: error.to_string(), hint: error.hint(), detail: None }),
            },
            () = gone.closed() => return,
        };
        let _ = gone.send(line(&last)).await;
    });
    lines
}

fn line(event: &Event) -> String {
    let mut line = serde_json::to_string(event).unwrap_or_default();
    line.push('\n');
    line
}
