//! Measures create + start + wait of `true`, beside `runc run` of the same root file system when runc is there.
//!
//! `cargo run -p skiff-runtime --example start [turns] [ballast MiB] [threads] [turns of runc]`: the ballast and the threads stand for a
//! busy engine, whose size is what a clone costs.

use rustix::process::{WaitId, WaitIdOptions, waitid};
use skiff_runtime::{Create, Io, Parent, RootFs, Stdio, create, default_spec};
use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let turns = arguments.next().transpose()?.unwrap_or(200);
    let ballast = vec![1u8; arguments.next().transpose()?.unwrap_or(0) << 20];
    for _ in 0..arguments.next().transpose()?.unwrap_or(0) {
        std::thread::spawn(std::thread::park);
    }
    let turns_of_runc = arguments.next().transpose()?.unwrap_or(20);
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("rootfs");
    for name in ["bin", "dev", "proc", "sys", "etc"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/true"))?;
    let mut spec = default_spec();
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(vec!["true".into()]));
    }
    let mut phases: [Vec<Duration>; 4] = std::array::from_fn(|_| Vec::with_capacity(turns));
    for turn in 0..turns {
        let rootfs = overlay(dir.path(), &root, turn)?;
        let null = || File::options().read(true).write(true).open("/dev/null").map(Into::into);
        let io = Io::Pipes(Stdio { stdin: null()?, stdout: null()?, stderr: null()? });
        let started = Instant::now();
        let parent = Parent::Caller;
        let created =
            create(Create { id: "bench", spec: &spec, rootfs, io, cgroup: None, netns: None, parent })?;
        let ready = started.elapsed();
        let running = created.start()?;
        let executed = started.elapsed();
        waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        let ended = started.elapsed();
        for (phase, time) in phases.iter_mut().zip([ready, executed - ready, ended - executed, ended]) {
            phase.push(time);
        }
    }
    println!("{} MiB of ballast, {turns} turns, medians (p90):", ballast.len() >> 20);
    for (name, times) in ["create", "start", "wait", "all"].iter().zip(&mut phases) {
        print(name, times);
    }
    runc(dir.path(), &spec, turns_of_runc)
}

fn overlay(dir: &Path, root: &Path, turn: usize) -> Result<RootFs, Box<dyn Error>> {
    let (upper, work) = (dir.join(format!("upper-{turn}")), dir.join(format!("work-{turn}")));
    std::fs::create_dir(&upper)?;
    std::fs::create_dir(&work)?;
    Ok(RootFs::Overlay { lower: vec![root.to_owned()], upper, work })
}

fn print(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).map_or(0.0, Duration::as_secs_f64) * 1e3;
    println!("  {name:8} {:7.3} ms ({:.3})", at(50), at(90));
}

fn runc(dir: &Path, spec: &oci_spec::runtime::Spec, turns: usize) -> Result<(), Box<dyn Error>> {
    std::fs::write(dir.join("config.json"), serde_json::to_vec(spec)?)?;
    let mut times = Vec::new();
    for turn in 0..turns {
        let started = Instant::now();
        let id = format!("skiff-bench-{}-{turn}", std::process::id());
        let mut command = std::process::Command::new("runc");
        let output = match command.arg("run").arg("--bundle").arg(dir).arg(id).output() {
            Ok(output) => output,
            Err(error) => {
                println!("  runc     cannot be run: {error}");
                return Ok(());
            }
        };
        if !output.status.success() {
            println!("  runc     failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
            return Ok(());
        }
        times.push(started.elapsed());
    }
    if !times.is_empty() {
        print("runc run", &mut times);
    }
    Ok(())
}
