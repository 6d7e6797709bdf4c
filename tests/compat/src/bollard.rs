//! bollard's own integration tests, from its release on crates.io.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use skiff_testkit::image::Compression;
use skiff_testkit::{DockerCli, Image, Layer, NativeEngine, Program, Registry};

use crate::outcome::{self, Outcome, Outcomes};
use crate::{Reference, store};

const VERSION: &str = "0.20.0";
/// Of the release's archive; what it depends on is pinned by the lock file in it.
const CHECKSUM: &str = "a6ae2b41d5596b7b0db9942973d7da42109f2abaa34aa929a2d5362a38fb37ce";
/// Left out: it listens to events and pulls what is there already, both at once, and waits for ever when the pull is over
/// before its listener has arrived. dockerd takes longer for that.
const RACE: &str = "integration_test_events";
const FETCH_PATIENCE: Duration = Duration::from_secs(300);
const COMPILE_PATIENCE: Duration = Duration::from_secs(1200);
const SUITE_PATIENCE: Duration = Duration::from_secs(600);

/// Runs the tests against `skiff-agent serve`, and against the reference engine when `compare` and the machine can;
/// prints both counts. Where the release can't be fetched it says so and is content.
///
/// # Errors
/// When a test fails that is no exception, or an exception is not needed.
pub fn check(compare: bool) -> anyhow::Result<()> {
    let Some(suite) = Suite::prepare()? else { return Ok(()) };
    let ours = suite.against_ours()?;
    outcome::count("bollard", "ours", &ours)?;
    let theirs = match compare.then(Reference::start).transpose()?.flatten() {
        Some(reference) => {
            // Its registry is where only the engine gets to.
            push_through(&reference.docker()?, "127.0.0.1:5000")?;
            let theirs = suite.run("reference", &reference.socket(), "127.0.0.1:5000")?;
            outcome::count("bollard", "dockerd", &theirs)?;
            Some(theirs)
        }
        None => None,
    };
    outcome::judge("bollard", &ours, theirs.as_ref(), &suite.log("ours"))
}

/// The unpacked release, compiled.
struct Suite(PathBuf);

impl Suite {
    /// Fetches and compiles the release unless that has been done; `None` where it can't be fetched.
    fn prepare() -> anyhow::Result<Option<Self>> {
        let suite = Self(store().join("bollard"));
        let done = suite.0.join("done");
        if fs::read_to_string(&done).is_ok_and(|text| text == CHECKSUM) {
            return Ok(Some(suite));
        }
        let _ = fs::remove_dir_all(&suite.0);
        let Some(archive) = suite.fetch()? else { return Ok(None) };
        let sum = Program::new("sha256sum").args([archive.as_os_str()]).run()?.ok()?.out();
        ensure!(
            sum.split_whitespace().next() == Some(CHECKSUM),
            "{} is not the release that is pinned here: {sum}",
            archive.display()
        );
        let unpack = [Path::new("-xzf"), &archive, Path::new("-C"), &suite.0];
        Program::new("tar").args(unpack).run()?.ok()?;
        // Not a member of the workspace that it lies in.
        let manifest = suite.release().join("Cargo.toml");
        let text = fs::read_to_string(&manifest).with_context(|| format!("read {}", manifest.display()))?;
        fs::write(&manifest, format!("{text}\n[workspace]\n"))?;
        suite.cargo(&["test", "--locked", "--no-run"]).timeout(COMPILE_PATIENCE).run()?.ok()?;
        fs::write(done, CHECKSUM)?;
        Ok(Some(suite))
    }

    /// Lets cargo put the archive into its cache, where the registry's client keeps what it has fetched.
    fn fetch(&self) -> anyhow::Result<Option<PathBuf>> {
        let wish = self.0.join("wish");
        fs::create_dir_all(wish.join("src"))?;
        fs::write(wish.join("src/lib.rs"), "")?;
        fs::write(
            wish.join("Cargo.toml"),
            format!(
                "[package]\nname = \"wish\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[dependencies]\n\
                 bollard = {{ version = \"={VERSION}\", default-features = false }}\n\n[workspace]\n"
            ),
        )?;
        let manifest = wish.join("Cargo.toml");
        let metadata = Program::new("cargo")
            .args(["metadata", "--format-version", "1", "--manifest-path"])
            .args([manifest.as_os_str()])
            .timeout(FETCH_PATIENCE)
            .run()?;
        if metadata.code != 0 {
            eprintln!("bollard: skipped: its release can't be fetched: {}", metadata.err());
            return Ok(None);
        }
        let metadata: Value = serde_json::from_slice(&metadata.stdout).context("read cargo's answer")?;
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let unpacked = packages
            .filter(|package| package["name"] == "bollard")
            .find_map(|package| Path::new(package["manifest_path"].as_str()?).parent())
            .context("cargo has no bollard")?;
        // …/registry/src/INDEX/bollard-VERSION and …/registry/cache/INDEX/bollard-VERSION.crate
        let index = unpacked.parent().and_then(Path::file_name).context("cargo keeps bollard elsewhere")?;
        let registry = unpacked.ancestors().nth(3).context("cargo keeps bollard elsewhere")?;
        Ok(Some(registry.join("cache").join(index).join(format!("bollard-{VERSION}.crate"))))
    }

    fn release(&self) -> PathBuf {
        self.0.join(format!("bollard-{VERSION}"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }

    fn cargo(&self, arguments: &[&str]) -> Program {
        Program::new("cargo")
            .args(arguments.iter().copied())
            .args(["--manifest-path"])
            .args([self.release().join("Cargo.toml").as_os_str()])
            .env("CARGO_TARGET_DIR", self.0.join("target"))
            // What this workspace is compiled with is nothing to them.
            .env("RUSTFLAGS", "")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
    }

    fn against_ours(&self) -> anyhow::Result<Outcomes> {
        let registry = Registry::start()?;
        for (image, name, tag) in images()? {
            registry.push(&image, name, tag)?;
        }
        let mut engine = NativeEngine::start()?;
        let outcomes = self.run("ours", &engine.socket(), &registry.address().to_string())?;
        engine.stop()?;
        Ok(outcomes)
    }

    fn run(&self, name: &str, socket: &Path, registry: &str) -> anyhow::Result<Outcomes> {
        let finished = self
            .cargo(&["test", "--locked", "--no-fail-fast", "--tests"])
            .args(["--", "--test-threads", "1", "--skip", RACE])
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("REGISTRY_HTTP_ADDR", registry)
            .env("REGISTRY_PASSWORD", "")
            .env("RUST_BACKTRACE", "0")
            .timeout(SUITE_PATIENCE)
            .run()?;
        let log = self.log(name);
        let text = format!("{}\n{}", finished.err(), finished.out());
        fs::write(&log, &text)?;
        let outcomes = parse(&finished.out());
        ensure!(outcomes.len() > 70, "the tests broke off: {}", log.display());
        Ok(outcomes)
    }
}

/// What the tests take from their registry: repositories and tags.
fn images() -> anyhow::Result<[(Image, &'static str, &'static str); 3]> {
    let alpine = Image::busybox()?.with_config("Cmd", json!(["/bin/sh"]));
    let hello = Layer::new().file("hello", 0o755, b"#!/bin/sh\necho\necho 'Hello from Docker!'\n");
    let hello = Image::busybox()?
        .with_layer(hello, Compression::Gzip)
        .with_config("Cmd", json!(["/hello"]))
        .with_config("Labels", json!({"title": "hello"}));
    let server = Layer::new()
        .dir("usr")
        .dir("usr/sbin")
        .file("usr/sbin/run_uhttpd", 0o755, b"#!/bin/sh\nexec httpd \"$@\"\n")
        .dir("etc/config")
        .file("etc/config/uhttpd", 0o644, b"\nconfig uhttpd main\n")
        .dir("www")
        .file("www/index.html", 0o644, b"served\n");
    let server = Image::busybox()?.with_layer(server, Compression::Gzip);
    Ok([
        (alpine, "alpine", "latest"),
        (hello, "hello-world", "linux"),
        (server, "fussybeaver/uhttpd", "latest"),
    ])
}

/// Puts them into a registry that only the engine can reach, and takes them from the engine again.
fn push_through(docker: &DockerCli, registry: &str) -> anyhow::Result<()> {
    for (image, name, tag) in images()? {
        let there = format!("{registry}/{name}:{tag}");
        docker.feed("load", image.archive(&[&there]))?.ok()?;
        docker.args(&["push", &there])?.ok()?;
        docker.args(&["rmi", &there])?.ok()?;
    }
    Ok(())
}

/// Reads the lines of `test NAME ... OUTCOME`; no two programs have tests of one name. A test that its program did not
/// survive has failed.
fn parse(output: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for line in output.lines() {
        let Some((test, word)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else {
            continue;
        };
        let outcome = match word.split([' ', ',']).next() {
            Some("ok") => Outcome::Passed,
            Some("ignored") => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        outcomes.insert(test.to_owned(), outcome);
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_without_an_end_has_failed() {
        let output = "running 3 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ignored, why\ntest d ... \nx\n\
                      test result: FAILED. 1 passed; 1 failed\n";
        let outcomes: Vec<_> = parse(output).into_values().collect();
        assert_eq!(outcomes, [Outcome::Passed, Outcome::Failed, Outcome::Skipped, Outcome::Failed]);
    }
}
