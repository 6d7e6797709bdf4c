//! What is told about a vertex, to everybody whose build has it.

use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1;

use super::names;
use crate::error::Error;
use crate::graph::Vertex;
use crate::progress::{Event, Progress, now};
use crate::step::Output;

/// The longest piece of output in one message.
const LONGEST_LOG: usize = 1 << 20;

/// Tells about one vertex. Clones share it.
#[derive(Clone)]
pub(crate) struct Reporter {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    listeners: Vec<(Arc<dyn Progress>, v1::Vertex)>,
    /// What is under way, for those who come later.
    statuses: Vec<v1::VertexStatus>,
}

/// The message of a vertex before anything has happened.
pub(crate) fn describe(vertex: &Vertex) -> v1::Vertex {
    v1::Vertex {
        digest: vertex.digest.clone(),
        inputs: vertex.op.inputs.iter().map(|input| input.digest.clone()).collect(),
        name: names::name(vertex),
        progress_group: vertex.metadata.progress_group.clone(),
        ..v1::Vertex::default()
    }
}

impl Reporter {
    pub fn new(progress: Arc<dyn Progress>, vertex: v1::Vertex) -> Reporter {
        let shared = Shared { listeners: vec![(progress, vertex)], statuses: Vec::new() };
        Reporter { shared: Arc::new(Mutex::new(shared)) }
    }

    fn each(&self, tell: impl Fn(&dyn Progress, &mut v1::Vertex)) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        for (progress, vertex) in &mut shared.listeners {
            tell(&**progress, vertex);
        }
    }

    /// Lets the listeners of `other`, whose vertex is the same work, hear it too.
    pub fn join(&self, other: &Reporter) {
        let theirs: Vec<_> = other.shared.lock().unwrap_or_else(PoisonError::into_inner).listeners.clone();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        for (progress, vertex) in theirs {
            for status in &shared.statuses {
                progress.event(Event::Status(v1::VertexStatus {
                    vertex: vertex.digest.clone(),
                    ..status.clone()
                }));
            }
            shared.listeners.push((progress, vertex));
        }
    }

    pub fn started(&self) {
        self.each(|progress, vertex| {
            vertex.started.get_or_insert_with(now);
            progress.event(Event::Vertex(vertex.clone()));
        });
    }

    pub fn completed(&self, cached: bool) {
        self.each(|progress, vertex| {
            vertex.started.get_or_insert_with(now);
            vertex.completed = Some(now());
            vertex.cached = cached;
            progress.event(Event::Vertex(vertex.clone()));
        });
    }

    pub fn failed(&self, error: &Error) {
        self.each(|progress, vertex| {
            vertex.started.get_or_insert_with(now);
            vertex.completed = Some(now());
            vertex.error = error.to_string();
            progress.event(Event::Vertex(vertex.clone()));
        });
    }

    /// Tells how far a part is.
    pub fn status(&self, id: &str, current: u64, total: u64, done: bool) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let at = shared.statuses.iter().position(|status| status.id == id);
        let started: Option<Timestamp> = at.map_or_else(|| Some(now()), |at| shared.statuses[at].started);
        let status = v1::VertexStatus {
            id: id.to_owned(),
            vertex: String::new(),
            name: id.to_owned(),
            current: number(current),
            total: number(total),
            timestamp: Some(now()),
            started,
            completed: done.then(now),
        };
        match at {
            Some(at) => shared.statuses[at] = status.clone(),
            None => shared.statuses.push(status.clone()),
        }
        for (progress, vertex) in &shared.listeners {
            progress
                .event(Event::Status(v1::VertexStatus { vertex: vertex.digest.clone(), ..status.clone() }));
        }
    }

    /// Passes on what a step wrote.
    pub fn log(&self, stream: Output, bytes: &[u8]) {
        self.each(|progress, vertex| {
            for piece in bytes.chunks(LONGEST_LOG) {
                progress.event(Event::Log(v1::VertexLog {
                    vertex: vertex.digest.clone(),
                    timestamp: Some(now()),
                    stream: stream as i64,
                    msg: piece.to_vec(),
                }));
            }
        });
    }
}
