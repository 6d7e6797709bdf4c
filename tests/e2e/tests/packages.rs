//! The Linux packages: built, installed into a root of their own, run, and removed without a trace.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use skiff_testkit::binaries::{desktop, programs};
use skiff_testkit::{Program, wait_until};

/// A guest boots in it, under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

fn builder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../installers/linux/build")
}

/// Builds a package and gives its file.
fn package(kind: &str) -> anyhow::Result<PathBuf> {
    let arguments = ["--programs".into(), programs()?, "--window".into(), desktop()?, kind.into()];
    let built = Program::new(builder()).args(arguments).timeout(PATIENCE).run()?.ok()?;
    Ok(PathBuf::from(built.out().trim()))
}

/// Files below a directory, as paths from there.
fn files(root: &Path) -> anyhow::Result<Vec<String>> {
    let found = Program::new("find")
        .args([root.as_os_str(), "!".as_ref(), "-type".as_ref(), "d".as_ref()])
        .run()?
        .ok()?;
    let prefix = root.display().to_string();
    let mut files: Vec<_> =
        found.out().lines().map(|line| line.trim_start_matches(&prefix).to_owned()).collect();
    files.sort();
    Ok(files)
}

/// What belongs to the package and not to the list of what is installed.
fn installed(root: &Path) -> anyhow::Result<Vec<String>> {
    Ok(files(root)?.into_iter().filter(|file| !file.starts_with("/var/lib/")).collect())
}

const WANTED: [&str; 10] = [
    "/usr/bin/skiff",
    "/usr/bin/skiff-agent",
    "/usr/bin/skiff-desktop",
    "/usr/bin/skiff-oci",
    "/usr/lib/systemd/user/skiff.service",
    "/usr/share/applications/dev.skiff.Desktop.desktop",
    "/usr/share/doc/skiff/copyright",
    "/usr/share/icons/hicolor/128x128/apps/skiff.png",
    "/usr/share/icons/hicolor/scalable/apps/skiff.svg",
    "/usr/share/skiff/guest/manifest.json",
];

fn has_all(root: &Path) -> anyhow::Result<()> {
    let files = installed(root)?;
    for wanted in WANTED {
        ensure!(files.iter().any(|file| file == wanted), "{wanted} is missing in {files:?}");
    }
    ensure!(files.iter().all(|file| file.starts_with("/usr/")), "something outside of /usr: {files:?}");
    Ok(())
}

/// A daemon that a command has started.
struct Daemon(PathBuf);

impl Daemon {
    fn pid(&self) -> Option<Pid> {
        let pid = std::fs::read_to_string(self.0.join("lock")).ok()?;
        let pid = Pid::from_raw(pid.lines().next()?.parse().ok()?)?;
        rustix::process::test_kill_process(pid).ok().map(|()| pid)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::TERM);
            let _ = wait_until("the daemon to end", PATIENCE, || self.pid().is_none().then_some(()));
        }
    }
}

#[test]
fn the_debian_package_runs_a_container_in_its_own_guest_and_leaves_nothing() -> anyhow::Result<()> {
    let file = package("deb")?;
    let directory = tempfile::Builder::new().prefix("skiff-deb-").tempdir()?;
    let root = directory.path().join("root");
    for path in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        std::fs::create_dir_all(root.join(path))?;
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "")?;
    let dpkg = |arguments: &[&str]| {
        let log = format!("--log={}", directory.path().join("log").display());
        let first = [format!("--root={}", root.display()), log];
        Program::new("dpkg").args(first).args(arguments.iter().copied()).timeout(PATIENCE).run()
    };
    dpkg(&["-i", file.to_str().context("a path that is text")?])?.ok()?;
    has_all(&root)?;
    dpkg(&["--verify", "skiff"])?.ok()?.prints("")?;
    let fields = Program::new("dpkg-deb").args(["-f".into(), file.clone()]).run()?.ok()?;
    fields.shows("Package: skiff\n")?.shows("Recommends: qemu-system-x86")?;
    let scripts = Program::new("dpkg-deb").args(["-I".into(), file]).run()?.ok()?;
    ensure!(!scripts.out().contains("postinst") && !scripts.out().contains("prerm"), "{}", scripts.out());

    let state = directory.path().join("state");
    std::fs::create_dir(&state)?;
    std::fs::write(state.join("settings.json"), r#"{"names": {"enabled": false}}"#)?;
    let daemon = Daemon(state.clone());
    let skiff = |line: &str| {
        Program::new(root.join("usr/bin/skiff"))
            .env("HOME", directory.path())
            .env("SKIFF_STATE", &state)
            .args(line.split_whitespace())
            .timeout(PATIENCE)
            .run()
    };
    let version = env!("CARGO_PKG_VERSION");
    skiff("--version")?.ok()?.shows(version)?;
    skiff("run --rm skiff/toolbox echo hello from the package")?.ok()?.prints("hello from the package\n")?;
    let daemon_program = std::fs::read_link(format!(
        "/proc/{}/exe",
        daemon.pid().context("there is no daemon")?.as_raw_nonzero()
    ))?;
    ensure!(daemon_program.starts_with(&root), "{} is not the package's", daemon_program.display());
    drop(daemon);

    dpkg(&["--purge", "skiff"])?.ok()?;
    ensure!(installed(&root)?.is_empty(), "left behind: {:?}", installed(&root)?);
    ensure!(!root.join("usr/share/skiff").exists(), "an empty directory is left behind");
    Ok(())
}

#[test]
fn the_rpm_package_installs_tells_its_version_and_leaves_nothing() -> anyhow::Result<()> {
    let file = package("rpm")?;
    let directory = tempfile::Builder::new().prefix("skiff-rpm-").tempdir()?;
    let root = directory.path().join("root");
    std::fs::create_dir(&root)?;
    let rpm = |arguments: &[&str]| {
        let first = ["--root", root.to_str().unwrap_or_default(), "--dbpath", "/var/lib/rpm"];
        Program::new("rpm").args(first).args(arguments.iter().copied()).timeout(PATIENCE).run()
    };
    rpm(&["-i", file.to_str().context("a path that is text")?])?.ok()?;
    has_all(&root)?;
    let owners = rpm(&["-q", "--qf", "[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]", "skiff"])?.ok()?;
    ensure!(owners.out().lines().all(|line| line == "root:root"), "{}", owners.out());
    rpm(&["-q", "--scripts", "skiff"])?.ok()?.prints("")?;
    let version =
        Program::new(root.join("usr/bin/skiff")).env("HOME", directory.path()).args(["--version"]).run()?;
    version.ok()?.shows(env!("CARGO_PKG_VERSION"))?;
    rpm(&["-e", "skiff"])?.ok()?;
    ensure!(installed(&root)?.is_empty(), "left behind: {:?}", installed(&root)?);
    ensure!(!root.join("usr/share/skiff").exists(), "an empty directory is left behind");
    Ok(())
}
