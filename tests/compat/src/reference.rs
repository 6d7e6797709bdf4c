//! Debian's dockerd, in namespaces of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use rustix::process::Signal;
use skiff_testkit::process::{Program, Running};
use skiff_testkit::{DockerCli, http, wait_until};
use tempfile::TempDir;

use crate::{images, workspace};

/// The script's exit code for "not possible here".
const NOT_HERE: i32 = 77;
/// Fetching the packages takes most of it.
const START_PATIENCE: Duration = Duration::from_secs(300);

/// A running dockerd with the images that suites want. It ends when dropped.
pub struct Reference {
    directory: TempDir,
    process: Option<Running>,
}

impl Reference {
    /// Starts it and waits until it answers; `None`, with the reason printed, where the machine does not allow it.
    ///
    /// # Errors
    /// When it could be started but does not serve.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let directory = tempfile::Builder::new().prefix("skiff-reference-").tempdir()?;
        let script = workspace().join("tests/compat/reference");
        let mut process = Program::new(script).args([directory.path()]).start()?;
        let socket = directory.path().join("docker.sock");
        let mut ended = false;
        wait_until("the reference engine", START_PATIENCE, || {
            ended = !process.is_running();
            let up =
                http::unix_request("GET", &socket, "/_ping", &[]).is_ok_and(|answer| answer.status == 200);
            (up || ended).then_some(())
        })?;
        if ended {
            let finished = process.finish(Duration::from_secs(1))?;
            if finished.exits(NOT_HERE).inspect(|finished| eprint!("{}", finished.err())).is_ok() {
                return Ok(None);
            }
            let log = std::fs::read_to_string(directory.path().join("dockerd.log")).unwrap_or_default();
            bail!("the reference engine ended\n{log}");
        }
        let reference = Self { directory, process: Some(process) };
        let docker = reference.docker()?;
        images::load(&docker)?;
        images::push_through(&docker, "127.0.0.1:5000")?;
        Ok(Some(reference))
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// A docker CLI for it.
    ///
    /// # Errors
    /// When there is no room for its configuration.
    pub fn docker(&self) -> anyhow::Result<DockerCli> {
        DockerCli::new(&self.socket())
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let _ = process.signal(Signal::TERM);
            let _ = process.finish(Duration::from_secs(30));
        }
    }
}
