//! Progress in the vocabulary of Docker's JSON messages.

use serde::Serialize;

/// One line of Docker's progress stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgressEvent {
    /// The short id of the layer, or the tag; absent for lines about the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `Downloading`, `Pull complete` and so on.
    pub status: String,
    /// How far it is.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
}

/// Bytes done and bytes to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProgressDetail {
    /// Bytes done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// Takes progress events; any closure does.
pub trait Progress: Send + Sync {
    /// Takes one event; must not block for long.
    fn event(&self, event: ProgressEvent);
}

impl<F: Fn(ProgressEvent) + Send + Sync> Progress for F {
    fn event(&self, event: ProgressEvent) {
        self(event);
    }
}

/// Ignores all progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: ProgressEvent) {}
}

impl ProgressEvent {
    /// Makes a line about the whole operation.
    pub fn line(status: impl Into<String>) -> ProgressEvent {
        ProgressEvent { id: None, status: status.into(), progress_detail: None }
    }

    /// Makes a line about one thing without figures.
    pub fn about(id: &str, status: impl Into<String>) -> ProgressEvent {
        ProgressEvent {
            id: Some(id.to_owned()),
            status: status.into(),
            progress_detail: Some(ProgressDetail::default()),
        }
    }

    /// Makes a line about one thing with figures.
    pub fn measured(id: &str, status: &str, current: u64, total: u64) -> ProgressEvent {
        ProgressEvent {
            id: Some(id.to_owned()),
            status: status.to_owned(),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
        }
    }
}
