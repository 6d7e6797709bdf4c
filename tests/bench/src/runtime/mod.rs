//! The runtime as a command, beside runc on this host and beside crun and runc in the guest (crun refuses machines with a
//! mixed cgroup hierarchy): the same bundle for all, with Docker's seccomp profile, all namespaces and a cgroup each.
//!
//! The guest's half is this program again, with the peers copied in, so that all are timed by one clock on one machine.

mod commands;
mod floor;
mod many;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::guest::{PLACE, copy_in, find};
use crate::http::Api;
use crate::process::{Running, check, guest_image, program};
use crate::run::bundle;

/// One runtime's command line.
pub struct Runtime {
    /// What it is called in the figures.
    pub name: &'static str,
    /// Its program.
    pub program: PathBuf,
}

impl Runtime {
    /// A command that keeps its state below `root`.
    pub fn command(&self, root: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.state(root)).args(arguments).stdin(Stdio::null());
        command
    }

    /// Where its state is below `root`, which may have the program under its name.
    pub fn state(&self, root: &Path) -> PathBuf {
        root.join(format!("state-{}", self.name))
    }
}

/// A bundle for every runtime, and a place for their state.
pub struct Bench {
    /// Where state may be written.
    pub root: PathBuf,
    /// The bundle.
    pub bundle: PathBuf,
    /// The runtimes, ours first.
    pub runtimes: Vec<Runtime>,
    /// Rounds of each measurement.
    pub rounds: usize,
}

impl Bench {
    /// The bundle as an argument.
    pub fn bundle(&self) -> &str {
        self.bundle.to_str().unwrap_or_default()
    }

    /// Sets the command of the next containers.
    pub fn write(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let path = self.bundle.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        config["process"]["args"] = serde_json::json!(arguments);
        Ok(std::fs::write(path, config.to_string())?)
    }
}

/// Prints the figures of this host and of the guest.
pub fn bench() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let own = program("skiff-oci")?;
    let native = Bench {
        root: directory.path().to_owned(),
        bundle: prepare(directory.path(), &own)?,
        runtimes: vec![
            Runtime { name: "skiff", program: own },
            Runtime { name: "runc", program: "runc".into() },
        ],
        rounds: 60,
    };
    println!("runtime: on this host");
    floor::measure(&native)?;
    commands::measure(&native)?;
    many::commands(&native)?;
    in_guest(directory.path(), &native.bundle)
}

/// A bundle with our own default configuration: it has Docker's profile, which runc's and crun's lack.
fn prepare(directory: &Path, own: &Path) -> anyhow::Result<PathBuf> {
    let bundle = bundle(directory)?;
    std::fs::remove_file(bundle.join("config.json"))?;
    check(Command::new(own).args(["spec", "--bundle"]).arg(&bundle))?;
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["terminal"] = false.into();
    // Debian's crun knows no newer one.
    config["ociVersion"] = "1.0.2".into();
    std::fs::write(path, config.to_string())?;
    Ok(bundle)
}

fn in_guest(directory: &Path, bundle: &Path) -> anyhow::Result<()> {
    let state = directory.join("state");
    std::fs::create_dir(&state)?;
    // Five hundred containers, twice.
    std::fs::write(state.join("settings.json"), r#"{"machine": {"memory_mib": 4096}}"#)?;
    let socket = directory.join("docker.sock");
    let mut daemon = Command::new(program("skiff")?);
    daemon.args(["daemon", "--backend", "qemu", "--state"]).arg(&state).arg("--socket").arg(&socket);
    daemon.env("SKIFF_GUEST_IMAGE", guest_image()?);
    let _daemon = Running(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    Api::wait(&socket, Duration::from_secs(120))?;
    let own = std::env::current_exe().context("this program has a path")?;
    let programs = [find("crun")?, find("runc")?, find("conmon")?, program("skiff-oci")?, own];
    copy_in(directory, &state, &programs, &[(bundle.to_owned(), "bundle")])?;
    let told = Command::new(program("skiff")?)
        .arg("--state")
        .arg(&state)
        .args(["machine", "ssh", "--", &format!("{PLACE}/skiff-bench runtime-inside")])
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .output()?;
    ensure!(told.status.success(), "in the guest: {}", String::from_utf8_lossy(&told.stderr).trim());
    Ok(())
}

/// The guest's half.
pub fn inside() -> anyhow::Result<()> {
    let place = Path::new(PLACE);
    let peer = |name: &'static str| Runtime { name, program: place.join(name) };
    let guest = Bench {
        root: place.to_owned(),
        bundle: place.join("bundle"),
        runtimes: vec![
            Runtime { name: "skiff", program: place.join("skiff-oci") },
            peer("crun"),
            peer("runc"),
        ],
        rounds: 10,
    };
    println!("runtime: in the guest (cgroup v2)");
    floor::measure(&guest)?;
    commands::measure(&guest)?;
    many::with_parents(&guest)
}
