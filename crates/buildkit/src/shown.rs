//! Work of our own that shows among a build's vertices.

use std::future::Future;
use std::sync::Arc;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{Vertex, VertexStatus};
use skiff_build::{Event, Progress, Result, now};

/// A vertex of ours.
#[derive(Clone)]
pub(crate) struct Shown {
    progress: Arc<dyn Progress>,
    digest: String,
    name: String,
    started: Timestamp,
}

impl Shown {
    /// Shows a vertex while `work` runs, with its outcome.
    pub async fn during<T, F: Future<Output = Result<T>>>(
        progress: Arc<dyn Progress>,
        name: &str,
        work: impl FnOnce(Self) -> F,
    ) -> Result<T> {
        let mut random = [0; 32];
        // Two that are equal by chance would only look odd.
        let _ = getrandom::fill(&mut random);
        let digest = format!("sha256:{}", hex::encode(random));
        let shown = Self { progress, digest, name: name.to_owned(), started: now() };
        shown.tell(None, String::new());
        let result = work(shown.clone()).await;
        shown.tell(Some(now()), result.as_ref().err().map(ToString::to_string).unwrap_or_default());
        result
    }

    fn tell(&self, completed: Option<Timestamp>, error: String) {
        self.progress.event(Event::Vertex(Vertex {
            digest: self.digest.clone(),
            name: self.name.clone(),
            started: Some(self.started),
            completed,
            error,
            ..Vertex::default()
        }));
    }

    /// Shows how many bytes of something are done.
    pub fn bytes(&self, id: &str, current: u64, done: bool) {
        let time = now();
        self.progress.event(Event::Status(VertexStatus {
            id: id.to_owned(),
            vertex: self.digest.clone(),
            current: i64::try_from(current).unwrap_or(i64::MAX),
            timestamp: Some(time),
            started: Some(self.started),
            completed: done.then_some(time),
            ..VertexStatus::default()
        }));
    }
}
