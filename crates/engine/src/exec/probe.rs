//! Execs of the engine's own: health checks. Nobody can attach to one, and nothing is left of it when it has ended.

use std::sync::Arc;
use std::time::Duration;

use bollard_stubs::models::ExecConfig;
use futures_util::StreamExt;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::start::Client;
use super::{Exec, Purpose, streams};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names;
use crate::process::Process;

/// As much of a probe's output is kept, as with Docker.
const MOST_OUTPUT: usize = 4096;
/// The exit code of a probe that gave none.
const NO_EXIT: i32 = -1;
/// How long a killed probe may take to be gone.
const AFTER_KILL: Duration = Duration::from_secs(10);

impl Engine {
    /// Runs a command in a container; returns its exit code and the beginning of its output. Dropping the future kills
    /// the command.
    pub(crate) async fn probe(
        &self,
        container: &Arc<Container>,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, String)> {
        let config = ExecConfig {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let exec = Exec::new(names::random_id(), container.id.clone(), config, Purpose::Probe);
        self.announce_exec(&container.record(), &exec);
        self.0.execs.insert(Arc::clone(&exec));
        let ending = Ending { engine: self.clone(), exec: Arc::clone(&exec) };
        let ours = self.run_exec(&exec, None, Client::Attached).await?;
        let (mut chunks, _) = streams::connect(&exec, ours, &self.0.runtime)
            .map_err(|error| Error::internal("connect the probe's streams", &error))?;
        let mut output = Output::default();
        let whole = tokio::time::timeout(timeout, async {
            while let Some(Ok(chunk)) = chunks.next().await {
                output.add(&chunk.bytes);
            }
        });
        let outcome = whole.await;
        if outcome.is_ok() {
            let code = exec.state().exit_code.unwrap_or(NO_EXIT);
            return Ok((code, output.text()));
        }
        tracing::debug!(container = container.id, exec = exec.id, "probe takes too long");
        let mut ended = exec.ended.subscribe();
        drop(ending);
        // Dying probes must not pile up.
        let _ = tokio::time::timeout(AFTER_KILL, ended.wait_for(|ended| *ended)).await;
        let limit = clock_text(timeout);
        let message = match output.text() {
            text if text.is_empty() => format!("Health check exceeded timeout ({limit})"),
            text => format!("Health check exceeded timeout ({limit}): {text}"),
        };
        Ok((NO_EXIT, message))
    }
}

/// Ends a probe when it is not wanted any more, and forgets it.
struct Ending {
    engine: Engine,
    exec: Arc<Exec>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let (running, pid) = {
            let mut state = self.exec.state();
            state.unwanted = true;
            (state.running, state.pid)
        };
        if running {
            // Forgotten when its end is reported.
            kill_session(pid);
        } else {
            self.engine.0.execs.remove(&self.exec.id);
        }
    }
}

/// Kills a process and what it has started: every exec leads a session of its own.
pub(super) fn kill_session(leader: i32) {
    kill(leader, |_| true);
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && Process::read(pid).is_some_and(|process| process.session == leader)
        {
            // Looked at again once it is held: the number may be another's by then.
            kill(pid, |pid| Process::read(pid).is_some_and(|process| process.session == leader));
        }
    }
}

fn kill(pid: i32, still: impl FnOnce(i32) -> bool) {
    let Some(id) = Pid::from_raw(pid) else { return };
    if let Ok(held) = pidfd_open(id, PidfdFlags::empty())
        && still(pid)
    {
        // It may have ended in this moment.
        let _ = pidfd_send_signal(&held, Signal::KILL);
    }
}

/// The beginning of an output.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    cut: bool,
}

impl Output {
    fn add(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(MOST_OUTPUT - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.cut |= taken < bytes.len();
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.cut { format!("{text}...") } else { text.into_owned() }
    }
}

/// A duration as Go writes it, for the few that people set: `1.5s`, `30s`, `1m0s`, `200ms`.
fn clock_text(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 {
        return format!("{}ms", duration.as_micros() as f64 / 1000.0);
    }
    let (minutes, rest) = (duration.as_secs() / 60, seconds % 60.0);
    let rest = (rest * 1000.0).round() / 1000.0;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_is_cut_and_says_so() {
        let mut output = Output::default();
        output.add(&[b'x'; MOST_OUTPUT - 1]);
        assert_eq!(output.text().len(), MOST_OUTPUT - 1);
        output.add(b"yz");
        assert_eq!(output.text().len(), MOST_OUTPUT + 3);
        assert!(output.text().ends_with("xy..."));
    }

    #[test]
    fn durations_read_as_in_go() {
        let text = |milliseconds| clock_text(Duration::from_millis(milliseconds));
        assert_eq!([text(200), text(1500), text(30_000)], ["200ms", "1.5s", "30s"]);
        assert_eq!([text(60_000), text(3_661_000)], ["1m0s", "1h1m1s"]);
    }
}
