//! Programs that people use Docker through, each fetched in a pinned release: testcontainers and docker-py of today, and
//! the dev container command.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use skiff_testkit::{DockerCli, NativeEngine, Program};

use crate::outcome::{self, Outcome, Outcomes};
use crate::{Reference, images, store, workspace};

const SUITE: &str = "clients";
const INSTALL_PATIENCE: Duration = Duration::from_secs(300);
const CASE_PATIENCE: Duration = Duration::from_secs(180);

/// Runs them against `skiff-agent serve`, and against the reference engine when `compare` and the machine can. A client
/// that can't be fetched is left out, and that is said.
///
/// # Errors
/// When a client does not do what it does with dockerd.
pub fn check(compare: bool) -> anyhow::Result<()> {
    let suite = Suite::prepare()?;
    let mut engine = NativeEngine::start()?;
    images::load(&engine.docker()?)?;
    let ours = suite.run("ours", &engine.docker()?, &engine.socket())?;
    engine.stop()?;
    outcome::count(SUITE, "ours", &ours)?;
    let theirs = match compare.then(Reference::start).transpose()?.flatten() {
        Some(reference) => {
            let theirs = suite.run("reference", &reference.docker()?, &reference.socket())?;
            outcome::count(SUITE, "dockerd", &theirs)?;
            Some(theirs)
        }
        None => None,
    };
    outcome::judge(SUITE, &ours, theirs.as_ref(), &suite.log("ours"))
}

/// What could be fetched.
struct Suite {
    directory: PathBuf,
    python: Option<PathBuf>,
    devcontainer: Option<PathBuf>,
}

impl Suite {
    fn prepare() -> anyhow::Result<Self> {
        let directory = store().join(SUITE);
        fs::create_dir_all(&directory)?;
        let sources = workspace().join("tests/compat/clients");
        let python = directory.join("venv/bin/python");
        let lock = sources.join("python.lock");
        let python = fetched("testcontainers and docker-py", &directory, &lock, || {
            let venv = directory.join("venv");
            install(Program::new("python3").args(["-m", "venv", "--clear"]).args([venv.as_os_str()]))?;
            let pip = ["-m", "pip", "-q", "--disable-pip-version-check", "install", "--require-hashes"];
            let pip = Program::new(&python).args(pip).args(["--only-binary", ":all:", "-r"]);
            install(pip.args([lock.as_os_str()]))
        })?
        .then_some(python);
        let devcontainer = directory.join("node_modules/.bin/devcontainer");
        let lock = sources.join("package-lock.json");
        let devcontainer = fetched("the dev container command", &directory, &lock, || {
            fs::copy(&lock, directory.join("package-lock.json"))?;
            fs::copy(sources.join("package.json"), directory.join("package.json"))?;
            let npm =
                Program::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
            install(npm.args([directory.as_os_str()]))?;
            // It wants a younger Node.js than some distributions have.
            install(Program::new(&devcontainer).args(["--version"]))
        })?
        .then_some(devcontainer);
        Ok(Self { directory, python, devcontainer })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    fn run(&self, name: &str, docker: &DockerCli, socket: &Path) -> anyhow::Result<Outcomes> {
        let mut outcomes = Outcomes::new();
        let mut log = String::new();
        if let Some(python) = &self.python {
            let cases = workspace().join("tests/compat/clients/python.py");
            let finished = Program::new(python)
                .args([cases.as_os_str()])
                .env("DOCKER_HOST", format!("unix://{}", socket.display()))
                // The one that cleans up after killed tests is an image of Docker Hub.
                .env("TESTCONTAINERS_RYUK_DISABLED", "true")
                .timeout(CASE_PATIENCE)
                .run()?;
            ensure!(finished.code == 0, "the cases in Python broke off:\n{}", finished.err());
            for line in finished.out().lines() {
                let mut words = line.split(' ');
                let (Some(case), Some(word)) = (words.next(), words.next()) else { continue };
                let outcome = if word == "PASSED" { Outcome::Passed } else { Outcome::Failed };
                outcomes.insert(case.to_owned(), outcome);
            }
            log.push_str(&format!("{}\n{}\n", finished.out(), finished.err()));
        }
        if let Some(program) = &self.devcontainer {
            for (case, attempt) in DEV_CONTAINERS {
                let outcome = match attempt(program, docker, socket) {
                    Ok(()) => Outcome::Passed,
                    Err(error) => {
                        log.push_str(&format!("{case}: {error:#}\n"));
                        Outcome::Failed
                    }
                };
                outcomes.insert((*case).to_owned(), outcome);
            }
        }
        fs::write(self.log(name), log)?;
        Ok(outcomes)
    }
}

/// Installs a client unless that has been done for this lock file; `false`, with the reason said, where it can't be.
fn fetched(
    what: &str,
    directory: &Path,
    lock: &Path,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let pinned = fs::read_to_string(lock).with_context(|| format!("read {}", lock.display()))?;
    let name = lock.file_name().unwrap_or_default().to_string_lossy();
    let done = directory.join(format!("{name}.done"));
    if fs::read_to_string(&done).is_ok_and(|text| text == pinned) {
        return Ok(true);
    }
    let _ = fs::remove_file(&done);
    if let Err(error) = install() {
        eprintln!("{SUITE}: skipped: {what} can't be fetched: {error:#}");
        return Ok(false);
    }
    fs::write(done, pinned)?;
    Ok(true)
}

fn install(program: Program) -> anyhow::Result<()> {
    program.timeout(INSTALL_PATIENCE).run()?.ok().map(drop)
}

type Case = (&'static str, fn(&Path, &DockerCli, &Path) -> anyhow::Result<()>);

const DEV_CONTAINERS: &[Case] =
    &[("a_dev_container_of_an_image", of_an_image), ("a_dev_container_of_a_dockerfile", of_a_dockerfile)];

fn of_an_image(program: &Path, docker: &DockerCli, socket: &Path) -> anyhow::Result<()> {
    let config = r#"{"image": "alpine", "containerEnv": {"INSIDE": "yes"}, "remoteEnv": {"REMOTE": "too"}, "init": true,
        "postCreateCommand": "echo created > /tmp/created", "mounts": ["source=dev-cache,target=/cache,type=volume"]}"#;
    let folder = Folder::new(config, None, program, docker, socket)?;
    folder.up()?;
    let shown = folder.exec(&["sh", "-c", "cat /tmp/created notes; echo $INSIDE $REMOTE; touch /cache/x"])?;
    ensure!(shown == "created\nof the host\nyes too\n", "{shown}");
    docker.run("volume inspect dev-cache")?.ok()?;
    // The second time it is found again.
    folder.up()?;
    ensure!(folder.containers()?.len() == 1, "it was made twice");
    folder.remove()?;
    docker.run("volume rm dev-cache")?.ok().map(drop)
}

fn of_a_dockerfile(program: &Path, docker: &DockerCli, socket: &Path) -> anyhow::Result<()> {
    let config =
        r#"{"build": {"dockerfile": "Dockerfile", "args": {"MADE": "by hand"}}, "remoteUser": "postgres"}"#;
    let dockerfile = "FROM alpine\nARG MADE\nRUN echo $MADE > /made && mkdir -p /var/lib/postgresql\n";
    let folder = Folder::new(config, Some(dockerfile), program, docker, socket)?;
    folder.up()?;
    let shown = folder.exec(&["sh", "-c", "cat /made; id -un; pwd"])?;
    let name = folder.directory.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(shown == format!("by hand\npostgres\n/workspaces/{name}\n"), "{shown}");
    folder.remove()
}

/// A workspace folder with its configuration.
struct Folder<'a> {
    directory: tempfile::TempDir,
    program: &'a Path,
    docker: &'a DockerCli,
    socket: &'a Path,
}

impl<'a> Folder<'a> {
    fn new(
        config: &str,
        dockerfile: Option<&str>,
        program: &'a Path,
        docker: &'a DockerCli,
        socket: &'a Path,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("skiff-dev-").tempdir()?;
        let inside = directory.path().join(".devcontainer");
        fs::create_dir(&inside)?;
        fs::write(inside.join("devcontainer.json"), config)?;
        if let Some(text) = dockerfile {
            fs::write(inside.join("Dockerfile"), text)?;
        }
        fs::write(directory.path().join("notes"), "of the host\n")?;
        Ok(Self { directory, program, docker, socket })
    }

    fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        let (first, rest) = words.split_first().context("no command")?;
        let finished = Program::new(self.program)
            .args([*first, "--workspace-folder"])
            .args([self.directory.path().as_os_str()])
            .args(rest.iter().copied())
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("HOME", self.directory.path())
            .timeout(CASE_PATIENCE)
            .run()?;
        Ok(finished.ok()?.out())
    }

    fn up(&self) -> anyhow::Result<()> {
        // Without buildx, which is not on every machine, it builds with the classic builder.
        let answer = self.command(&["up", "--buildkit", "never"])?;
        let answer: serde_json::Value = serde_json::from_str(answer.lines().last().unwrap_or(""))?;
        ensure!(answer["outcome"] == "success", "{answer}");
        Ok(())
    }

    fn exec(&self, words: &[&str]) -> anyhow::Result<String> {
        self.command(&[&["exec"], words].concat())
    }

    fn containers(&self) -> anyhow::Result<Vec<String>> {
        let label = format!("label=devcontainer.local_folder={}", self.directory.path().display());
        let listed = self.docker.args(&["ps", "-a", "-q", "--filter", &label])?.ok()?.out();
        Ok(listed.lines().map(str::to_owned).collect())
    }

    fn remove(&self) -> anyhow::Result<()> {
        for container in self.containers()? {
            self.docker.args(&["rm", "-f", &container])?.ok()?;
        }
        Ok(())
    }
}
