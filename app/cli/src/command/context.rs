//! What every command needs: where the engine is, and a daemon that runs.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use skiff_host::control::{self, ClientError, Progress};
use skiff_host::{docker_context, spawn};
use skiff_settings::{Paths, env};

use crate::api::{Client, Endpoint};
use crate::error::Error;
use crate::terminal;

/// A guest that takes longer than this to answer is worth a word.
const PATIENCE: Duration = Duration::from_millis(300);

/// The choices made before the command.
#[derive(Debug, Clone)]
pub struct Context {
    host: Option<String>,
    state: Option<PathBuf>,
}

impl Context {
    /// Takes `--host` and `--state`.
    pub fn new(host: Option<String>, state: Option<PathBuf>) -> Context {
        Context { host, state }
    }

    /// Returns the files of the host daemon.
    pub fn paths(&self) -> Result<Paths, Error> {
        Paths::discover(self.state.as_deref()).map_err(|source| Error::Host {
            message: "finding the state directory".to_owned(),
            hint: Some(format!("set {} to a directory of your own", env::SKIFF_STATE)),
            source: Some(Box::new(source)),
        })
    }

    /// Returns the endpoint that the user asked for, if any: `--host`, else `DOCKER_HOST`.
    pub fn chosen_host(&self) -> Option<String> {
        self.host
            .clone()
            .or_else(|| std::env::var(env::DOCKER_HOST).ok())
            .filter(|host| !host.trim().is_empty())
    }

    /// Connects to the engine, starting daemon and guest when they are ours and don't run.
    pub async fn client(&self) -> Result<Client, Error> {
        if let Some(host) = self.chosen_host() {
            if std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty())
                && host.starts_with("tcp")
            {
                return Err(Error::plain("TLS connections are not supported: unset DOCKER_TLS_VERIFY"));
            }
            return Client::connect(Endpoint::parse(host.trim())?).await;
        }
        let paths = self.paths()?;
        spawn::ensure_daemon(&paths).await.map_err(daemon_failed)?;
        let version = self.control(&paths).await?.version().await.map_err(control_failed)?;
        let endpoint = Endpoint::parse(&docker_context::endpoint(&version.docker_socket))?;
        let mut connecting = std::pin::pin!(Client::connect(endpoint));
        if let Ok(result) = tokio::time::timeout(PATIENCE, &mut connecting).await {
            return result;
        }
        // The first connection boots the guest; asking for the same boot tells how far it is.
        let watching = async {
            let mut line = ProgressLine::new();
            let started = self.control(&paths).await?.start(false, |step| line.show(&step)).await;
            line.clear();
            started.map_err(control_failed)
        };
        match tokio::try_join!(watching, async { Ok(connecting.await) }) {
            Ok(((), result)) => result,
            // Why the guest did not start says more than a closed connection.
            Err(error) => Err(error),
        }
    }

    /// Connects to a running daemon.
    pub async fn control(&self, paths: &Paths) -> Result<control::Client, Error> {
        control::Client::connect(&paths.control_socket()).await.map_err(control_failed)
    }

    /// Connects to the daemon, starting it when it doesn't run.
    pub async fn daemon(&self) -> Result<control::Client, Error> {
        let paths = self.paths()?;
        spawn::ensure_daemon(&paths).await.map_err(daemon_failed)?;
        self.control(&paths).await
    }
}

/// Turns a daemon that did not start into the words for the user.
pub fn daemon_failed(source: spawn::Error) -> Error {
    Error::Host {
        message: "starting the daemon".to_owned(),
        hint: Some("`skiff doctor` checks what it needs".to_owned()),
        source: Some(Box::new(source)),
    }
}

/// Turns a failed request to the daemon into the words for the user.
pub fn control_failed(error: ClientError) -> Error {
    let hint = error.hint();
    match error {
        ClientError::Failed(failure) => {
            let message =
                match failure.detail.as_deref().map(str::trim_end).filter(|detail| !detail.is_empty()) {
                    Some(detail) => format!("{}\n{detail}", failure.message),
                    None => failure.message,
                };
            Error::Host { message, hint: failure.hint, source: None }
        }
        other => Error::Host { message: "asking the daemon".to_owned(), hint, source: Some(Box::new(other)) },
    }
}

/// One line on standard error that tells how far something is.
#[derive(Debug)]
pub struct ProgressLine {
    terminal: bool,
    shown: bool,
}

impl ProgressLine {
    /// Starts without a line.
    pub fn new() -> ProgressLine {
        ProgressLine { terminal: terminal::stderr_is_terminal(), shown: false }
    }

    /// Shows a step. Without a terminal only the first is told, so that logs of scripts stay short.
    pub fn show(&mut self, progress: &Progress) {
        let mut err = std::io::stderr().lock();
        let text = wording(progress);
        let _ = match (self.terminal, self.shown) {
            (true, _) => write!(err, "\r\x1b[2K{text}").and_then(|()| err.flush()),
            (false, false) => writeln!(err, "{text}"),
            (false, true) => Ok(()),
        };
        self.shown = true;
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.terminal && self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[2K");
        }
        self.shown = false;
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

fn wording(progress: &Progress) -> String {
    format!("Starting the guest… {} {:.1} s", progress.step, progress.elapsed_ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_the_step_and_the_time() {
        let progress = Progress { step: "link hello".to_owned(), elapsed_ms: 1234 };
        assert_eq!(wording(&progress), "Starting the guest… link hello 1.2 s");
    }

    #[test]
    fn the_flag_wins_over_nothing_and_blank_hosts_count_as_none() {
        assert_eq!(Context::new(Some("unix:///x".into()), None).chosen_host().as_deref(), Some("unix:///x"));
        assert_eq!(Context::new(Some(" ".into()), None).chosen_host(), None);
    }
}
