//! One container at a time: run, the same in three commands, and exec.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::{Bench, Runtime};
use crate::process::check;
use crate::sample::Sample;

const WARM_UP: usize = 3;

/// Prints the figures.
pub fn measure(bench: &Bench) -> anyhow::Result<()> {
    bench.write(&["true"])?;
    // The first process of a container becomes ours when its creator ends, as conmon's and the shim's.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Further peers than the first are slow, and only looked at once.
    let (all, two) = (&bench.runtimes[..], &bench.runtimes[..2]);
    let run = rounds(bench, all, |runtime, round| {
        let id = format!("run{round}");
        timed(|| check(&mut runtime.command(&bench.root, &["run", "--bundle", bench.bundle(), &id])))
    })?;
    show(all, "run of `true`: create, start, wait and delete in one command", &run, 0.6);
    let apart =
        rounds(bench, two, |runtime, round| timed(|| in_turn(bench, runtime, &format!("apart{round}"))))?;
    show(two, "create, start, wait, delete of `true`, a command each", &apart, 0.6);

    bench.write(&["sleep", "1000"])?;
    for runtime in two {
        start(runtime.command(&bench.root, &["run", "--detach", "--bundle", bench.bundle(), "exec"]))?;
    }
    let exec = rounds(bench, two, |runtime, _| {
        timed(|| check(&mut runtime.command(&bench.root, &["exec", "exec", "true"])))
    })?;
    for runtime in two {
        check(&mut runtime.command(&bench.root, &["delete", "--force", "exec"]))?;
    }
    show(two, "exec of `true` in a running container", &exec, 0.5);
    Ok(())
}

fn rounds(
    bench: &Bench,
    runtimes: &[Runtime],
    mut one: impl FnMut(&Runtime, usize) -> anyhow::Result<Duration>,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples: Vec<Sample> = runtimes.iter().map(|_| Sample::default()).collect();
    for round in 0..WARM_UP + bench.rounds {
        for (runtime, sample) in runtimes.iter().zip(&mut samples) {
            let took = one(runtime, round)?;
            if round >= WARM_UP {
                sample.push(took);
            }
        }
    }
    Ok(samples)
}

fn timed(act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let started = Instant::now();
    act()?;
    Ok(started.elapsed())
}

fn show(runtimes: &[Runtime], what: &str, samples: &[Sample], goal: f64) {
    println!("  {what}");
    let ours = &samples[0];
    for (runtime, sample) in runtimes.iter().zip(samples) {
        println!("    {:<8} {sample}", runtime.name);
    }
    for (runtime, sample) in runtimes.iter().zip(samples).skip(1) {
        // The goal is set beside crun, wherever that runs.
        let goal = if runtime.name == "crun" { format!("     (goal ≤ {goal:.2})") } else { String::new() };
        println!("    ratio to {:<6} {:8.2}{goal}", runtime.name, ours.ratio(sample));
    }
}

/// What conmon or a shim does in the life of a container.
fn in_turn(bench: &Bench, runtime: &Runtime, id: &str) -> anyhow::Result<()> {
    let file = bench.root.join("pid");
    let name = file.to_str().context("the place is no text")?;
    start(runtime.command(&bench.root, &["create", "--pid-file", name, "--bundle", bench.bundle(), id]))?;
    let pid = read_pid(&file)?;
    start(runtime.command(&bench.root, &["start", id]))?;
    let (_, status) = waitpid(Some(pid), WaitOptions::empty())?.context("a child ends")?;
    ensure!(status.exit_status() == Some(0), "{}: `true` ended with {status:?}", runtime.name);
    start(runtime.command(&bench.root, &["delete", id]))
}

/// The process that a runtime has written the id of.
pub fn read_pid(file: &Path) -> anyhow::Result<Pid> {
    let text = std::fs::read_to_string(file)?;
    Pid::from_raw(text.trim().parse()?).context("no process has the id 0")
}

/// Runs a command whose container lives on with its streams: a pipe would never end.
pub fn start(mut command: Command) -> anyhow::Result<()> {
    let mut told = tempfile::tempfile()?;
    let status = command.stdout(Stdio::null()).stderr(told.try_clone()?).status()?;
    if !status.success() {
        use std::io::{Read as _, Seek as _};
        let mut text = String::new();
        told.rewind()?;
        told.read_to_string(&mut text)?;
        anyhow::bail!("{command:?}: {status}: {}", text.trim());
    }
    Ok(())
}
