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
    mounts_of_build_steps_stay_inside,
    users_beyond_all_ids_are_not_root,
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

fn build(on: &Subject, dockerfile: &str) -> anyhow::Result<skiff_testkit::Finished> {
    let program = on.docker.command("build -t e2e/hostile:1 --no-cache -").env("DOCKER_BUILDKIT", "0");
    program.stdin(dockerfile).timeout(on.patience(120)).run()
}

/// What builders have let out: CVE-2024-1753 and CVE-2024-9407 (the source of a bind is a link), CVE-2024-9675 (the id of a cache
/// is a path), CVE-2024-23651 (so is a cache's source), CVE-2024-23652 (what is tidied up after a step lies behind a link).
fn mounts_of_build_steps_stay_inside(on: &Subject) -> anyhow::Result<()> {
    let stage = format!(
        "FROM busybox AS evil\nRUN ln -s / /root-link && ln -s ../../../../../../.. /up && ln -s {OUTSIDE} /outside && \
         echo own >/own\nFROM busybox\n"
    );
    // A link leads to the stage's own root, where the file of that stage is.
    for link in ["root-link", "up"] {
        let step = format!(
            "RUN --mount=type=bind,from=evil,source=/{link},target=/m test -e /m/own && ! test -e /m/proc/1\n"
        );
        build(on, &format!("{stage}{step}"))?.ok()?;
    }
    let refused =
        build(on, &format!("{stage}RUN --mount=type=bind,from=evil,source=/outside,target=/m true\n"))?;
    ensure!(refused.code != 0, "{refused}");
    let refused =
        build(on, &format!("{stage}RUN --mount=type=cache,from=evil,source=/outside,target=/m true\n"))?;
    ensure!(refused.code != 0, "{refused}");
    build(
        on,
        &format!("{stage}RUN --mount=type=cache,id=../../../../../..{OUTSIDE},target=/c touch /c/x\n"),
    )?
    .ok()?;
    nothing_outside()?;

    // What a step leaves in place of what was above its mount: the builder takes the empty mount points away again.
    if !on.in_guest {
        std::fs::create_dir_all(format!("{OUTSIDE}/point"))?;
    }
    let swap =
        format!("RUN --mount=type=tmpfs,target=/made/point mv /made /moved; ln -s {OUTSIDE} /made; true\n");
    let done = build(on, &format!("FROM busybox\n{swap}RUN true\n"));
    let stays = on.in_guest || Path::new(&format!("{OUTSIDE}/point")).is_dir();
    if !on.in_guest {
        let _ = std::fs::remove_dir_all(OUTSIDE);
    }
    done?;
    ensure!(stays, "the builder took away a directory of the machine");
    on.docker.run("rmi -f e2e/hostile:1")?;
    Ok(())
}

/// CVE-2024-40635: a number that does not fit wraps around, to root.
fn users_beyond_all_ids_are_not_root(on: &Subject) -> anyhow::Result<()> {
    for user in ["2147483648", "4294967295", "4294967296", "18446744073709551616", "0:4294967296"] {
        let refused = on.docker.run(&format!("run --rm -u {user} busybox id -u"))?;
        ensure!(refused.code != 0 && refused.out().is_empty(), "{user}: {refused}");
        let image = Image::busybox()?.with_config("User", json!(user));
        on.load(&image, "e2e/user:1")?;
        let refused = on.docker.run("run --rm e2e/user:1 id -u")?;
        ensure!(refused.code != 0 && refused.out().is_empty(), "{user} of the image: {refused}");
    }
    // CVE-2022-36109, CVE-2022-2989: the user's own group is among the further ones.
    on.docker.run("run --rm -u 5:7 --group-add 8 busybox id -G")?.ok()?.prints("7 8\n")?;
    on.docker
        .sh("run --rm -u 5:7 --group-add 8 busybox", "grep ^Groups /proc/self/status")?
        .ok()?
        .shows("7 8")?;
    on.docker.run("rmi -f e2e/user:1")?.ok()?;
    Ok(())
}
