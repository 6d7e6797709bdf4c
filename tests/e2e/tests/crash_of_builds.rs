//! `kill -9` of the native engine in the middle of builds: what was done stays, what was not shows nowhere, the next build works.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use skiff_e2e::Chance;
use skiff_e2e::crash::{SOON, expect_clean, on_engine};
use skiff_testkit::{DockerCli, Program, Registry, binaries};

/// A client with a configuration of its own; `None` where it was not fetched.
fn client(name: &str, docker: &DockerCli, config: &Path) -> Option<Program> {
    let program = binaries::target_directory().join("tools").join(name);
    if !program.is_file() {
        eprintln!("skipped: {name} is not in target/tools (scripts/fetch-clients puts it there)");
        return None;
    }
    let program = Program::new(&program).env("DOCKER_HOST", docker.host()).env("DOCKER_CONFIG", config);
    Some(program.env("BUILDX_CONFIG", config.join("buildx")).env("BUILDKIT_PROGRESS", "plain"))
}

#[test]
fn a_build_dies_with_its_engine_and_the_next_one_works() {
    on_engine(|engine, docker| {
        let dir = tempfile::tempdir().context("make the project's directory")?;
        let dockerfile = |step: &str| {
            let text = format!("FROM busybox\nRUN echo first > /first\nRUN {step}\nCMD cat /first\n");
            std::fs::write(dir.path().join("Dockerfile"), text)
        };
        let Some(buildx) = client("docker-buildx", docker, &dir.path().join(".config")) else {
            return Ok(());
        };
        let build = buildx.args(["build", "--tag", "built"]).args([dir.path()]);
        dockerfile("echo begun && sleep 1000")?;
        let running = build.start()?;
        running.wait_for_complaint("begun", SOON)?;
        engine.kill_engine()?;
        ensure!(running.finish(SOON)?.code != 0, "the build outlived its engine");
        dockerfile("true")?;
        let built = build.run()?.ok()?;
        ensure!(built.err().contains("CACHED"), "what was done before is gone:\n{}", built.err());
        docker.run("run --rm built")?.ok()?.prints("first\n")?;
        expect_clean(engine, docker)
    });
}

#[test]
fn a_build_cache_that_is_no_directory_does_not_keep_the_engine_from_starting() {
    on_engine(|engine, docker| {
        let build = || -> anyhow::Result<()> {
            let built = docker.command("build -t cached -").env("DOCKER_BUILDKIT", "0");
            built.stdin("FROM busybox\nRUN echo built > /file\n").run()?.ok().map(drop)
        };
        build()?;
        engine.stop()?;
        let cache = engine.root().join("build");
        std::fs::rename(&cache, engine.root().join("elsewhere"))?;
        std::fs::write(&cache, "no directory")?;
        engine.start_again()?;
        build()?;
        docker.run("run --rm cached cat /file")?.ok()?.prints("built\n")?;
        let aside = std::fs::read_dir(engine.root())?.flatten();
        let aside = aside.filter(|entry| entry.file_name().to_string_lossy().starts_with("build.broken-"));
        ensure!(aside.count() == 1, "what was there is not kept");
        // Files inside that make no sense cost what they were about, and nothing else.
        engine.kill_all();
        for directory in ["contexts/trees", "contexts/files", "contexts/staging", "mounts"] {
            let place = cache.join(directory);
            std::fs::create_dir_all(&place)?;
            for entry in std::fs::read_dir(&place)?.flatten().filter(|entry| entry.path().is_file()) {
                std::fs::write(entry.path(), "\0garbage")?;
            }
            std::fs::write(place.join(".garbage"), "\0")?;
        }
        engine.start_again()?;
        build()?;
        expect_clean(engine, docker)
    });
}

#[test]
fn kills_at_any_point_of_a_build_and_its_exports_leave_whole_things_or_none() {
    on_engine(|engine, docker| {
        let dir = tempfile::tempdir().context("make the project's directory")?;
        let app = dir.path().join("app");
        std::fs::create_dir(&app)?;
        let Some(buildx) = client("docker-buildx-new", docker, &dir.path().join(".config")) else {
            return Ok(());
        };
        if buildx.clone().args(["version"]).run()?.code != 0 {
            eprintln!("skipped: the newer buildx does not run on this machine");
            return Ok(());
        }
        let mut chance = Chance::announced();
        let registry = Registry::start()?;
        for round in 0..6 {
            let dockerfile = format!(
                "FROM busybox AS tool\nRUN dd if=/dev/urandom of=/data bs=1M count=2 && echo {round} >/round\n\
                 FROM busybox\nCOPY --from=tool /data /round /\nRUN wc -c <data >/length\nCMD cat /round /length\n"
            );
            std::fs::write(app.join("Dockerfile"), dockerfile)?;
            let (name, cache) =
                (format!("e2e/killed:{round}"), registry.reference(&format!("e2e/cache:{round}")));
            let to = format!("type=registry,ref={cache},mode=max");
            let build = buildx.clone().args(["build", "--tag", &registry.reference(&name), "--push"]);
            let build = build.args(["--cache-to", &to, "--cache-from", &cache]).args([&app]);
            let running = build.start()?;
            thread::sleep(chance.below(Duration::from_millis(2500)));
            engine.kill_engine()?;
            running.finish(SOON)?;

            // What is listed is whole, here and at the registry, and so is what the history tells.
            let reference = registry.reference(&name);
            let works =
                || docker.run(&format!("run --rm {reference}"))?.ok()?.prints(&format!("{round}\n2097152\n"));
            let listed = docker.run("images --format {{.Repository}}:{{.Tag}}")?.ok()?.out();
            ensure!(!listed.contains("<none>"), "round {round}: images shows {listed}");
            if listed.lines().any(|line| line == reference) {
                works()?;
                docker.run(&format!("rmi {reference}"))?.ok()?;
            }
            if docker.run(&format!("pull {reference}"))?.code == 0 {
                works()?;
                docker.run(&format!("rmi {reference}"))?.ok()?;
            }
            let history = buildx.clone().args(["history", "ls", "--format", "json"]).run()?.ok()?.out();
            for line in history.lines() {
                let record: Value = serde_json::from_str(line)?;
                let id = record["ref"]
                    .as_str()
                    .and_then(|id| id.rsplit('/').next())
                    .context("a record has a name")?;
                buildx.clone().args(["history", "inspect", id]).run()?.ok()?;
                buildx.clone().args(["history", "logs", id]).run()?.ok()?;
            }
            let built = build.run()?.ok()?;
            ensure!(
                !built.err().contains("importing cache manifest") || built.err().contains("CACHED"),
                "{built}"
            );
            works()?;
            buildx.clone().args(["du"]).run()?.ok()?;
            docker.run(&format!("rmi {reference}"))?.ok()?;
        }
        for place in ["staging", "build/contexts/staging"] {
            let left = std::fs::read_dir(engine.root().join(place)).map_or(0, |entries| entries.count());
            ensure!(left == 0, "{left} things are left in {place}");
        }
        expect_clean(engine, docker)
    });
}
