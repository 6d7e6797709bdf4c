//! A disk that fills up in the middle of a build: a clear error, nothing left, and the next build works.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use skiff_testkit::{DockerCli, Image, NativeEngine};

/// As large as the disk is, in bytes.
const SIZE: u64 = 96 << 20;

/// A file system in a file, mounted.
struct Disk {
    place: tempfile::TempDir,
    mounted: PathBuf,
}

impl Disk {
    /// Makes one; `None` where that is not possible.
    fn mount() -> anyhow::Result<Option<Self>> {
        let place = tempfile::tempdir().context("make a directory")?;
        let (file, mounted) = (place.path().join("disk"), place.path().join("mounted"));
        std::fs::File::create(&file)?.set_len(SIZE)?;
        std::fs::create_dir(&mounted)?;
        for (program, arguments) in [("mkfs.ext4", vec!["-q"]), ("mount", vec!["-o", "loop"])] {
            let mut command = Command::new(program);
            command.args(arguments).arg(&file);
            if program == "mount" {
                command.arg(&mounted);
            }
            let done = command.output().with_context(|| format!("run {program}"))?;
            if !done.status.success() {
                let reason = String::from_utf8_lossy(&done.stderr).into_owned();
                eprintln!("skipped: {program} makes no disk here: {reason}");
                return Ok(None);
            }
        }
        Ok(Some(Self { place, mounted }))
    }

    /// Bytes that are free for everybody.
    fn free(&self) -> anyhow::Result<u64> {
        let about = rustix::fs::statvfs(&self.mounted)?;
        Ok(about.f_bavail * about.f_frsize)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(&self.mounted).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("the disk in {} stays mounted", self.place.path().display());
        }
    }
}

fn build(
    docker: &DockerCli,
    dir: &Path,
    dockerfile: &str,
) -> anyhow::Result<skiff_testkit::process::Finished> {
    std::fs::write(dir.join("Dockerfile"), dockerfile)?;
    docker.command("build --tag built").env("DOCKER_BUILDKIT", "0").args([dir]).run()
}

#[test]
fn a_disk_that_fills_up_during_a_build_is_named_and_is_as_free_as_before() {
    let disk = match Disk::mount() {
        Ok(Some(disk)) => disk,
        Ok(None) => return,
        Err(error) => panic!("{error:#}"),
    };
    let engine = NativeEngine::below(&disk.mounted, &[]).unwrap_or_else(|error| panic!("{error:#}"));
    let result = (|| {
        let docker = engine.docker()?;
        docker.feed("load", Image::busybox()?.archive(&["busybox:latest"]))?.ok()?;
        let dir = tempfile::tempdir().context("make the project's directory")?;
        let first = "FROM busybox\nRUN echo 1 > /first\n";
        build(&docker, dir.path(), first)?.ok()?;
        let free = disk.free()?;
        // In a step; while its files are packed; while the context is received.
        let large = format!("{first}RUN dd if=/dev/urandom of=/large bs=1M count=");
        let full = [
            build(&docker, dir.path(), &format!("{large}200\n"))?,
            build(&docker, dir.path(), &format!("{large}50\n"))?,
            {
                let file = std::fs::File::create(dir.path().join("large"))?;
                let mut random = std::io::Read::take(std::fs::File::open("/dev/urandom")?, SIZE + (8 << 20));
                std::io::copy(&mut random, &mut &file)?;
                let failed = build(&docker, dir.path(), "FROM busybox\nCOPY large /\n")?;
                std::fs::remove_file(dir.path().join("large"))?;
                failed
            },
        ];
        for failed in full {
            ensure!(failed.code != 0, "there was room: {failed}");
            let said = format!("{}{}", failed.out(), failed.err());
            ensure!(said.contains("No space left on device"), "{failed}");
        }
        let built = build(&docker, dir.path(), &format!("{first}RUN echo 2 > /second\n"))?.ok()?;
        ensure!(built.out().contains("Using cache"), "what was done before is gone: {built}");
        docker.run("run --rm built cat /first /second")?.ok()?.prints("1\n2\n")?;
        let lost = free.saturating_sub(disk.free()?);
        ensure!(lost < 4 << 20, "{lost} bytes are gone");
        anyhow::Ok(())
    })();
    let log = engine.log_tail();
    drop(engine);
    if let Err(error) = result {
        panic!("{error:#}\n{log}");
    }
}
