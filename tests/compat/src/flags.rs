//! `docker run` with each flag of its help.

mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use skiff_testkit::{DockerCli, NativeEngine, process::Finished};

use crate::{Exceptions, Reference, images};
use table::{Expect, ROWS, Row};

/// The name of every container that a row makes.
const SUBJECT: &str = "flag";

/// Runs the table against `skiff-agent serve`, and against the reference engine when `compare` and the machine can.
///
/// # Errors
/// When an engine does not do what the table says and this is no exception, or a flag has no row.
pub fn check(compare: bool) -> anyhow::Result<()> {
    let mut engine = NativeEngine::start()?;
    let docker = engine.docker()?;
    images::load(&docker)?;
    every_flag_has_a_row(&docker)?;
    let mut wrong = run("flags", &docker)?;
    engine.stop()?;
    if let Some(reference) = compare.then(Reference::start).transpose()?.flatten() {
        wrong.extend(run("flags-dockerd", &reference.docker()?)?);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn every_flag_has_a_row(docker: &DockerCli) -> anyhow::Result<()> {
    let help = docker.run("run --help")?.ok()?.out();
    let flag = |line: &str| -> Option<String> {
        let line = line.trim_start();
        let long = line.strip_prefix("--").or_else(|| {
            line.split_once(", --").filter(|(short, _)| short.len() == 2).map(|(_, long)| long)
        })?;
        Some(long.split(|letter: char| letter != '-' && !letter.is_ascii_alphanumeric()).next()?.to_owned())
    };
    let known: BTreeSet<_> = ROWS.iter().map(|row| row.flag.to_owned()).collect();
    let asked: BTreeSet<_> = help.lines().filter_map(flag).filter(|flag| flag != "help").collect();
    ensure!(asked.len() > 90, "the help of docker run is read wrongly: {asked:?}");
    let missing: Vec<_> = asked.difference(&known).collect();
    ensure!(missing.is_empty(), "flags without a row: {missing:?}");
    Ok(())
}

fn run(suite: &str, docker: &DockerCli) -> anyhow::Result<Vec<String>> {
    let exceptions = Exceptions::of(suite)?;
    let directory = tempfile::Builder::new().prefix("skiff-flags-").tempdir()?;
    fs::write(directory.path().join("env"), "FROM_FILE=yes\n")?;
    fs::write(directory.path().join("label"), "from=file\n")?;
    docker.run("network create --subnet 10.213.47.0/24 flag-net")?.ok()?;
    docker.run("run -d --name peer --ipc shareable -v /shared busybox sleep 1000")?.ok()?;
    let mut wrong = Vec::new();
    let mut right = 0;
    for row in ROWS {
        let outcome = attempt(docker, row, directory.path());
        docker.args(&["rm", "-f", "-v", SUBJECT])?;
        match outcome {
            Ok(()) => right += 1,
            Err(error) => match exceptions.reason(row.flag) {
                Some(reason) => println!("{suite}: --{}: {reason}", row.flag),
                None => wrong.push(format!("{suite}: --{} ({}): {error:#}", row.flag, row.options)),
            },
        }
    }
    println!("{suite}: {right} of {} rows as expected", ROWS.len());
    docker.run("rm -f -v peer")?.ok()?;
    docker.run("network rm flag-net")?.ok()?;
    let unused = exceptions.unused();
    wrong.extend(
        unused.iter().map(|flag| format!("{suite}: the exception for --{flag} is not needed any more")),
    );
    Ok(wrong)
}

fn attempt(docker: &DockerCli, row: &Row, directory: &Path) -> anyhow::Result<()> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let fill =
        |text: &str| text.replace("{dir}", &directory.display().to_string()).replace("{arch}", architecture);
    let mut words = vec!["run".to_owned()];
    if row.flag != "name" {
        words.extend(["--name".to_owned(), SUBJECT.to_owned()]);
    }
    words.extend(row.options.split_whitespace().map(fill));
    words.push("busybox".to_owned());
    if !row.command.is_empty() {
        words.extend(["sh".to_owned(), "-c".to_owned(), fill(row.command)]);
    }
    let finished = docker.command_args(words).stdin("typed\n").run()?;
    judge(docker, row, finished).with_context(|| "not as the table says".to_owned())
}

fn judge(docker: &DockerCli, row: &Row, finished: Finished) -> anyhow::Result<()> {
    match row.expect {
        Expect::Prints(text) => finished.ok()?.shows(text).map(drop),
        Expect::Exits(code) => finished.exits(code).map(drop),
        Expect::Refused(text) => {
            ensure!(
                [125, 126, 127, 1].contains(&finished.code),
                "it ran: code {}, {}",
                finished.code,
                finished.out()
            );
            finished.complains(text).map(drop)
        }
        Expect::Inspect(format, value) => {
            finished.ok()?;
            let shown = docker.args(&["inspect", "--format", format, SUBJECT])?.ok()?.out();
            if shown.trim() != value {
                bail!("inspect shows {:?} instead of {value:?}", shown.trim());
            }
            Ok(())
        }
    }
}
