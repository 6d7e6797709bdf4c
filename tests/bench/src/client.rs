//! Clients that build, pull and push: the docker command, and buildx where `scripts/fetch-clients` has put it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// Clients of one engine, with a configuration of their own.
pub struct Client {
    host: String,
    config: tempfile::TempDir,
    buildx: Option<PathBuf>,
}

impl Client {
    /// Clients of the engine behind a socket.
    pub fn new(socket: &Path) -> anyhow::Result<Self> {
        let buildx = Path::new("target/tools/docker-buildx");
        Ok(Self {
            host: format!("unix://{}", socket.display()),
            config: tempfile::tempdir()?,
            buildx: buildx.is_file().then(|| buildx.to_owned()),
        })
    }

    /// How long one command takes.
    pub fn time(&self, words: &[&str]) -> anyhow::Result<Duration> {
        let mut command = match (&self.buildx, words.first()) {
            (Some(buildx), Some(&"build")) => Command::new(buildx),
            _ => Command::new("docker"),
        };
        command.args(words).env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", self.config.path());
        command.env("BUILDX_CONFIG", self.config.path().join("buildx")).env("DOCKER_BUILDKIT", "0");
        command.env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1").stdin(Stdio::null());
        let started = Instant::now();
        let output = command.output().with_context(|| format!("run {command:?}"))?;
        let taken = started.elapsed();
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(taken)
    }

    /// Whether builds go through buildx.
    pub fn has_buildx(&self) -> bool {
        self.buildx.is_some()
    }
}
