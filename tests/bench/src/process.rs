//! Programs under measurement, ended with the value that holds them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// A child that gets SIGTERM, then SIGKILL, when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Names the directory of the programs to measure, while one works on the benchmarks themselves.
const PROGRAMS: &str = "SKIFF_PROGRAMS";

/// A program of the release build.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    if let Some(directory) = std::env::var_os(PROGRAMS) {
        return Ok(PathBuf::from(directory).join(name));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let path = root.join("target/release").join(name);
    if !path.is_file() {
        bail!("{} is missing: run scripts/build", path.display());
    }
    Ok(path)
}

/// The guest image of the build.
pub fn guest_image() -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest");
    path.canonicalize().context("target/guest is missing: run scripts/build")
}

/// Runs a command to its end and fails with its output when it does.
pub fn check(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
