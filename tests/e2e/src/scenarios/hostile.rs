//! Images whose root file systems are made to lead their containers' start astray.

use std::path::Path;

use anyhow::ensure;
use serde_json::json;
use skiff_testkit::Image;
use skiff_testkit::image::{Compression, EntryType, Layer};

use crate::{Subject, scenarios};

scenarios![
    files_of_users_that_are_none_keep_nobody_waiting,
    links_in_place_of_system_directories_lead_nowhere,
    working_directories_and_volumes_stay_inside,
    what_an_image_says_wrongly_is_no_fault_of_its_user,
    whiteouts_of_the_root_and_above_are_refused,
];

/// Where links of the images point to, on the machine of the engine.
const OUTSIDE: &str = "/tmp/skiff-e2e-hostile";

fn loaded(on: &Subject, name: &str, layer: Layer) -> anyhow::Result<()> {
    on.load(&Image::busybox()?.with_layer(layer, Compression::None), name).map(drop)
}

fn nothing_outside() -> anyhow::Result<()> {
    ensure!(!Path::new(OUTSIDE).exists(), "{OUTSIDE} was made");
    Ok(())
}

fn files_of_users_that_are_none_keep_nobody_waiting(on: &Subject) -> anyhow::Result<()> {
    let fifos = ["etc/passwd", "etc/group"]
        .iter()
        .fold(Layer::new(), |layer, path| layer.entry(EntryType::Fifo, path, 0o644, None, b""));
    loaded(on, "e2e/fifo:1", fifos)?;
    on.docker.run("run --rm e2e/fifo:1 echo on")?.ok()?.prints("on\n")?;
    on.docker.run("run --rm -u 7:8 e2e/fifo:1 stat -L -c %u /proc/self")?.ok()?.prints("7\n")?;
    on.docker.run("run --rm -u web e2e/fifo:1 true")?.exits(125)?.complains("unable to find user web")?;

    let loops = Layer::new().symlink("etc/passwd", "passwd").symlink("etc/group", "/etc/group");
    loaded(on, "e2e/loops:1", loops)?;
    on.docker.run("run --rm e2e/loops:1 true")?.exits(125)?.complains("etc/passwd")?;

    let out = Layer::new().symlink("etc/passwd", "../../../../../../proc/1/root/etc/passwd");
    loaded(on, "e2e/out:1", out)?;
    on.docker
        .run("run --rm -u daemon e2e/out:1 true")?
        .exits(125)?
        .complains("unable to find user daemon")?;
    on.docker.run("rmi -f e2e/fifo:1 e2e/loops:1 e2e/out:1")?.ok()?;
    Ok(())
}

fn links_in_place_of_system_directories_lead_nowhere(on: &Subject) -> anyhow::Result<()> {
    let outside = format!("../../../../../..{OUTSIDE}");
    let links = ["dev", "proc", "sys"].iter().fold(Layer::new(), |layer, name| layer.symlink(name, &outside));
    loaded(on, "e2e/links:2", links)?;
    let script = "test -e /proc/self/status && test -c /dev/null && test -d /sys/kernel && ls -d /.dockerenv";
    on.docker.sh("run --rm e2e/links:2", script)?.ok()?.prints("/.dockerenv\n")?;

    let etc = Layer::new().symlink("etc", &outside);
    loaded(on, "e2e/etc:2", etc)?;
    on.docker.sh("run --rm e2e/etc:2", "cat /etc/hostname >/dev/null && echo own")?.ok()?.prints("own\n")?;

    let files = ["resolv.conf", "hosts", "hostname"].iter().fold(Layer::new(), |layer, name| {
        layer.symlink(&format!("etc/{name}"), &format!("{outside}/{name}"))
    });
    loaded(on, "e2e/files:2", files)?;
    on.docker.sh("run --rm e2e/files:2", "cat /etc/hosts")?.ok()?.shows("localhost")?;
    nothing_outside()?;
    on.docker.run("rmi e2e/links:2 e2e/etc:2 e2e/files:2")?.ok()?;
    Ok(())
}

fn working_directories_and_volumes_stay_inside(on: &Subject) -> anyhow::Result<()> {
    let layer = Layer::new()
        .symlink("out", &format!("../../../../../..{OUTSIDE}"))
        .symlink("loop", "loop")
        .file("file", 0o644, b"x");
    let image = Image::busybox()?.with_layer(layer, Compression::None);
    for (name, dir) in [("out", "/out/made"), ("loop", "/loop"), ("file", "/file")] {
        let image = image.clone().with_config("WorkingDir", json!(dir));
        on.load(&image, &format!("e2e/wd-{name}:1"))?;
    }
    on.docker.run("run --rm e2e/wd-out:1 pwd")?.ok()?.prints(&format!("{OUTSIDE}/made\n"))?;
    for name in ["loop", "file"] {
        let refused = on.docker.run(&format!("run --rm e2e/wd-{name}:1 pwd"))?;
        ensure!(refused.code != 0 && refused.err().contains(&format!("/{name}")), "{refused}");
    }
    let volume = image.with_config("Volumes", json!({"/out/volume": {}}));
    on.load(&volume, "e2e/wd-volume:1")?;
    on.docker.sh("run --rm e2e/wd-volume:1", "ls -d /out/volume")?.ok()?.prints("/out/volume\n")?;
    nothing_outside()?;
    on.docker.run("rmi e2e/wd-out:1 e2e/wd-loop:1 e2e/wd-file:1 e2e/wd-volume:1")?.ok()?;
    Ok(())
}

fn what_an_image_says_wrongly_is_no_fault_of_its_user(on: &Subject) -> anyhow::Result<()> {
    let odd = Image::busybox()?
        .with_config("Entrypoint", json!("/bin/echo"))
        .with_config("Env", json!(["NOVALUE", "=odd", "", "A=b"]))
        .with_config("StopSignal", json!("NOPE"))
        .with_config("ExposedPorts", json!({"99999/tcp": {}, "x": {}}))
        .with_config("Healthcheck", json!({"Test": ["CMD", "true"], "Interval": -5}));
    on.load(&odd, "e2e/odd:1")?;
    on.docker.run("run --rm e2e/odd:1 one word")?.ok()?.prints("one word\n")?;
    on.docker.run("run --rm --entrypoint /bin/sh e2e/odd:1 -c env")?.ok()?.shows("A=b")?;
    let relative = Image::busybox()?.with_config("WorkingDir", json!("x/../y"));
    on.load(&relative, "e2e/relative:1")?;
    let refused = on.docker.run("run --rm e2e/relative:1 true")?;
    ensure!(refused.code != 0 && refused.err().contains("absolute"), "{refused}");
    on.docker.run("rmi -f e2e/odd:1 e2e/relative:1")?.ok()?;
    Ok(())
}

fn whiteouts_of_the_root_and_above_are_refused(on: &Subject) -> anyhow::Result<()> {
    for name in [".wh.", ".wh..", ".wh...", "../.wh.x"] {
        let layer = Layer::new().entry(EntryType::Regular, name, 0o644, None, b"");
        let image = Image::busybox()?.with_layer(layer, Compression::None);
        let failed = on.docker.feed("load", image.archive(&["e2e/whiteout:1"]))?;
        ensure!(failed.code != 0 && failed.err().contains(".wh."), "{name} was accepted\n{failed}");
    }
    Ok(())
}
