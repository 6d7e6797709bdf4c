//! Progress as the classic builder shows it: one step after the other, whatever the order that they are done in.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Line, Lines, short};
use crate::dockerfile::StepNote;
use crate::error::{Error, Location};
use crate::progress::{Event, Progress};
use crate::step::Output;

/// Output of one vertex that is kept until its step is shown.
const MOST_OUTPUT: usize = 4 << 20;
/// Steps that are remembered.
const MOST_SHOWN: usize = 100_000;

#[derive(Debug, Default)]
struct Seen {
    started: bool,
    done: bool,
    cached: bool,
    /// What the step has written and nobody has shown, by stream, and how much that is.
    output: Vec<(bool, Vec<u8>)>,
    bytes: usize,
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
                if seen.bytes < MOST_OUTPUT {
                    seen.bytes += log.msg.len();
                    seen.output.push((log.stream == Output::Stderr as i64, log.msg));
                }
            }
            Event::Status(_) | Event::Warning(_) => return,
        }
        self.changed.notify_one();
    }
}

/// What the builder remembers of builds whose steps were shown: instructions that change no files leave nothing in the
/// cache that could tell whether they were carried out before.
#[derive(Debug, Default)]
pub(crate) struct Shown(Mutex<HashSet<String>>);

impl Shown {
    /// Remembers a step; says whether it was known.
    fn insert(&self, chain: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_SHOWN {
            known.clear();
        }
        !known.insert(chain.to_owned())
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Shows the steps.
pub(super) struct Printer<'a> {
    pub watcher: Arc<Watcher>,
    pub steps: &'a [StepNote],
    pub quiet: bool,
    pub lines: Lines,
    /// What is known of instructions that change no files.
    pub shown: &'a Shown,
    /// The names of images by the vertices that they are.
    pub images: &'a HashMap<String, String>,
    /// Finds an image's id.
    pub image_id: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// Whether such an instruction may be said to come from the cache.
    pub cached: bool,
}

impl Printer<'_> {
    fn text(&self, text: String) {
        if !self.quiet {
            (self.lines)(Line::Text(text));
        }
    }

    /// Shows all steps until the build has ended. The last line of the last step is for whoever knows the image.
    pub async fn print(&self) {
        let count = self.steps.len();
        let mut before: Option<&str> = None;
        let (mut chain, mut id) = (String::new(), String::new());
        // What was shown as the result of each vertex, for stages that are based on others.
        let mut after: HashMap<&str, String> = HashMap::new();
        for (number, step) in self.steps.iter().enumerate() {
            self.text(format!("Step {}/{count} : {}\n", number + 1, step.text));
            if step.global {
                continue;
            }
            let is_from = is(&step.text, "FROM");
            if is_from {
                chain.clear();
                before = None;
            }
            let vertex = step.vertex.as_deref();
            chain = crate::graph::digest(
                format!("{chain} {} {}", step.text, vertex.unwrap_or_default()).as_bytes(),
            );
            match vertex {
                Some(vertex) if before != Some(vertex) => {
                    if !self.follow(vertex, &step.text).await {
                        return;
                    }
                }
                _ if is_from => {}
                _ => self.unchanged(&chain),
            }
            before = vertex;
            let shown = match (is_from, vertex) {
                // Nothing is the base of a stage from scratch.
                (true, None) => "",
                (true, Some(vertex)) => {
                    let of_image = self.images.get(vertex).and_then(|name| (self.image_id)(name));
                    let known = of_image.or_else(|| after.get(vertex).cloned());
                    id = known.unwrap_or_else(|| vertex.to_owned());
                    short(&id)
                }
                _ => short(&chain),
            };
            if let Some(vertex) = vertex {
                after.insert(vertex, if is_from { id.clone() } else { chain.clone() });
            }
            if number + 1 < count {
                self.text(format!(" ---> {shown}\n"));
            }
        }
        // The image is made after its last step.
        while !self.watcher.has_ended() {
            self.watcher.changed.notified().await;
        }
    }

    /// Shows an instruction that changes no files.
    fn unchanged(&self, chain: &str) {
        if self.shown.insert(chain) && self.cached {
            self.text(" ---> Using cache\n".to_owned());
        } else {
            let container = container(chain);
            let name = short(&container);
            self.text(format!(" ---> Running in {name}\n"));
            self.text(format!(" ---> Removed intermediate container {name}\n"));
        }
    }

    /// Passes on what a step writes until it is done; says whether it was.
    async fn follow(&self, vertex: &str, text: &str) -> bool {
        // Docker changes the directory in a container.
        let is_run = ["RUN", "WORKDIR", "ONBUILD RUN"].iter().any(|name| is(text, name));
        let container = container(vertex);
        let mut running = false;
        loop {
            // Asked first: what was written before the end is to be shown.
            let ended = self.watcher.has_ended();
            let (output, started, done, cached) = {
                let mut vertices = self.watcher.vertices();
                let seen = vertices.entry(vertex.to_owned()).or_default();
                seen.bytes = 0;
                (std::mem::take(&mut seen.output), seen.started, seen.done, seen.cached)
            };
            if started && is_run && !running {
                running = true;
                self.text(format!(" ---> Running in {}\n", short(&container)));
            }
            for (is_error, bytes) in output {
                let piece = String::from_utf8_lossy(&bytes);
                // In red, whatever the client's terminal.
                self.text(if is_error { format!("\x1b[91m{piece}\x1b[0m") } else { piece.into_owned() });
            }
            if done {
                if cached && !is(text, "FROM") {
                    self.text(" ---> Using cache\n".to_owned());
                }
                if running {
                    self.text(format!(" ---> Removed intermediate container {}\n", short(&container)));
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
            return Line::Failed { code: 0, message };
        }
        Line::Failed { code: 0, message: text }
    }
}

/// The id of a step's container: none is kept, and each has its own.
fn container(step: &str) -> String {
    crate::graph::digest(format!("container of {step}").as_bytes())
}

/// Whether a step is of an instruction.
fn is(text: &str, name: &str) -> bool {
    text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// The line that shows the step at a place: all instructions before it have been shown by Docker, which only counts.
pub(super) fn step(location: &Location) -> Option<String> {
    let line = location.ranges.first()?.start.as_ref()?.line;
    let text = String::from_utf8_lossy(&location.source.data);
    let (before, all, code) = crate::dockerfile::count_instructions(&text, u32::try_from(line).ok()?)?;
    Some(format!("Step {before}/{all} : {code}\n"))
}

/// The name of the instruction at a place.
fn instruction(location: &Location) -> Option<String> {
    let line = location.ranges.first()?.start.as_ref()?.line;
    let text = String::from_utf8_lossy(&location.source.data).into_owned();
    let line = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    line.split_whitespace().next().map(str::to_ascii_uppercase)
}
