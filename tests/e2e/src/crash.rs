//! Engines that are killed, and what must hold afterwards.

use std::time::Duration;

use skiff_testkit::{DockerCli, Image, NativeEngine};

/// How long an engine may take for what it does at once.
pub const SOON: Duration = Duration::from_secs(15);

/// Runs a test on a fresh engine with busybox; a failure shows the engine's log.
///
/// # Panics
/// When the test fails.
pub fn on_engine(test: impl FnOnce(&mut NativeEngine, &DockerCli) -> anyhow::Result<()>) {
    let mut engine = NativeEngine::start().unwrap_or_else(|error| panic!("{error:#}"));
    let result = (|| {
        let docker = engine.docker()?;
        docker.feed("load", Image::busybox()?.archive(&["busybox:latest"]))?.ok()?;
        test(&mut engine, &docker)
    })();
    if let Err(error) = result {
        panic!("{error:#}\n{}", engine.log_tail());
    }
}

/// What must hold when all containers are removed.
///
/// # Errors
/// Containers that are not removed; whatever is left.
pub fn expect_clean(engine: &NativeEngine, docker: &DockerCli) -> anyhow::Result<()> {
    let ids = docker.run("ps -aq")?.ok()?.out();
    if !ids.is_empty() {
        docker.command("rm -f").args(ids.split_whitespace()).run()?.ok()?;
    }
    docker.run("ps -aq")?.ok()?.prints("")?;
    engine.expect_no_leftovers(SOON)
}
