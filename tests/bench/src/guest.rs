//! `true` in a container, inside the guest: our API beside crun and runc.
//!
//! crun refuses hosts with hybrid cgroups, so both run where cgroup v2 is. The peers and this program are copied into
//! the guest; there this program plays both sides in turns, so that all are timed by one clock on one machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::http::Api;
use crate::process::{Running, check, guest_image, program};
use crate::run::{IMAGE, bundle};
use crate::sample::Sample;

const ROUNDS: usize = 25;
const WARM_UP: usize = 3;
/// Where the copies are in the guest.
pub const PLACE: &str = "/run/bench";
/// Where the engine listens in the guest.
pub const SOCKET: &str = "/run/skiff/docker.sock";

/// Prints the figures.
pub fn bench() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    let socket = directory.path().join("docker.sock");
    let mut daemon = Command::new(program("skiff")?);
    daemon.args(["daemon", "--backend", "qemu", "--state"]).arg(&state).arg("--socket").arg(&socket);
    daemon.env("SKIFF_GUEST_IMAGE", guest_image()?);
    let _daemon = Running(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    Api::wait(&socket, Duration::from_secs(120))?;
    let programs =
        [find("crun")?, find("runc")?, std::env::current_exe().context("this program has a path")?];
    copy_in(directory.path(), &state, &programs, &[(bundle(directory.path())?, "bundle")])?;

    let told = Command::new(program("skiff")?)
        .arg("--state")
        .arg(&state)
        .args(["machine", "ssh", "--", &format!("{PLACE}/skiff-bench inside")])
        .stdin(Stdio::null())
        .output()?;
    ensure!(told.status.success(), "in the guest: {}", String::from_utf8_lossy(&told.stderr).trim());
    let text = String::from_utf8(told.stdout)?;
    let sample = |name: &str| -> anyhow::Result<Sample> {
        let mut sample = Sample::default();
        for figure in text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')) {
            sample.push(Duration::from_nanos(figure.parse()?));
        }
        ensure!(sample.median() > Duration::ZERO, "no figures of {name} came out of the guest: {text:?}");
        Ok(sample)
    };
    let (ours, crun, runc) = (sample("skiff")?, sample("crun")?, sample("runc")?);
    println!("run: create+start+wait+remove of `true`, inside the guest (cgroup v2)");
    println!("  skiff API  {ours}");
    println!("  crun run   {crun}");
    println!("  runc run   {runc}");
    println!(
        "  ratio      {:8.2}     to crun (goal < 1), {:.2} to runc",
        ours.ratio(&crun),
        ours.ratio(&runc)
    );
    Ok(())
}

/// Plays both sides; this part runs in the guest and prints a line for each round.
pub fn inside() -> anyhow::Result<()> {
    let mut api = Api::connect(Path::new(SOCKET))?;
    for round in 0..WARM_UP + ROUNDS {
        let ours = api.run_true(IMAGE)?;
        let crun = run_peer("crun", round)?;
        let runc = run_peer("runc", round)?;
        if round >= WARM_UP {
            for (name, took) in [("skiff", ours), ("crun", crun), ("runc", runc)] {
                println!("{name} {}", took.as_nanos());
            }
        }
    }
    Ok(())
}

fn run_peer(name: &str, round: usize) -> anyhow::Result<Duration> {
    let started = Instant::now();
    check(
        Command::new(format!("{PLACE}/{name}"))
            .args(["--root", &format!("{PLACE}/state-{name}"), "run", "--bundle", &format!("{PLACE}/bundle")])
            .arg(format!("{name}{round}")),
    )?;
    Ok(started.elapsed())
}

/// Copies programs with their libraries, and other files, into the guest.
pub fn copy_in(
    directory: &Path,
    state: &Path,
    programs: &[PathBuf],
    others: &[(PathBuf, &str)],
) -> anyhow::Result<()> {
    let stage = directory.join("stage");
    let place = stage.join(PLACE.trim_start_matches('/'));
    fs::create_dir_all(&place)?;
    for program in programs {
        let name = program.file_name().context("a program has a name")?;
        fs::copy(program, place.join(name))?;
        copy_libraries(program, &stage)?;
    }
    for (from, name) in others {
        fs::rename(from, place.join(name))?;
    }
    let mut packer =
        Command::new("tar").arg("-C").arg(&stage).args(["-cf", "-", "."]).stdout(Stdio::piped()).spawn()?;
    let archive = packer.stdout.take().context("piped")?;
    let unpacked = Command::new(program("skiff")?)
        .arg("--state")
        .arg(state)
        .args(["machine", "ssh", "--", "busybox tar -C / -xf -"])
        .stdin(archive)
        .output()?;
    ensure!(unpacked.status.success(), "copy: {}", String::from_utf8_lossy(&unpacked.stderr).trim());
    ensure!(packer.wait()?.success(), "tar failed");
    Ok(())
}

/// A peer's program.
pub fn find(name: &str) -> anyhow::Result<PathBuf> {
    for directory in ["/usr/bin", "/usr/sbin"] {
        let path = Path::new(directory).join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is missing: run scripts/setup bench")
}

/// Copies the shared libraries of a program below a directory, each to its own path.
pub fn copy_libraries(program: &Path, root: &Path) -> anyhow::Result<()> {
    for library in libraries(program)? {
        let target = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(target.parent().context("a library is in a directory")?)?;
        fs::copy(&library, target)?;
    }
    Ok(())
}

/// The shared libraries of a program, the dynamic linker among them.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output().context("start ldd")?;
    let text = String::from_utf8(listed.stdout)?;
    let paths = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(paths.collect())
}
