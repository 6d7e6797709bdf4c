//! Compose projects of the kind that people have, and what docker compose says about each on dockerd.
//!
//! A project is a directory below `compose`: its files, `steps` with a shell command in each line, and `expected.txt`, which
//! is what the steps print on Debian's dockerd. `SKIFF_RECORD=1` with `--reference` writes that anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use regex::Regex;
use skiff_testkit::{DockerCli, NativeEngine, Program, binaries};

use crate::{Exceptions, Reference, images, workspace};

/// What nobody promises: times, ids, addresses and ports that are chosen, and what goes on while others wait.
const CHANGING: [(&str, &str); 14] = [
    (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
    (r"\b[0-9a-f]{64}\b", "<id>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"(Less than a|About a|About an|\d+) (second|minute|hour)s?\b", "<time>"),
    (r"\b\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)", "<when>"),
    (r"\b172\.\d+\.\d+\.\d+", "<ip>"),
    (r"\b192\.168\.\d+\.\d+", "<ip>"),
    (r"\b02:42:ac:[0-9a-f:]{8}", "<mac>"),
    (r"127\.0\.0\.1:[3-6]\d{4}\b", "127.0.0.1:<port>"),
    (r"(0\.0\.0\.0|\[::\]):[3-6]\d{4}\b", "$1:<port>"),
    (r"\b\d+(\.\d+)?s\b", "<time>"),
    (r"/tmp/skiff-compose-[A-Za-z0-9]+/[a-z]+", "<project>"),
    (r"\(by [^()]*, pid \d+\)", "(by <process>)"),
    (r"[ \t]+", " "),
];
/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs every project against `skiff-agent serve`, and against the reference engine when `compare` and the machine can.
///
/// # Errors
/// When a step prints something else than `expected.txt` has and this is no exception.
pub fn check(compare: bool) -> anyhow::Result<()> {
    let program = binaries::target_directory().join("tools/docker-compose");
    if !program.is_file() {
        println!(
            "compose: skipped: docker compose is not in target/tools (scripts/fetch-clients puts it there)"
        );
        return Ok(());
    }
    let mut wrong = Vec::new();
    let record = compare && std::env::var_os("SKIFF_RECORD").is_some();
    if let Some(reference) = compare.then(Reference::start).transpose()?.flatten() {
        wrong.extend(run("compose-dockerd", &reference.docker()?, &program)?);
        if record {
            return Ok(());
        }
    }
    let mut engine = NativeEngine::start()?;
    let docker = engine.docker()?;
    images::load(&docker)?;
    wrong.extend(run("compose", &docker, &program)?);
    engine.stop()?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn run(suite: &str, docker: &DockerCli, program: &Path) -> anyhow::Result<Vec<String>> {
    let exceptions = Exceptions::of(suite)?;
    let record = suite == "compose-dockerd" && std::env::var_os("SKIFF_RECORD").is_some();
    let wanted = std::env::var("SKIFF_PROJECT").unwrap_or_default();
    // The words' borders and digits of this world are enough, and all that the crate knows here.
    let changing = CHANGING
        .iter()
        .map(|(pattern, with)| Ok((Regex::new(&ascii(pattern))?, *with)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut wrong = Vec::new();
    let mut steps = 0;
    for project in projects()? {
        let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.contains(&wanted) {
            continue;
        }
        let seen = play(docker, program, &project, &name, &changing).with_context(|| name.clone())?;
        let file = project.join("expected.txt");
        if record {
            fs::write(&file, seen.concat()).with_context(|| format!("write {}", file.display()))?;
        }
        let expected = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let expected: Vec<String> =
            expected.split_inclusive("\n\n").map(|step| step.trim_end().to_owned()).collect();
        steps += seen.len();
        ensure!(expected.len() == seen.len(), "{name}: {} steps, {} expected", seen.len(), expected.len());
        for (number, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
            let step = format!("{name}/{}", number + 1);
            if seen.trim_end() == expected {
                continue;
            }
            match exceptions.reason(&step) {
                Some(reason) => println!("{suite}: {step}: {reason}"),
                None => wrong.push(format!("{suite}: {step}:\n{}", difference(expected, seen.trim_end()))),
            }
        }
    }
    println!("{suite}: {} of {steps} steps as expected", steps - wrong.len());
    if wanted.is_empty() {
        let unused = exceptions.unused();
        wrong.extend(
            unused.iter().map(|step| format!("{suite}: the exception for {step} is not needed any more")),
        );
    }
    Ok(wrong)
}

/// Words' borders and digits of ASCII, which are all that the crate knows without its tables.
fn ascii(pattern: &str) -> String {
    pattern.replace(r"\d", "[0-9]").replace(r"\b", r"(?-u:\b)")
}

fn projects() -> anyhow::Result<Vec<PathBuf>> {
    let directory = workspace().join("tests/compat/compose");
    let mut all: Vec<PathBuf> = fs::read_dir(&directory)
        .with_context(|| format!("read {}", directory.display()))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    all.sort();
    Ok(all)
}

/// Plays the steps in a copy of the project; each becomes its command, its exit code and what it printed.
fn play(
    docker: &DockerCli,
    program: &Path,
    project: &Path,
    name: &str,
    changing: &[(Regex, &str)],
) -> anyhow::Result<Vec<String>> {
    let place = tempfile::Builder::new().prefix("skiff-compose-").tempdir_in("/tmp")?;
    let copy = Program::new("cp").args(["-r".as_ref(), project.as_os_str(), place.path().as_os_str()]);
    copy.run()?.ok()?;
    let directory = place.path().join(name);
    fs::write(
        directory.join(".shell"),
        "compose() { \"$COMPOSE\" --progress plain --ansi never \"$@\"; }\n",
    )?;
    let text = fs::read_to_string(project.join("steps")).context("read its steps")?;
    let mut steps = Vec::new();
    for line in text.lines() {
        let script = format!("cd '{}' && . ./.shell\n{line}\n", directory.display());
        let step = docker.command_args(["context", "show"]);
        let step = step.as_program("sh").args(["-c", &script]).env("COMPOSE", program);
        let finished = step.env("COMPOSE_PROJECT_NAME", name).env("LC_ALL", "C").timeout(PATIENCE).run()?;
        let calm = |text: String| {
            changing.iter().fold(text, |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
        };
        let mut shown = format!("$ {line}\n");
        if finished.code != 0 {
            let _ = writeln!(shown, "exit code {}", finished.code);
        }
        for line in calm(finished.out()).lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(shown, "{}", line.trim_end());
        }
        // Containers that come and go side by side do so in any order.
        let told = calm(finished.err());
        let told: BTreeSet<&str> =
            told.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).collect();
        for line in told {
            let _ = writeln!(shown, "! {}", line.trim_start());
        }
        shown.push('\n');
        steps.push(shown);
    }
    let end = format!(
        "cd '{}' && . ./.shell\ncompose --profile '*' down -v -t 0 --remove-orphans",
        directory.display()
    );
    let end = docker.command_args(["context", "show"]).as_program("sh").args(["-c", &end]);
    end.env("COMPOSE", program).env("COMPOSE_PROJECT_NAME", name).timeout(PATIENCE).run()?;
    Ok(steps)
}

/// Lines that only one of two texts has, in their order.
fn difference(expected: &str, seen: &str) -> String {
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    let (expected, seen) = (lines(expected), lines(seen));
    let mut text = format!("  {}\n", expected.first().cloned().unwrap_or_default());
    for line in expected.iter().filter(|line| !seen.contains(line)) {
        let _ = writeln!(text, "  - {line}");
    }
    for line in seen.iter().filter(|line| !expected.contains(line)) {
        let _ = writeln!(text, "  + {line}");
    }
    if text.lines().count() == 1 {
        text.push_str("  (the same lines in another order)\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_taken_out() {
        let calm = |text: &str| {
            CHANGING.iter().fold(text.to_owned(), |text, (pattern, with)| {
                Regex::new(&ascii(pattern)).unwrap().replace_all(&text, *with).into_owned()
            })
        };
        assert_eq!(calm("Up 3 seconds  (healthy)"), "Up <time> (healthy)");
        assert_eq!(calm("0.0.0.0:32768->80/tcp 127.0.0.1:24610"), "0.0.0.0:<port>->80/tcp 127.0.0.1:24610");
        assert_eq!(calm("at 172.18.0.2 for 1.5s"), "at <ip> for <time>");
    }

    #[test]
    fn a_difference_names_the_step_and_what_only_one_has() {
        assert_eq!(difference("$ x\na\nb", "$ x\na\nc"), "  $ x\n  - b\n  + c\n");
        assert_eq!(difference("$ x\na\nb", "$ x\nb\na"), "  $ x\n  (the same lines in another order)\n");
    }
}
