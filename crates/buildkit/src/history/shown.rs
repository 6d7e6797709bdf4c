//! The history for those who show it to people: records and what was told, without protocol.

use std::pin::Pin;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryRecord, BuildHistoryRequest, StatusResponse, UpdateBuildHistoryRequest, Vertex,
};
use futures_util::{Stream, StreamExt, stream};
use skiff_build::{Error, Result};

use super::filter::{Filters, status};
use crate::service::BuildKit;

/// One build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PastBuild {
    /// Its id.
    pub id: String,
    /// The names that its image was to get.
    pub tags: Vec<String>,
    /// Where its files came from: a repository or an address; empty for a directory of the client's.
    pub source: String,
    /// The Dockerfile in them, where it was named.
    pub dockerfile: String,
    /// The stage, where one was named.
    pub target: String,
    /// `running`, `completed`, `canceled` or `error`.
    pub status: &'static str,
    /// Why it failed.
    pub error: String,
    /// When it began, RFC 3339.
    pub created: String,
    /// When it ended.
    pub completed: Option<String>,
    /// Its steps; known when it has ended.
    pub steps: u32,
    /// Those that were in the cache.
    pub cached: u32,
    /// What it was warned of.
    pub warnings: u32,
    /// Whether it stays, however many come after it.
    pub pinned: bool,
}

/// Something that a build has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// How a step stands.
    Step {
        /// Its id.
        id: String,
        /// What it does.
        name: String,
        /// When it began, RFC 3339.
        started: Option<String>,
        /// When it ended.
        completed: Option<String>,
        /// Whether its result was in the cache.
        cached: bool,
        /// Why it failed.
        error: String,
    },
    /// What a step's process has printed.
    Log {
        /// The step.
        step: String,
        /// Text, with bytes that are none replaced.
        text: String,
    },
    /// How far a part of a step is.
    Part {
        /// The step.
        step: String,
        /// The part.
        name: String,
        /// Bytes or things that are done.
        current: i64,
        /// Of so many; 0 where that is not known.
        total: i64,
    },
    /// Something that the author should know.
    Warning {
        /// The step.
        step: String,
        /// In one line.
        text: String,
        /// Where more is written.
        url: String,
    },
}

/// What a build has told, and tells.
pub type Tale = Pin<Box<dyn Stream<Item = Told> + Send>>;

impl BuildKit {
    /// Lists builds: those that run, then those that have ended, the newest first.
    pub fn past_builds(&self) -> Vec<PastBuild> {
        let events = self.inner.history.matching(&BuildHistoryRequest::default(), &Filters::default());
        events.into_iter().filter_map(|event| event.record).map(past).collect()
    }

    /// What a build has told; of one that runs the stream goes on until its end.
    ///
    /// # Errors
    /// For a build that is not kept.
    pub async fn tale(&self, id: &str) -> Result<Tale> {
        if let Some(build) = self.inner.builds.find(id) {
            return Ok(Box::pin(build.status.listen().flat_map(|told| stream::iter(parts(told)))));
        }
        let (history, name) = (self.inner.history.clone(), id.to_owned());
        let told = tokio::task::spawn_blocking(move || history.told(&name)).await.ok().flatten();
        let told = told.ok_or_else(|| Error::not_found(format!("no build {id} in the history")))?;
        Ok(Box::pin(stream::iter(told).flat_map(|told| stream::iter(parts(told)))))
    }

    /// Removes a build that has ended from the history.
    ///
    /// # Errors
    /// For a build that is not kept, or that still runs.
    pub async fn forget(&self, id: &str) -> Result<()> {
        let request = UpdateBuildHistoryRequest {
            r#ref: id.to_owned(),
            delete: true,
            ..UpdateBuildHistoryRequest::default()
        };
        let history = self.inner.history.clone();
        let updated = tokio::task::spawn_blocking(move || history.update(&request)).await;
        match updated {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) if refusal.code() == tonic::Code::NotFound => {
                Err(Error::not_found(format!("no build {id} in the history")))
            }
            Ok(Err(refusal)) => Err(Error::invalid(refusal.message())),
            Err(_) => Err(Error::Cancelled),
        }
    }
}

fn past(record: BuildHistoryRecord) -> PastBuild {
    let attribute = |name: &str| record.frontend_attrs.get(name).cloned().unwrap_or_default();
    let source = match attribute("vcs:source") {
        source if source.is_empty() => attribute("context"),
        source => source,
    };
    let names = record.exporters.iter().filter_map(|exporter| exporter.attrs.get("name"));
    let number = |n: i32| u32::try_from(n).unwrap_or(0);
    PastBuild {
        tags: names
            .flat_map(|names| names.split(','))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        // What the client sends itself has an address that means nothing to anybody else.
        source: if source.starts_with("http://buildkit-session/") { String::new() } else { source },
        dockerfile: attribute("filename"),
        target: attribute("target"),
        status: status(&record),
        error: record.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
        created: record.created_at.and_then(written).unwrap_or_default(),
        completed: record.completed_at.and_then(written),
        steps: number(record.num_total_steps),
        cached: number(record.num_cached_steps),
        warnings: number(record.num_warnings),
        pinned: record.pinned,
        id: record.r#ref,
    }
}

fn written(at: Timestamp) -> Option<String> {
    Some(jiff::Timestamp::new(at.seconds, at.nanos).ok()?.to_string())
}

fn parts(told: StatusResponse) -> Vec<Told> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let step = |vertex: Vertex| Told::Step {
        id: vertex.digest,
        name: vertex.name,
        started: vertex.started.and_then(written),
        completed: vertex.completed.and_then(written),
        cached: vertex.cached,
        error: vertex.error,
    };
    let part = told.statuses.into_iter().map(|status| Told::Part {
        step: status.vertex,
        name: if status.name.is_empty() { status.id } else { status.name },
        current: status.current,
        total: status.total,
    });
    let log = told.logs.into_iter().map(|log| Told::Log { step: log.vertex, text: text(&log.msg) });
    let warning = told.warnings.into_iter().map(|warning| Told::Warning {
        step: warning.vertex,
        text: text(&warning.short),
        url: warning.url,
    });
    told.vertexes.into_iter().map(step).chain(part).chain(log).chain(warning).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, VertexLog};

    use super::*;

    #[test]
    fn a_record_says_what_was_built_from_what() {
        let attributes = |list: &[(&str, &str)]| -> HashMap<String, String> {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let mut record = BuildHistoryRecord {
            r#ref: "abc".to_owned(),
            frontend_attrs: attributes(&[("context", "http://buildkit-session/x"), ("target", "test")]),
            exporters: vec![Exporter {
                r#type: "moby".to_owned(),
                attrs: attributes(&[("name", "a:1,b:2")]),
            }],
            created_at: Some(Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            num_total_steps: 3,
            ..BuildHistoryRecord::default()
        };
        let found = past(record.clone());
        assert_eq!(
            (found.tags.join(" ").as_str(), found.source.as_str(), found.status),
            ("a:1 b:2", "", "running")
        );
        assert_eq!(found.created, "2023-11-14T22:13:20.005Z");
        assert_eq!((found.steps, found.target.as_str(), found.completed), (3, "test", None));
        record.frontend_attrs.insert("vcs:source".to_owned(), "https://example.com/a.git".to_owned());
        assert_eq!(past(record).source, "https://example.com/a.git");
    }

    #[test]
    fn steps_come_before_what_they_print() {
        let vertex = Vertex { digest: "a".to_owned(), name: "RUN x".to_owned(), ..Vertex::default() };
        let log = VertexLog { vertex: "a".to_owned(), msg: b"hi \xff".to_vec(), ..VertexLog::default() };
        let told =
            parts(StatusResponse { vertexes: vec![vertex], logs: vec![log], ..StatusResponse::default() });
        assert!(matches!(&told[0], Told::Step { name, .. } if name == "RUN x"));
        assert_eq!(told[1], Told::Log { step: "a".to_owned(), text: "hi \u{fffd}".to_owned() });
    }
}
