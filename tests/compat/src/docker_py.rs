//! docker-py's own integration suite, from its source distribution.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use skiff_testkit::{DockerCli, NativeEngine, Program, Registry};

use crate::outcome::{self, Outcome, Outcomes};
use crate::{Reference, images, store, workspace};

const RELEASE: &str = "docker-7.0.0";
const INSTALL_PATIENCE: Duration = Duration::from_secs(300);
const SUITE_PATIENCE: Duration = Duration::from_secs(1200);

/// Runs the suite against `skiff-agent serve`, and against the reference engine when `compare` and the machine can;
/// prints both counts.
///
/// # Errors
/// When a test fails that is no exception, or an exception is not needed.
pub fn check(compare: bool) -> anyhow::Result<()> {
    let suite = Suite::prepare()?;
    let ours = suite.against_ours()?;
    outcome::count("docker-py", "ours", &ours)?;
    let theirs = match compare.then(Reference::start).transpose()?.flatten() {
        Some(reference) => {
            let theirs = suite.run("reference", &reference.socket())?;
            outcome::count("docker-py", "dockerd", &theirs)?;
            Some(theirs)
        }
        None => None,
    };
    outcome::judge("docker-py", &ours, theirs.as_ref(), &suite.log("ours"))
}

/// The unpacked suite and the Python it runs in.
struct Suite(PathBuf);

impl Suite {
    /// Fetches release and dependencies, all of them pinned by hash, unless they are there.
    fn prepare() -> anyhow::Result<Self> {
        let lock = workspace().join("tests/compat/docker-py.lock");
        let pinned = fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
        let suite = Self(store().join("docker-py"));
        let done = suite.0.join("done");
        if fs::read_to_string(&done).is_ok_and(|text| text == pinned) {
            return Ok(suite);
        }
        let _ = fs::remove_dir_all(&suite.0);
        fs::create_dir_all(&suite.0)?;
        let release = suite.0.join("release.lock");
        fs::write(&release, entry(&pinned, "docker==").context("docker is not in the lock file")?)?;
        let run = |program: &Path, arguments: &[&str]| {
            Program::new(program)
                .args(arguments.iter().copied())
                .timeout(INSTALL_PATIENCE)
                .run()?
                .ok()
                .map(drop)
        };
        let inside = |name: &str| suite.0.join(name).display().to_string();
        run(Path::new("python3"), &["-m", "venv", &inside("venv")])?;
        let lock = lock.display().to_string();
        let pip = ["-m", "pip", "-q", "--disable-pip-version-check"];
        let install = ["install", "--require-hashes", "--only-binary", ":all:", "-r", &lock];
        run(&suite.python(), &[&pip[..], &install].concat())?;
        // Tests are in the source distribution alone. 7.0.0 is the last release whose distribution has them.
        let (directory, release) = (inside(""), inside("release.lock"));
        let download =
            ["download", "--require-hashes", "--no-deps", "--no-build-isolation", "--no-binary", "docker"];
        run(&suite.python(), &[&pip[..], &download, &["-d", &directory, "-r", &release]].concat())?;
        let archive = inside(&format!("{RELEASE}.tar.gz"));
        run(Path::new("tar"), &["-xzf", &archive, "-C", &directory])?;
        fs::write(done, pinned)?;
        Ok(suite)
    }

    fn python(&self) -> PathBuf {
        self.0.join("venv/bin/python")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }

    fn against_ours(&self) -> anyhow::Result<Outcomes> {
        let registry = Registry::start()?;
        images::push(&registry)?;
        let mut engine = NativeEngine::with_mirrors(&[registry.url()])?;
        images::load(&DockerCli::new(&engine.socket())?)?;
        let outcomes = self.run("ours", &engine.socket())?;
        engine.stop()?;
        Ok(outcomes)
    }

    fn run(&self, name: &str, socket: &Path) -> anyhow::Result<Outcomes> {
        // Contexts and credentials of the suite are not to meet those of the person who runs it.
        let home = tempfile::Builder::new().prefix("skiff-docker-py-").tempdir()?;
        let config = home.path().join(".docker");
        fs::create_dir(&config)?;
        // Without this file the suite keeps contexts in its own directory.
        fs::write(config.join("config.json"), "{}")?;
        let script = format!(
            "cd '{}' && exec '{}' -m pytest tests/integration -v --tb=short --timeout 60 -p no:cacheprovider \
             -o console_output_style=classic --ignore tests/integration/credentials",
            self.0.join(RELEASE).display(),
            self.python().display(),
        );
        let finished = Program::new("sh")
            .args(["-c", &script])
            .env("HOME", home.path())
            .env("DOCKER_CONFIG", &config)
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .timeout(SUITE_PATIENCE)
            .run()?;
        let log = self.log(name);
        fs::write(&log, &finished.stdout)?;
        let outcomes = parse(&finished.out());
        ensure!(
            finished.code <= 1 && outcomes.len() > 300,
            "pytest broke off: {}\n{}",
            log.display(),
            finished.err()
        );
        Ok(outcomes)
    }
}

/// The lines of one requirement.
fn entry(lock: &str, start: &str) -> Option<String> {
    let at = lock.find(&format!("\n{start}"))? + 1;
    let lines = lock[at..].split_inclusive('\n');
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        if !line.trim_end().ends_with('\\') {
            break;
        }
    }
    Some(text)
}

/// Reads pytest's lines of `test OUTCOME`; an error after a test's end makes it a failed one.
fn parse(output: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for line in output.lines().take_while(|line| !line.contains(" FAILURES ") && !line.contains(" ERRORS ")) {
        let mut words = line.split_whitespace();
        let (Some(test), Some(word)) = (words.next(), words.next()) else { continue };
        let outcome = match word {
            "PASSED" | "XPASS" => Outcome::Passed,
            "FAILED" | "ERROR" => Outcome::Failed,
            "SKIPPED" | "XFAIL" => Outcome::Skipped,
            _ => continue,
        };
        if test.contains("::") && outcomes.get(test) != Some(&Outcome::Failed) {
            outcomes.insert(test.to_owned(), outcome);
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_fails_in_its_tear_down_has_failed() {
        let output = "t/a.py::A::x PASSED\nt/a.py::A::x ERROR\nt/a.py::A::y XPASS\n\
                      t/a.py::A::z SKIPPED (no)\n=== FAILURES ===\nt/a.py::A::y FAILED\n";
        let outcomes: Vec<_> = parse(output).into_values().collect();
        assert_eq!(outcomes, [Outcome::Failed, Outcome::Passed, Outcome::Skipped]);
    }

    #[test]
    fn a_requirement_has_all_its_hashes() {
        let lock = "# c\na==1 \\\n    --hash=1\ndocker==7 \\\n    --hash=2 \\\n    --hash=3\nz==1\n";
        assert_eq!(entry(lock, "docker==").unwrap(), "docker==7 \\\n    --hash=2 \\\n    --hash=3\n");
    }
}
