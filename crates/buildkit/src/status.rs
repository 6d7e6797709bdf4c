//! What a build tells, kept for those who listen late or slowly.
//!
//! Events are numbered; each listener has its own place among them. The oldest are dropped when there is too much: a
//! listener who has not had them is told how every vertex stands instead.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex};
use futures_util::Stream;
use prost::Message;
use skiff_build::{Event, Progress};
use tokio::sync::watch;
use tokio::time::Instant;

/// As much as is kept, in bytes.
const KEPT: usize = 8 << 20;
/// As much as one message has, in bytes, unless a single event is larger.
const MESSAGE: usize = 1 << 20;
/// How long events are collected between two messages. The first message and what comes with the end do not wait: a build
/// without a step to run would take no time but this.
const PAUSE: Duration = Duration::from_millis(40);

/// The hub of one build. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    state: Arc<Mutex<State>>,
    /// The number of the next event.
    next: Arc<watch::Sender<u64>>,
    /// Whether nothing more comes.
    over: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<(Event, usize)>,
    /// The number of the first one kept.
    first: u64,
    bytes: usize,
    /// The last word on each vertex, in the order in which they came.
    vertices: Vec<Vertex>,
    index: HashMap<String, usize>,
    over: bool,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            next: Arc::new(watch::Sender::new(0)),
            over: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Status {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that nothing more comes.
    pub fn finish(&self) {
        self.state().over = true;
        self.over.send_replace(true);
        self.next.send_modify(|_| {});
    }

    /// Everything that is known now, for those who read it once.
    pub fn all(&self) -> Vec<StatusResponse> {
        let (state, mut place) = (self.state(), 0);
        std::iter::from_fn(|| state.collect(&mut place).0).collect()
    }

    /// The last word on each vertex.
    pub fn vertices(&self) -> Vec<Vertex> {
        self.state().vertices.clone()
    }

    /// Listens from the first event on; the stream ends after the last.
    pub fn listen(&self) -> impl Stream<Item = StatusResponse> + Send + use<> {
        let listener =
            Listener { next: self.next.subscribe(), over: self.over.subscribe(), place: 0, told: None };
        futures_util::stream::unfold((self.clone(), listener), |(status, mut listener)| async move {
            loop {
                listener.next.borrow_and_update();
                listener.collected().await;
                let (response, over) = status.state().collect(&mut listener.place);
                if let Some(response) = response {
                    listener.told = Some(Instant::now());
                    return Some((response, (status, listener)));
                }
                if over || listener.next.changed().await.is_err() {
                    return None;
                }
            }
        })
    }
}

/// One who listens, and how far it is.
struct Listener {
    next: watch::Receiver<u64>,
    over: watch::Receiver<bool>,
    /// The number of the event that it is told next.
    place: u64,
    /// When it was told something last.
    told: Option<Instant>,
}

impl Listener {
    /// Waits until it may be told the next message.
    async fn collected(&mut self) {
        let Some(told) = self.told else { return };
        let over = self.over.wait_for(|over| *over);
        // An error is the end of all who could say that it is over.
        let _ = tokio::time::timeout_at(told + PAUSE, over).await;
    }
}

impl Progress for Status {
    fn event(&self, event: Event) {
        let mut state = self.state();
        if state.over {
            return;
        }
        state.push(event);
        let next = state.first + state.events.len() as u64;
        drop(state);
        self.next.send_replace(next);
    }
}

impl State {
    fn push(&mut self, event: Event) {
        let size = match &event {
            Event::Vertex(vertex) => {
                match self.index.get(&vertex.digest) {
                    Some(&at) => self.vertices[at] = vertex.clone(),
                    None => {
                        self.index.insert(vertex.digest.clone(), self.vertices.len());
                        self.vertices.push(vertex.clone());
                    }
                }
                vertex.encoded_len()
            }
            Event::Status(status) => status.encoded_len(),
            Event::Log(log) => log.encoded_len(),
            Event::Warning(warning) => warning.encoded_len(),
        };
        self.events.push_back((event, size));
        self.bytes += size;
        while self.bytes > KEPT
            && self.events.len() > 1
            && let Some((_, size)) = self.events.pop_front()
        {
            self.bytes -= size;
            self.first += 1;
        }
    }

    /// Takes what a listener at `place` is to be told next; also says whether nothing will come after all that is here.
    fn collect(&self, place: &mut u64) -> (Option<StatusResponse>, bool) {
        let mut response = StatusResponse::default();
        if *place < self.first {
            response.vertexes.clone_from(&self.vertices);
            *place = self.first;
        }
        let mut bytes = 0;
        let skip = usize::try_from(*place - self.first).unwrap_or(usize::MAX);
        for (event, size) in self.events.iter().skip(skip) {
            if bytes > 0 && bytes + size > MESSAGE {
                break;
            }
            bytes += size;
            *place += 1;
            match event {
                Event::Vertex(vertex) => response.vertexes.push(vertex.clone()),
                Event::Status(status) => response.statuses.push(status.clone()),
                Event::Log(log) => response.logs.push(log.clone()),
                Event::Warning(warning) => response.warnings.push(warning.clone()),
            }
        }
        let empty = response == StatusResponse::default();
        ((!empty).then_some(response), self.over)
    }
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::moby::buildkit::v1::VertexLog;
    use futures_util::StreamExt;

    use super::*;

    fn vertex(digest: &str, name: &str) -> Event {
        Event::Vertex(Vertex { digest: digest.to_owned(), name: name.to_owned(), ..Vertex::default() })
    }

    fn log(length: usize) -> Event {
        Event::Log(VertexLog { vertex: "a".to_owned(), msg: vec![b'x'; length], ..VertexLog::default() })
    }

    #[tokio::test]
    async fn a_late_listener_gets_everything_and_then_the_end() {
        let status = Status::default();
        status.event(vertex("a", "one"));
        status.event(log(3));
        status.finish();
        status.event(vertex("b", "after the end"));
        let all: Vec<StatusResponse> = status.listen().collect().await;
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].vertexes[0].name, "one");
        assert_eq!(all[0].logs[0].msg, b"xxx");
    }

    #[tokio::test]
    async fn a_listener_hears_what_comes_while_it_listens() {
        let status = Status::default();
        let mut heard = Box::pin(status.listen());
        let late = status.clone();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            late.event(vertex("a", "one"));
            late.finish();
        });
        assert_eq!(heard.next().await.unwrap().vertexes[0].digest, "a");
        assert!(heard.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_comes_in_between_waits_for_more_to_go_with_it() {
        let (status, started) = (Status::default(), Instant::now());
        let mut heard = Box::pin(status.listen());
        status.event(vertex("a", "one"));
        assert_eq!(heard.next().await.unwrap().vertexes.len(), 1);
        assert_eq!(started.elapsed(), Duration::ZERO, "the first waits for nobody");
        status.event(vertex("b", "two"));
        let late = status.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE / 2).await;
            late.event(vertex("c", "three"));
            tokio::time::sleep(PAUSE).await;
            late.event(vertex("d", "four"));
            late.finish();
        });
        assert_eq!(heard.next().await.unwrap().vertexes.len(), 2);
        assert_eq!(started.elapsed(), PAUSE);
        assert_eq!(heard.next().await.unwrap().vertexes.len(), 1);
        assert!(heard.next().await.is_none());
        assert_eq!(started.elapsed(), PAUSE + PAUSE / 2, "the end waits for nobody");
    }

    #[tokio::test]
    async fn a_listener_who_fell_behind_still_learns_how_each_vertex_stands() {
        let status = Status::default();
        status.event(vertex("a", "first"));
        for _ in 0..20 {
            status.event(log(1 << 20));
        }
        status.event(vertex("b", "last"));
        status.finish();
        let all: Vec<StatusResponse> = status.listen().collect().await;
        let names: Vec<&str> =
            all.iter().flat_map(|part| &part.vertexes).map(|vertex| vertex.name.as_str()).collect();
        assert_eq!(names, ["first", "last", "last"]);
        let logged: usize = all.iter().flat_map(|part| &part.logs).map(|log| log.msg.len()).sum();
        assert!((KEPT / 2..=KEPT).contains(&logged), "{logged}");
        assert!(all.iter().all(|part| part.encoded_len() <= MESSAGE + (1 << 16)));
    }
}
