//! What the machine itself does: a full data disk, idleness, the shell.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::ensure;
use skiff_testkit::image::{Compression, Layer};
use skiff_testkit::{Backend, DaemonUnderTest, DockerCli, Image, wait_until};

/// A guest may have to boot.
const BOOT: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

fn with_settings(settings: &str, test: impl FnOnce(&mut DaemonUnderTest, &DockerCli) -> anyhow::Result<()>) {
    let mut daemon = DaemonUnderTest::start_with_settings(Backend::Qemu, settings)
        .unwrap_or_else(|error| panic!("{error:#}"));
    let result = (|| {
        let docker = daemon.docker()?;
        docker.feed("load", Image::busybox()?.archive(&["busybox:latest"]))?.ok()?;
        test(&mut daemon, &docker)
    })();
    if let Err(error) = result {
        panic!("{error:#}\n{}", daemon.log_tail());
    }
}

#[test]
fn a_full_disk_is_named_nothing_half_made_stays_and_space_comes_back() {
    with_settings(r#"{"machine":{"disk_gib":1}}"#, |daemon, docker| {
        let used = |daemon: &DaemonUnderTest| -> anyhow::Result<u64> {
            Ok(std::fs::metadata(daemon.state().join("machine/disk.img"))?.blocks() * 512)
        };
        let empty = used(daemon)?;
        docker.run("run -d --name witness busybox sleep 1000")?.ok()?;
        // Not with zeroes, which take no space on the host, and quietly: a container's output goes to the same disk.
        let block = "head -c 8388608 /dev/zero | tr '\\0' x >/v/block";
        let fill = "while cat /v/block; do :; done >/v/fill; dd if=/v/block of=/v/rest bs=4k; sync";
        let filled = docker
            .command("run --name filler -v fill:/v busybox sh -c")
            .args([format!("exec 2>/dev/null; {block}; {fill}")])
            .timeout(BOOT);
        filled.run()?.exits(0)?;
        ensure!(used(daemon)? > empty + 700 * MIB, "the disk was not filled");

        let layer = Layer::new().file("big", 0o644, &vec![b'x'; 8 << 20]);
        let image = Image::busybox()?.with_layer(layer, Compression::Gzip).archive(&["too/big:1"]);
        let refused = docker.feed("load", image.clone())?.exits(1)?;
        refused.complains("no space left on device")?.complains("disk_gib")?;
        docker.run("image inspect too/big:1")?.exits(1)?;
        docker.run("ps --format {{.Names}}")?.ok()?.prints("witness\n")?;
        docker.run("exec witness true")?.ok()?;

        // With nothing free at all, what frees space must work.
        docker.run("rm filler")?.ok()?;
        docker.run("volume rm fill")?.ok()?;
        docker.feed("load", image)?.ok()?;
        docker.run("run --rm too/big:1 true")?.ok()?;
        docker.run("rm -f witness")?.ok()?;
        daemon.stop()?;
        let left = used(daemon)?;
        ensure!(left < empty + 200 * MIB, "{} MiB stay taken on the host", left / MIB);
        Ok(())
    });
}

#[test]
fn the_shell_carries_anything_and_an_idle_guest_sleeps_until_the_next_call() {
    with_settings(r#"{"daemon":{"idle_stop_seconds":4}}"#, |daemon, docker| {
        let noise: Vec<u8> =
            (0..12 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let echoed = daemon.skiff("machine ssh -- cat")?.stdin(noise.clone()).timeout(BOOT).run()?.ok()?;
        ensure!(
            echoed.stdout == noise,
            "{} of {} bytes came back the same",
            echoed.stdout.len(),
            noise.len()
        );
        let script = "head -c 3 >/dev/null; echo err >&2; exit 7";
        let ended = daemon.skiff("machine ssh --")?.args([script]).stdin(noise).timeout(BOOT).run()?;
        ended.exits(7)?.complains("err")?;

        let up = |daemon: &DaemonUnderTest| !daemon.qemu_pids().is_empty();
        docker.run("run -d --name awake busybox sleep 1000")?.ok()?;
        std::thread::sleep(Duration::from_secs(10));
        ensure!(up(daemon), "a running container must keep the guest awake");
        docker.run("rm -f awake")?.ok()?;
        // Looking must not wake the guest, nor keep it awake.
        let stopped = |daemon: &DaemonUnderTest| -> Option<bool> {
            let status = daemon.skiff("machine status").ok()?.run().ok()?.ok().ok()?;
            Some(status.out().lines().any(|line| line.starts_with("Machine:") && line.contains("stopped")))
        };
        wait_until("the idle guest to stop", BOOT, || stopped(daemon).filter(|stopped| *stopped))?;
        ensure!(!up(daemon), "looking must not wake the guest");
        docker.command("run --rm busybox echo works").timeout(BOOT).run()?.ok()?.prints("works\n")?;
        Ok(())
    });
}
