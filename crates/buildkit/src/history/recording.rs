//! One build on its way into the history.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryRecord, BuildResultInfo, Descriptor, Exporter};
use prost::Message;
use skiff_build::{Material, now};
use skiff_images::Digest;
use tonic::Status as Refusal;

use super::{History, provenance};
use crate::status::Status;

const LOGS: &str = "application/vnd.buildkit.status.v0";
const ERROR: &str = "application/vnd.googeapis.google.rpc.status+proto";
const PROVENANCE: &str = "application/vnd.in-toto+json";
const PREDICATE: (&str, &str) = ("in-toto.io/predicate-type", "https://slsa.dev/provenance/v0.2");
const CONFIGURATION: &str = "application/vnd.docker.container.image.v1+json";

/// What is known of a build when it ends, beside what it has told.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// What the client is told, or why the build failed.
    pub outcome: Option<Result<HashMap<String, String>, Refusal>>,
    /// The image's configuration, where it made one.
    pub configuration: Option<Vec<u8>>,
    /// What it was made from.
    pub materials: Vec<Material>,
    /// The frontend that made it, with its attributes.
    pub frontend: Option<(String, HashMap<String, String>)>,
    /// `os/architecture` of the result.
    pub platform: String,
}

/// A build that runs. Dropped before its end, it was cancelled.
pub(crate) struct Recording {
    history: History,
    record: Option<BuildHistoryRecord>,
    status: Status,
}

impl Recording {
    /// Enters a build.
    pub fn begin(
        history: History,
        name: &str,
        frontend: &str,
        attributes: &HashMap<String, String>,
        exporters: &[Exporter],
        status: Status,
    ) -> Self {
        let record = BuildHistoryRecord {
            r#ref: name.to_owned(),
            frontend: frontend.to_owned(),
            frontend_attrs: attributes
                .iter()
                .map(|(name, value)| (name.clone(), shown(name, value)))
                .collect(),
            exporters: exporters.to_vec(),
            created_at: Some(now()),
            generation: 1,
            ..BuildHistoryRecord::default()
        };
        history.begin(&record);
        Self { history, record: Some(record), status }
    }

    /// Enters the end. It can be read when this returns.
    pub async fn end(mut self, evidence: Evidence) {
        let Some(record) = self.record.take() else { return };
        let (history, status) = (self.history.clone(), self.status.clone());
        let kept = tokio::task::spawn_blocking(move || finish(&history, record, &status, evidence)).await;
        if let Err(error) = kept {
            tracing::warn!(%error, "build can't be entered into the history");
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        let (history, status) = (self.history.clone(), self.status.clone());
        let cancelled = Refusal::cancelled("context canceled");
        let evidence = Evidence { outcome: Some(Err(cancelled)), ..Evidence::default() };
        let work = move || finish(&history, record, &status, evidence);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => work(),
        }
    }
}

/// What a record shows of an attribute: addresses without passwords.
fn shown(name: &str, value: &str) -> String {
    let is_place = name == "context" || name.starts_with("context:") || name == "vcs:source";
    match (is_place, value.split_once("://")) {
        (true, Some((scheme, rest))) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            match host.rsplit_once('@') {
                Some((login, host)) if login.contains(':') => format!("{scheme}://xxxxx:xxxxx@{host}{path}"),
                _ => value.to_owned(),
            }
        }
        _ => value.to_owned(),
    }
}

/// Blocks.
fn finish(history: &History, mut record: BuildHistoryRecord, status: &Status, evidence: Evidence) {
    let mut blobs = BTreeMap::new();
    let mut keep = |media_type: &str, bytes: Vec<u8>| {
        let digest = Digest::of(&bytes).to_string();
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        blobs.insert(digest.clone(), bytes);
        Descriptor { media_type: media_type.to_owned(), digest, size, annotations: HashMap::new() }
    };
    record.completed_at = Some(now());
    let mut logs = Vec::new();
    let mut warnings = 0;
    for message in status.all() {
        warnings += message.warnings.len();
        let bytes = message.encode_to_vec();
        logs.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        logs.extend(bytes);
    }
    record.logs = Some(keep(LOGS, logs));
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let steps = status.vertices();
    record.num_total_steps = number(steps.len());
    record.num_completed_steps = number(steps.iter().filter(|step| step.completed.is_some()).count());
    record.num_cached_steps = number(steps.iter().filter(|step| step.cached).count());
    record.num_warnings = number(warnings);
    let outcome =
        evidence.outcome.clone().unwrap_or_else(|| Err(Refusal::unknown("the build's end is not known")));
    match outcome {
        Ok(told) => {
            record.exporter_response = told;
            let mut result = BuildResultInfo::default();
            if let Some((frontend, attributes)) = &evidence.frontend {
                let text = provenance::predicate(frontend, attributes, &evidence, &record);
                let mut attestation = keep(PROVENANCE, text.into_bytes());
                attestation.annotations.insert(PREDICATE.0.to_owned(), PREDICATE.1.to_owned());
                result.attestations.push(attestation);
            }
            if let Some(configuration) = &evidence.configuration {
                let descriptor = keep(CONFIGURATION, configuration.clone());
                result.results.insert(0, descriptor.clone());
                result.result_deprecated = Some(descriptor);
            }
            record.result = Some(result);
        }
        Err(refusal) => {
            let whole = rpc::Status::decode(refusal.details()).ok().filter(|whole| whole.code != 0);
            let whole = whole.unwrap_or_else(|| rpc::Status {
                code: refusal.code().into(),
                message: refusal.message().to_owned(),
                details: Vec::new(),
            });
            record.error =
                Some(rpc::Status { code: whole.code, message: whole.message.clone(), details: Vec::new() });
            record.external_error = Some(keep(ERROR, whole.encode_to_vec()));
        }
    }
    history.end(record, blobs);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_of_an_address_is_kept() {
        assert_eq!(shown("context", "https://me:secret@h/x.git"), "https://xxxxx:xxxxx@h/x.git");
        assert_eq!(shown("context", "https://h/x@y:z"), "https://h/x@y:z");
        assert_eq!(shown("build-arg:A", "https://me:secret@h"), "https://me:secret@h");
    }
}
