//! `true` in a container: our API beside runc on this host.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::guest;
use crate::http::Api;
use crate::process::{Running, check, guest_image, program};
use crate::sample::Sample;

const ROUNDS: usize = 60;
pub const IMAGE: &str = "skiff/toolbox";

/// Prints the figures of this host and of the guest.
pub fn bench() -> anyhow::Result<()> {
    native()?;
    guest::bench()
}

fn native() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("docker.sock");
    let mut engine = Command::new(program("skiff-agent")?);
    engine.arg("serve").arg("--root").arg(directory.path().join("root")).arg("--socket").arg(&socket);
    let log = std::fs::File::create(directory.path().join("log"))?;
    let _engine = Running(engine.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).spawn()?);
    let mut api = Api::wait(&socket, Duration::from_secs(20))?;
    let bundle = bundle(directory.path())?;

    let (mut ours, mut runc) = (Sample::default(), Sample::default());
    for round in 0..ROUNDS + 5 {
        let one = api.run_true(IMAGE)?;
        let started = Instant::now();
        check(
            Command::new("runc")
                .arg("--root")
                .arg(directory.path().join("runc"))
                .arg("run")
                .arg("--bundle")
                .arg(&bundle)
                .arg(format!("bench{round}")),
        )?;
        let other = started.elapsed();
        // The first rounds warm caches up.
        if round >= 5 {
            ours.push(one);
            runc.push(other);
        }
    }
    println!("run: create+start+wait+remove of `true`, native");
    println!("  skiff API  {ours}");
    println!("  runc run   {runc}");
    println!("  ratio      {:8.2}     (goal ≤ 0.50, p50 ≤ 8 ms)", ours.ratio(&runc));
    Ok(())
}

/// Makes an OCI bundle of the built-in image's root file system, with runc's own default configuration.
pub fn bundle(directory: &Path) -> anyhow::Result<std::path::PathBuf> {
    let bundle = directory.join("bundle");
    let rootfs = bundle.join("rootfs");
    std::fs::create_dir_all(&rootfs)?;
    let archive = directory.join("archive");
    std::fs::create_dir_all(&archive)?;
    check(Command::new("tar").arg("-C").arg(&archive).arg("-xf").arg(guest_image()?.join("toolbox.tar")))?;
    let layer = std::fs::read_dir(&archive)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .context("the built-in image has no layer")?;
    check(Command::new("tar").arg("-C").arg(&rootfs).arg("-xf").arg(layer))?;
    check(Command::new("runc").arg("spec").arg("--bundle").arg(&bundle))?;
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["true"]);
    std::fs::write(&path, config.to_string())?;
    Ok(bundle)
}
