//! What is wrong with the request is said in one clear error, and nothing half-made stays.

use std::net::TcpListener;

use anyhow::ensure;
use skiff_testkit::image::{Compression, EntryType, Layer, digest};
use skiff_testkit::{Image, free_port};

use crate::{Subject, scenarios};

scenarios![
    a_registry_that_is_not_there_is_named,
    an_image_that_does_not_exist_is_named,
    a_corrupt_layer_is_refused_and_not_kept,
    a_truncated_archive_is_refused,
    a_layer_that_climbs_out_is_refused,
    a_symlink_does_not_lead_out_of_the_layer,
    an_image_for_another_machine_is_refused,
    a_busy_port_is_named,
    unknown_containers_users_and_names_are_named,
    an_image_without_a_command_says_so,
    an_apparmor_profile_that_would_not_be_applied_is_refused,
];

fn no_new_images(on: &Subject, name: &str) -> anyhow::Result<()> {
    let listed = on.docker.run("images -a --format {{.Repository}}")?.ok()?.out();
    ensure!(!listed.contains(name) && !listed.contains("<none>"), "images shows {listed:?}");
    Ok(())
}

/// What earlier scenarios built without a name would look like what a failure leaves.
fn remove_nameless_images(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("image prune -f")?.ok().map(drop)
}

fn a_registry_that_is_not_there_is_named(on: &Subject) -> anyhow::Result<()> {
    let port = free_port()?;
    let failed = on.docker.run(&format!("pull 127.0.0.1:{port}/none:1"))?.exits(1)?;
    failed.complains(&format!("127.0.0.1:{port}"))?.complains("connection refused")?;
    let failed = on.docker.run(&format!("run --rm 127.0.0.1:{port}/none:1 true"))?.exits(125)?;
    failed.complains("connection refused")?;
    on.docker.run("pull e2e/UPPER")?.exits(1)?.complains("must be lowercase")?;
    Ok(())
}

fn an_image_that_does_not_exist_is_named(on: &Subject) -> anyhow::Result<()> {
    let reference = on.registry.reference("e2e/nothing:1");
    let failed = on.docker.run(&format!("pull {reference}"))?.exits(1)?;
    ensure!(failed.err().contains("not found") || failed.err().contains("unknown"), "{failed}");
    ensure!(!failed.out().contains("Pulling from"), "there is nothing to pull from: {failed}");
    on.docker
        .run("run --rm --pull never e2e/nothing:1 true")?
        .exits(125)?
        .complains("No such image: e2e/nothing:1")?;
    on.docker.run("inspect nosuchthing")?.exits(1)?.complains("No such object: nosuchthing")?;
    Ok(())
}

fn a_corrupt_layer_is_refused_and_not_kept(on: &Subject) -> anyhow::Result<()> {
    remove_nameless_images(on)?;
    let image = Image::busybox()?.with_layer(Layer::new().noise("bad", 300_000, 5), Compression::None);
    on.registry.push(&image, "e2e/corrupt", "1")?;
    let config = digest(&image.config_bytes());
    let blobs = image.blobs();
    // The last layer only: the first one is stored already.
    let known = Image::busybox()?.blobs();
    let bad =
        blobs.keys().find(|name| **name != config && !known.contains_key(*name)).expect("a layer of its own");
    on.registry.corrupt_blob(bad)?;
    let failed = on
        .docker
        .command(&format!("pull {}", on.registry.reference("e2e/corrupt:1")))
        .timeout(on.patience(60))
        .run()?;
    let failed = failed.exits(1)?;
    ensure!(
        failed.err().contains(&bad[7..19]) || failed.err().contains("digest"),
        "the error names the blob\n{failed}"
    );
    no_new_images(on, "e2e/corrupt")
}

fn a_truncated_archive_is_refused(on: &Subject) -> anyhow::Result<()> {
    remove_nameless_images(on)?;
    let archive = Image::layered()?.archive(&["e2e/truncated:1"]);
    for part in [3, 2] {
        let failed = on.docker.feed("load", &archive[..archive.len() / part])?;
        ensure!(failed.code != 0 && !failed.err().trim().is_empty(), "half an archive was loaded\n{failed}");
    }
    let failed = on.docker.feed("load", "this is no tar")?;
    ensure!(failed.code != 0, "text was loaded\n{failed}");
    no_new_images(on, "e2e/truncated")
}

fn a_layer_that_climbs_out_is_refused(on: &Subject) -> anyhow::Result<()> {
    remove_nameless_images(on)?;
    for path in ["../../climbed", "a/../../../climbed"] {
        let layer = Layer::new().entry(EntryType::Regular, path, 0o644, None, b"out");
        let image = Image::busybox()?.with_layer(layer, Compression::None);
        let failed = on.docker.feed("load", image.archive(&["e2e/climber:1"]))?;
        ensure!(
            failed.code != 0 && failed.err().contains("climbed"),
            "{path} was accepted or not named\n{failed}"
        );
        no_new_images(on, "e2e/climber")?;
    }
    Ok(())
}

fn a_symlink_does_not_lead_out_of_the_layer(on: &Subject) -> anyhow::Result<()> {
    // Absolute names and links are taken inside the root, as in a chroot; the machine's own files stay as they are.
    let layer = Layer::new()
        .symlink("way-out", "/tmp")
        .entry(EntryType::Regular, "way-out/skiff-e2e-escaped", 0o644, None, b"caught\n")
        .entry(EntryType::Regular, "/absolute", 0o644, None, b"inside\n");
    let image = Image::busybox()?.with_layer(layer, Compression::None);
    let loaded = on.docker.feed("load", image.archive(&["e2e/links:1"]))?;
    let escaped = std::path::Path::new("/tmp/skiff-e2e-escaped");
    ensure!(!escaped.exists(), "a file of the layer is on the host");
    if loaded.code == 0 {
        on.docker.run("run --rm e2e/links:1 cat /absolute")?.ok()?.prints("inside\n")?;
        on.docker.run("run --rm e2e/links:1 cat /tmp/skiff-e2e-escaped")?.ok()?.prints("caught\n")?;
        on.docker.run("rmi e2e/links:1")?.ok()?;
    }
    Ok(())
}

fn an_image_for_another_machine_is_refused(on: &Subject) -> anyhow::Result<()> {
    remove_nameless_images(on)?;
    let other = Image::busybox()?.with_architecture("s390x");
    on.registry.push_index(&[("s390x", &other)], "e2e/foreign", "1")?;
    let failed = on.docker.run(&format!("pull {}", on.registry.reference("e2e/foreign:1")))?.exits(1)?;
    failed.complains("no matching manifest for linux/")?;
    no_new_images(on, "e2e/foreign")?;
    let layer = Layer::new().file("bin/alien", 0o755, b"\x7fELF\x02\x02\x01alien machine code");
    on.load(&Image::busybox()?.with_layer(layer, Compression::Gzip), "e2e/alien:1")?;
    let failed = on.docker.run("run --rm e2e/alien:1 /bin/alien")?;
    ensure!(failed.code != 0 && failed.err().contains("exec format error"), "{failed}");
    on.docker.run("rmi e2e/alien:1")?.ok()?;
    Ok(())
}

fn a_busy_port_is_named(on: &Subject) -> anyhow::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let failed = on
        .docker
        .run(&format!("run -d --name busy -p 127.0.0.1:{port}:80 busybox sleep 1000"))?
        .exits(125)?;
    failed.complains(&port.to_string())?.complains("already")?;
    let status = on.docker.inspect("busy", "{{.State.Status}}")?;
    ensure!(status == "created", "the container is {status}");
    drop(taken);
    on.docker.run("start busy")?.ok()?;
    let failed = on.docker.run(&format!("run --rm -p 127.0.0.1:{port}:80 busybox true"))?.exits(125)?;
    failed.complains(&port.to_string())?;
    on.docker.run("ps -aq")?.ok()?.has_lines(1).map(drop)
}

fn unknown_containers_users_and_names_are_named(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    for line in [
        "start nobody",
        "stop nobody",
        "kill nobody",
        "logs nobody",
        "rm nobody",
        "wait nobody",
        "top nobody",
        "exec nobody true",
        "rename nobody else",
    ] {
        docker.run(line)?.exits(1)?.complains("No such container: nobody")?;
    }
    let failed = docker.run("run --rm -u nosuchuser busybox true")?;
    ensure!(failed.code != 0 && failed.err().contains("unable to find user nosuchuser"), "{failed}");
    on.sleeper("taken")?;
    docker
        .run("create --name taken busybox true")?
        .exits(1)?
        .complains("\"/taken\" is already in use by container")?;
    docker
        .run("create --name bad/name busybox true")?
        .exits(1)?
        .complains("Invalid container name (bad/name)")?;
    docker.run("kill -s NOSUCH taken")?.exits(1)?.complains("nvalid signal")?;
    docker.run("run --rm -w relative busybox true")?.exits(125)?.complains("relative")?;
    docker.run("ps -aq")?.ok()?.has_lines(1).map(drop)
}

fn an_image_without_a_command_says_so(on: &Subject) -> anyhow::Result<()> {
    let image = Image::scratch().with_layer(Layer::new().file("only", 0o644, b"x"), Compression::None);
    on.load(&image.with_config("Cmd", serde_json::Value::Null), "e2e/empty:1")?;
    on.docker.run("run --rm e2e/empty:1")?.exits(125)?.complains("no command specified")?;
    on.docker.run("rmi e2e/empty:1")?.ok()?;
    Ok(())
}

fn an_apparmor_profile_that_would_not_be_applied_is_refused(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    let failed = docker.run("run --name confined --security-opt apparmor=mine busybox true")?.exits(125)?;
    failed.complains("apparmor profile \"mine\"")?;
    docker.run("ps -aq")?.ok()?.prints("")?;
    for known in ["docker-default", "unconfined"] {
        docker
            .run(&format!("run --rm --security-opt apparmor={known} busybox echo runs"))?
            .ok()?
            .prints("runs\n")?;
    }
    Ok(())
}
