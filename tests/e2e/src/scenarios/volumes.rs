//! Volumes of the local driver.

use anyhow::ensure;
use skiff_testkit::image::Compression;
use skiff_testkit::{Image, Layer};

use crate::{Subject, scenarios};

scenarios![
    volumes_are_listed_by_filter_and_format,
    volumes_in_use_are_kept,
    volumes_are_pruned_by_kind_and_label,
    volume_options_are_checked,
    volume_that_is_a_mount_lives_while_it_is_used,
    volume_binds_a_directory,
    volume_mount_options_are_honoured,
    image_content_fills_a_new_volume,
];

fn volumes_are_listed_by_filter_and_format(on: &Subject) -> anyhow::Result<()> {
    let _gone = Volumes(on, &["v-plain", "v-label", "v-used"]);
    on.docker.run("volume create v-plain")?.ok()?.prints("v-plain\n")?;
    on.docker.run("volume create --label tier=web --label x v-label")?.ok()?;
    on.docker.run("create --name box -v v-used:/data busybox")?.ok()?;
    let names = |filter: &str| -> anyhow::Result<Vec<String>> {
        let listed = on.docker.run(&format!("volume ls -q --filter name=v- {filter}"))?.ok()?;
        Ok(listed.out().lines().map(str::to_owned).collect())
    };
    ensure!(names("")? == ["v-label", "v-plain", "v-used"]);
    ensure!(names("--filter label=tier=web")? == ["v-label"]);
    ensure!(names("--filter label=x")? == ["v-label"]);
    ensure!(names("--filter dangling=true")? == ["v-label", "v-plain"]);
    ensure!(names("--filter dangling=false")? == ["v-used"]);
    ensure!(names("--filter driver=local")?.len() == 3);
    ensure!(names("--filter driver=nfs")?.is_empty());
    on.docker.run("volume ls --filter colour=red")?.exits(1)?.complains("invalid filter 'colour'")?;
    on.docker
        .args(&[
            "volume",
            "ls",
            "--filter",
            "name=v-label",
            "--format",
            "{{.Name}} {{.Driver}} {{.Scope}} {{.Label \"tier\"}}",
        ])?
        .ok()?
        .prints("v-label local local web\n")?;
    let inspected = on.docker.run("volume inspect v-label")?.ok()?.shows("\"Scope\": \"local\"")?;
    inspected.shows("\"CreatedAt\": \"20")?.shows("/v-label/_data\"")?.shows("\"Options\": null")?;
    // The same name again is the same volume.
    on.docker.run("volume create --label other v-label")?.ok()?.prints("v-label\n")?;
    on.docker.args(&["volume", "inspect", "-f", "{{len .Labels}}", "v-label"])?.ok()?.prints("2\n")?;
    on.docker.run("volume inspect v-none")?.exits(1)?.complains("no such volume")?;
    let answer = on.call("PUT", "/volumes/v-plain?version=1", "{}")?;
    ensure!(answer.status == 503 && answer.text().contains("swarm is unavailable"), "{answer:?}");
    Ok(())
}

fn volumes_in_use_are_kept(on: &Subject) -> anyhow::Result<()> {
    let _gone = Volumes(on, &["v-kept"]);
    let id = on.docker.run("create --name box -v v-kept:/data busybox")?.ok()?.out();
    let complaint = format!("remove v-kept: volume is in use - [{}]", id.trim());
    on.docker.run("volume rm v-kept")?.exits(1)?.complains(&complaint)?;
    on.docker.run("volume rm -f v-kept")?.exits(1)?.complains(&complaint)?;
    on.docker.run("rm box")?.ok()?;
    on.docker.run("volume rm v-kept")?.ok()?.prints("v-kept\n")?;
    on.docker.run("volume rm v-kept")?.exits(1)?.complains("get v-kept: no such volume")?;
    on.docker.run("volume rm -f v-kept")?.ok()?;
    Ok(())
}

fn volumes_are_pruned_by_kind_and_label(on: &Subject) -> anyhow::Result<()> {
    let _gone = Volumes(on, &["v-one", "v-two"]);
    on.docker.run("volume create v-one")?.ok()?;
    on.docker.run("volume create --label keep v-two")?.ok()?;
    let anonymous = on.docker.run("volume create")?.ok()?.out();
    on.docker.sh("run --rm -v v-one:/data busybox", "head -c 100000 /dev/zero > /data/file")?.ok()?;
    let pruned = on.docker.run("volume prune -f")?.ok()?.shows(anonymous.trim())?;
    ensure!(!pruned.out().contains("v-one"), "a named volume is gone\n{pruned}");
    let df = on.docker.run("system df -v")?.ok()?;
    ensure!(
        df.out().lines().any(|line| line.starts_with("v-one") && line.contains("100kB")),
        "no size\n{df}"
    );
    let pruned = on.docker.run("volume prune -f -a --filter label!=keep")?.ok()?.shows("v-one")?;
    pruned.shows("Total reclaimed space: 100kB")?;
    on.docker.run("volume inspect v-two")?.ok()?;
    Ok(())
}

fn volume_options_are_checked(on: &Subject) -> anyhow::Result<()> {
    let _gone = Volumes(on, &["v-nofs", "v-nodir"]);
    for (options, complaint) in [
        ("-d nosuch", "create v-bad: error looking up volume plugin nosuch: plugin \"nosuch\" not found"),
        ("-o colour=red", "create v-bad: invalid option: \"colour\""),
        ("-o type=tmpfs", "create v-bad: missing required option: \"device\""),
        ("-o size=1g", "create v-bad: quota size requested but no quota support"),
    ] {
        on.docker.run(&format!("volume create {options} v-bad"))?.exits(1)?.complains(complaint)?;
    }
    on.docker.run("volume create a")?.exits(1)?.complains("volume name is too short")?;
    // What can't be mounted is told by the start, as the mount may be possible later.
    on.docker.run("volume create -o type=nosuchfs -o device=none v-nofs")?.ok()?;
    on.docker
        .run("run --rm -v v-nofs:/data busybox true")?
        .exits(125)?
        .complains("failed to mount local volume: mount none:")?
        .complains("/v-nofs/_data: no such device")?;
    on.docker.run("volume create -o type=none -o o=bind -o device=/no/where v-nodir")?.ok()?;
    let refused = on.docker.run("run --rm -v v-nodir:/data busybox true")?;
    if on.is_guest() {
        // There the directory is one of the host, which shares only some.
        refused.exits(125)?.complains("mounts denied")?.complains("/no/where")?;
        return Ok(());
    }
    refused
        // As docker has it for any error with these words.
        .exits(127)?
        .complains("error while mounting volume '")?
        .complains("/v-nodir/_data, flags: 0x1000: no such file or directory")?;
    Ok(())
}

fn volume_that_is_a_mount_lives_while_it_is_used(on: &Subject) -> anyhow::Result<()> {
    let _gone = Volumes(on, &["v-memory"]);
    on.docker.run("volume create -o type=tmpfs -o device=tmpfs -o o=size=1m,mode=1777 v-memory")?.ok()?;
    on.docker.run("run -d --name one -v v-memory:/data busybox sleep 1000")?.ok()?;
    on.docker
        .sh("exec one", "echo here > /data/file; grep ' /data ' /proc/mounts")?
        .ok()?
        .shows("size=1024k")?;
    on.docker.run("run --rm -v v-memory:/other:ro busybox cat /other/file")?.ok()?.prints("here\n")?;
    // The end of the other did not take it away.
    on.docker.run("run --rm -v v-memory:/other busybox cat /other/file")?.ok()?.prints("here\n")?;
    on.docker
        .sh("run --rm -v v-memory:/other busybox", "head -c 2000000 /dev/zero > /other/big")?
        .exits(1)?;
    on.docker.run("kill one")?.ok()?;
    on.docker.wait_for_status("one", "exited", on.patience(10))?;
    on.docker.run("run --rm -v v-memory:/other busybox ls /other")?.ok()?.prints("")?;
    Ok(())
}

fn volume_binds_a_directory(on: &Subject) -> anyhow::Result<()> {
    let _gone = Volumes(on, &["v-bound", "v-source"]);
    on.docker.run("volume create v-source")?.ok()?;
    on.docker.sh("run --rm -v v-source:/data busybox", "echo there > /data/file")?.ok()?;
    let path = on.docker.args(&["volume", "inspect", "-f", "{{.Mountpoint}}", "v-source"])?.ok()?.out();
    let device = format!("device={}", path.trim());
    on.docker
        .args(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "v-bound"])?
        .ok()?;
    on.docker.run("run --rm -v v-bound:/data busybox cat /data/file")?.ok()?.prints("there\n")?;
    // What is bound is not the volume's to delete.
    on.docker.run("volume rm v-bound")?.ok()?;
    on.docker.run("run --rm -v v-source:/data busybox cat /data/file")?.ok()?.prints("there\n")?;
    Ok(())
}

fn volume_mount_options_are_honoured(on: &Subject) -> anyhow::Result<()> {
    let _gone = Volumes(on, &["v-parts", "v-made"]);
    let mount = |text: &str, script: &str| {
        on.docker.args(&["run", "--rm", "--mount", text, "busybox", "sh", "-c", script])
    };
    mount(
        "type=volume,src=v-parts,dst=/data",
        "mkdir -p /data/a/b; echo part > /data/a/b/file; ln -s / /data/out",
    )?
    .ok()?;
    // Their files are listed without a container, and a link leads nowhere else.
    for (path, name) in [("/a/b", "file"), ("/out", "a")] {
        let list = on.call("GET", &format!("/volumes/v-parts/files?path={path}"), "")?;
        let named = format!("\"Name\":\"{name}\"");
        ensure!(list.status == 200 && list.text().contains(&named), "{path}: {}", list.text());
    }
    ensure!(on.call("GET", "/volumes/v-parts/files?path=/none", "")?.status == 404, "a directory of nothing");
    mount("type=volume,src=v-parts,dst=/data,volume-subpath=a/b", "cat /data/file; ls /data")?
        .ok()?
        .prints("part\nfile\n")?;
    mount("type=volume,src=v-parts,dst=/data,volume-subpath=a/b/file", "cat /data")?
        .ok()?
        .prints("part\n")?;
    mount("type=volume,src=v-parts,dst=/data,readonly", "touch /data/x")?
        .exits(1)?
        .complains("Read-only file system")?;
    for (text, complaint) in [
        ("type=volume,src=v-parts,dst=/data,volume-subpath=none", "no such file or directory"),
        (
            "type=volume,src=v-parts,dst=/data,volume-subpath=out",
            "path concatenation escapes the base directory",
        ),
        (
            "type=volume,src=v-parts,dst=/data,volume-subpath=../x",
            "subpath must be a relative path within the volume",
        ),
        ("type=volume,dst=/data,volume-subpath=x", "must not set Subpath when using anonymous volumes"),
        ("type=volume,src=v-x,dst=/data,volume-driver=nosuch", "error looking up volume plugin nosuch"),
        ("type=volume,src=v-x,dst=/data,volume-opt=colour=red", "create v-x: invalid option: \"colour\""),
    ] {
        let refused = mount(text, "true")?.complains(complaint)?;
        ensure!(refused.code >= 125, "not refused\n{refused}");
    }
    let options = "type=volume,src=v-made,dst=/data,volume-label=tier=web,volume-opt=type=tmpfs,volume-opt=device=tmpfs";
    mount(options, "grep -c ' /data tmpfs' /proc/mounts")?.ok()?.prints("1\n")?;
    on.docker
        .args(&["volume", "inspect", "-f", "{{.Labels.tier}} {{.Options.type}}", "v-made"])?
        .ok()?
        .prints("web tmpfs\n")?;
    Ok(())
}

fn image_content_fills_a_new_volume(on: &Subject) -> anyhow::Result<()> {
    let _gone = Volumes(on, &["v-filled", "v-bare"]);
    let layer = Layer::new().dir("srv").file("srv/seed", 0o644, b"from the image\n");
    let image = Image::busybox()?.with_layer(layer, Compression::None);
    on.load(&image, "seeded:latest")?;
    on.docker.run("run --rm -v v-filled:/srv seeded cat /srv/seed")?.ok()?.prints("from the image\n")?;
    on.docker.sh("run --rm -v v-filled:/srv seeded", "rm /srv/seed; touch /srv/own")?.ok()?;
    on.docker.run("run --rm -v v-filled:/srv seeded ls /srv")?.ok()?.prints("own\n")?;
    let bare =
        ["run", "--rm", "--mount", "type=volume,src=v-bare,dst=/srv,volume-nocopy", "seeded", "ls", "/srv"];
    on.docker.args(&bare)?.ok()?.prints("")?;
    Ok(())
}

/// Volumes that must not outlive their scenario.
struct Volumes<'a>(&'a Subject, &'a [&'a str]);

impl Drop for Volumes<'_> {
    fn drop(&mut self) {
        let _ = self.0.remove_containers();
        let _ = self.0.docker.command("volume rm -f").args(self.1.iter().copied()).run();
    }
}
