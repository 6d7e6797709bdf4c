//! The real docker CLI against an engine under test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::process::{Finished, Program, Running};
use crate::pty::PtySession;

/// Drives `docker` (or another program that understands `DOCKER_HOST`) with a configuration directory of its own.
#[derive(Clone)]
pub struct DockerCli {
    program: PathBuf,
    host: String,
    config: Arc<TempDir>,
    api_version: Option<String>,
}

impl DockerCli {
    /// Points the docker CLI at the engine's unix socket.
    pub fn new(socket: &Path) -> anyhow::Result<Self> {
        let config = tempfile::Builder::new()
            .prefix("skiff-docker-")
            .tempdir()
            .context("make a configuration directory")?;
        Ok(Self {
            program: "docker".into(),
            host: format!("unix://{}", socket.display()),
            config: Arc::new(config),
            api_version: None,
        })
    }

    /// The engine's address, as `DOCKER_HOST` takes it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Drives another program in docker's place, for example `skiff`.
    #[must_use]
    pub fn with_program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Makes the CLI speak this API version (`DOCKER_API_VERSION`).
    #[must_use]
    pub fn with_api_version(mut self, version: &str) -> Self {
        self.api_version = Some(version.into());
        self
    }

    /// Prepares a command; the words of `line` are split at spaces.
    pub fn command(&self, line: &str) -> Program {
        self.command_args(line.split_whitespace())
    }

    /// Prepares a command from single arguments.
    pub fn command_args<S: Into<OsString>>(&self, arguments: impl IntoIterator<Item = S>) -> Program {
        let program = Program::new(&self.program)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", self.config.path())
            .env("DOCKER_CLI_HINTS", "false")
            .args(arguments);
        match &self.api_version {
            Some(version) => program.env("DOCKER_API_VERSION", version),
            None => program,
        }
    }

    /// Runs a command whose words contain no spaces.
    pub fn run(&self, line: &str) -> anyhow::Result<Finished> {
        self.command(line).run()
    }

    /// Runs a command given as single arguments.
    pub fn args(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        self.command_args(arguments.iter().copied()).run()
    }

    /// Runs `<line> sh -c <script>`: `sh("run --rm busybox", "exit 3")`.
    pub fn sh(&self, line: &str, script: &str) -> anyhow::Result<Finished> {
        self.command(line).args(["sh", "-c", script]).run()
    }

    /// Runs with these bytes as standard input.
    pub fn feed(&self, line: &str, stdin: impl Into<Vec<u8>>) -> anyhow::Result<Finished> {
        self.command(line).stdin(stdin).run()
    }

    /// Starts a command in the background.
    pub fn start(&self, line: &str) -> anyhow::Result<Running> {
        self.command(line).start()
    }

    /// Starts a command on a terminal of 80 × 24.
    pub fn terminal(&self, line: &str) -> anyhow::Result<PtySession> {
        PtySession::start(&self.command(line), 80, 24)
    }

    /// One `inspect --format` value of a container or image.
    pub fn inspect(&self, object: &str, format: &str) -> anyhow::Result<String> {
        Ok(self.args(&["inspect", "--format", format, object])?.ok()?.out().trim_end().to_owned())
    }

    /// Waits until `inspect` of the container shows this status.
    pub fn wait_for_status(&self, container: &str, status: &str, patience: Duration) -> anyhow::Result<()> {
        crate::wait_until(&format!("{container} to be {status}"), patience, || {
            (self.inspect(container, "{{.State.Status}}").ok()? == status).then_some(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_cli_runs_with_a_configuration_of_its_own() {
        let docker = DockerCli::new(Path::new("/nonexistent/docker.sock")).unwrap();
        docker.run("--version").unwrap().ok().unwrap().shows("Docker version").unwrap();
        let failed = docker.run("ps").unwrap().exits(1).unwrap();
        failed.complains("/nonexistent/docker.sock").unwrap();
        let context = docker.run("context ls --format {{.Name}}").unwrap().ok().unwrap();
        context.prints("default\n").unwrap();
    }
}
