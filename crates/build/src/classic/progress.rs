//! Progress as the classic builder shows it: one step after the other, whatever the order that they are done in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Line, Lines, short};
use crate::dockerfile::StepNote;
use crate::error::{Error, Location};
use crate::progress::{Event, Progress};

/// Output of one vertex that is kept until its step is shown.
const MOST_OUTPUT: usize = 4 << 20;

#[derive(Debug, Default)]
struct Seen {
    started: bool,
    done: bool,
    cached: bool,
    output: Vec<u8>,
}

/// Listens to a build.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    vertices: Mutex<HashMap<String, Seen>>,
    ended: Mutex<bool>,
    changed: Notify,
}

impl Watcher {
    fn vertices(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.vertices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that nothing more will happen.
    pub fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    fn has_ended(&self) -> bool {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Watcher {
    fn event(&self, event: Event) {
        match event {
            Event::Vertex(vertex) => {
                let mut vertices = self.vertices();
                let seen = vertices.entry(vertex.digest).or_default();
                seen.started |= vertex.started.is_some() && !vertex.cached;
                seen.done |= vertex.completed.is_some() && vertex.error.is_empty();
                seen.cached |= vertex.cached;
            }
            Event::Log(log) => {
                let mut vertices = self.vertices();
                let seen = vertices.entry(log.vertex).or_default();
                if seen.output.len() < MOST_OUTPUT {
                    seen.output.extend_from_slice(&log.msg);
                }
            }
            Event::Status(_) | Event::Warning(_) => return,
        }
        self.changed.notify_one();
    }
}

/// Shows the steps.
pub(super) struct Printer<'a> {
    watcher: Arc<Watcher>,
    steps: &'a [StepNote],
    quiet: bool,
    lines: Lines,
}

impl<'a> Printer<'a> {
    pub fn new(watcher: Arc<Watcher>, steps: &'a [StepNote], quiet: bool, lines: Lines) -> Printer<'a> {
        Printer { watcher, steps, quiet, lines }
    }

    fn text(&self, text: String) {
        if !self.quiet {
            (self.lines)(Line::Text(text));
        }
    }

    /// Shows all steps until the build has ended.
    pub async fn print(&self) {
        let count = self.steps.len();
        let mut before: Option<&str> = None;
        for (number, step) in self.steps.iter().enumerate() {
            self.text(format!("Step {}/{count} : {}\n", number + 1, step.text));
            let Some(vertex) = step.vertex.as_deref() else {
                self.text(" ---> \n".to_owned());
                continue;
            };
            if before != Some(vertex) && !self.follow(vertex, &step.text).await {
                return;
            }
            before = Some(vertex);
            self.text(format!(" ---> {}\n", short(vertex)));
        }
        // The image is made after its last step.
        while !self.watcher.has_ended() {
            self.watcher.changed.notified().await;
        }
    }

    /// Passes on what a step writes until it is done; says whether it was.
    async fn follow(&self, vertex: &str, text: &str) -> bool {
        let is_run = text.get(..3).is_some_and(|name| name.eq_ignore_ascii_case("RUN"));
        let mut running = false;
        loop {
            // Asked first: what was written before the end is to be shown.
            let ended = self.watcher.has_ended();
            let (output, started, done, cached) = {
                let mut vertices = self.watcher.vertices();
                let seen = vertices.entry(vertex.to_owned()).or_default();
                (std::mem::take(&mut seen.output), seen.started, seen.done, seen.cached)
            };
            if started && is_run && !running {
                running = true;
                self.text(format!(" ---> Running in {}\n", short(vertex)));
            }
            if !output.is_empty() {
                self.text(String::from_utf8_lossy(&output).into_owned());
            }
            if done {
                if cached && (is_run || !text.to_ascii_uppercase().starts_with("FROM")) {
                    self.text(" ---> Using cache\n".to_owned());
                }
                if running {
                    self.text(format!(" ---> Removed intermediate container {}\n", short(vertex)));
                }
                return true;
            }
            if ended {
                return false;
            }
            self.watcher.changed.notified().await;
        }
    }

    /// A failure in the words of the classic builder.
    pub fn failure(&self, error: &Error) -> Line {
        let cause = match error {
            Error::Vertex { cause, .. } => cause,
            other => other,
        };
        if let Error::Process { command, exit_code } = cause {
            let message = format!("The command '{command}' returned a non-zero code: {exit_code}");
            return Line::Failed { code: *exit_code, message };
        }
        let step = error.location().and_then(instruction);
        let text = cause.to_string();
        if let (Some(step), Error::NotFound { .. }) = (step, cause)
            && let Some(path) = text.split('"').nth(1).filter(|_| text.contains("calculate checksum"))
        {
            let path = path.trim_start_matches('/');
            let message = format!(
                "{step} failed: file not found in build context or excluded by .dockerignore: stat {path}: file does not \
                 exist"
            );
            return Line::Failed { code: 1, message };
        }
        Line::Failed { code: 1, message: text }
    }
}

/// The name of the instruction at a place.
fn instruction(location: &Location) -> Option<String> {
    let line = location.ranges.first()?.start.as_ref()?.line;
    let text = String::from_utf8_lossy(&location.source.data).into_owned();
    let line = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    line.split_whitespace().next().map(str::to_ascii_uppercase)
}
