//! The runtime as a command, beside runc on this host: the same bundle, the same mounts, namespaces and seccomp profile.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::process::{check, program};
use crate::run::bundle;
use crate::sample::Sample;

const ROUNDS: usize = 60;
/// How many containers run at once for the measure of memory.
const MANY: usize = 100;

/// One runtime's command line.
struct Runtime {
    name: &'static str,
    program: std::path::PathBuf,
    first: &'static [&'static str],
}

impl Runtime {
    fn command(&self, root: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.first).arg("--root").arg(root.join(self.name)).args(arguments).stdin(Stdio::null());
        command
    }

    fn time(&self, root: &Path, arguments: &[&str]) -> anyhow::Result<std::time::Duration> {
        let started = Instant::now();
        check(&mut self.command(root, arguments))?;
        Ok(started.elapsed())
    }
}

/// Prints the figures.
pub fn bench() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    let bundle = bundle(root)?;
    // Both with the profile of Docker, which runc's own default configuration lacks.
    let ours = root.join("ours");
    std::fs::create_dir(&ours)?;
    check(Command::new(program("skiff-agent")?).args(["oci", "spec", "--bundle"]).arg(&ours))?;
    let text = std::fs::read(ours.join("config.json"))?;
    let mut config: serde_json::Value = serde_json::from_slice(&text)?;
    config["process"]["terminal"] = false.into();
    let write = |arguments: &[&str], config: &mut serde_json::Value| -> anyhow::Result<()> {
        config["process"]["args"] = serde_json::json!(arguments);
        Ok(std::fs::write(bundle.join("config.json"), config.to_string())?)
    };
    let runtimes = [
        Runtime { name: "skiff", program: program("skiff-agent")?, first: &["oci"] },
        Runtime { name: "runc", program: "runc".into(), first: &[] },
    ];
    let place = bundle.display().to_string();

    write(&["true"], &mut config)?;
    let (mut run, mut exec, mut floor) =
        (<[Sample; 2]>::default(), <[Sample; 2]>::default(), Sample::default());
    for round in 0..ROUNDS + 5 {
        let started = Instant::now();
        check(&mut Command::new("/bin/true"))?;
        let alone = started.elapsed();
        for (runtime, sample) in runtimes.iter().zip(&mut run) {
            let time = runtime.time(root, &["run", "--bundle", &place, &format!("run{round}")])?;
            // The first rounds warm caches up.
            if round >= 5 {
                sample.push(time);
            }
        }
        if round >= 5 {
            floor.push(alone);
        }
    }
    write(&["sleep", "1000"], &mut config)?;
    for runtime in &runtimes {
        start(runtime.command(root, &["run", "--detach", "--bundle", &place, "exec"]))?;
    }
    for round in 0..ROUNDS + 5 {
        for (runtime, sample) in runtimes.iter().zip(&mut exec) {
            let time = runtime.time(root, &["exec", "exec", "true"])?;
            if round >= 5 {
                sample.push(time);
            }
        }
    }
    for runtime in &runtimes {
        check(&mut runtime.command(root, &["delete", "--force", "exec"]))?;
    }
    println!("runtime: run (create+start+wait+delete) of `true`, native");
    println!("  skiff-agent oci  {}", run[0]);
    println!("  runc             {}", run[1]);
    println!("  spawn of `true`  {floor}");
    println!("  ratio to runc    {:8.2}     (goal ≤ 0.60)", run[0].ratio(&run[1]));
    println!("runtime: exec of `true`, native");
    println!("  skiff-agent oci  {}", exec[0]);
    println!("  runc             {}", exec[1]);
    println!("  ratio to runc    {:8.2}     (goal ≤ 0.50)", exec[0].ratio(&exec[1]));
    many(&runtimes, root, &place)
}

/// Runs a command whose container lives on with its streams: a pipe would never end.
fn start(mut command: Command) -> anyhow::Result<()> {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Starts many containers, then removes them.
fn many(runtimes: &[Runtime], root: &Path, bundle: &str) -> anyhow::Result<()> {
    println!("runtime: {MANY} containers of `sleep`, started and removed one after the other");
    for runtime in runtimes {
        let before = available()?;
        let started = Instant::now();
        for number in 0..MANY {
            let id = format!("many{number}");
            start(runtime.command(root, &["run", "--detach", "--bundle", bundle, &id]))?;
        }
        let up = started.elapsed();
        let used = before.saturating_sub(available()?);
        let started = Instant::now();
        for number in 0..MANY {
            check(&mut runtime.command(root, &["delete", "--force", &format!("many{number}")]))?;
        }
        println!(
            "  {:<16} {:8.2} s up, {:.2} s down, {:.2} MiB of the machine's memory per container, no process beside it",
            runtime.name,
            up.as_secs_f64(),
            started.elapsed().as_secs_f64(),
            used as f64 / 1024.0 / MANY as f64,
        );
    }
    Ok(())
}

/// What the kernel could still give, in KiB.
fn available() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    Ok(line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0))
}
