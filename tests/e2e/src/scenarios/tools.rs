//! Other people's image tools: what they write is loaded, what the engine saves is read, and lists are made by hand.

use std::path::Path;

use anyhow::ensure;
use serde_json::Value;
use skiff_testkit::image::{Compression, Layer};
use skiff_testkit::process::Program;
use skiff_testkit::{Image, binaries};

use crate::{Subject, scenarios};

scenarios![
    what_other_tools_write_is_loaded,
    skopeo_reads_the_engine_and_fills_it,
    lists_of_manifests_are_made_by_hand_and_pushed,
];

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    Ok(Program::new(program).args(arguments.iter().copied()).run()?.ok()?.out())
}

/// An image in a file, as the engine saves it; returns its id.
fn saved(on: &Subject, name: &str, file: &Path) -> anyhow::Result<String> {
    let layer = Layer::new().file("by", 0o644, name.as_bytes());
    on.load(&Image::busybox()?.with_layer(layer, Compression::Gzip), name)?;
    on.docker.run(&format!("save -o {} {name}", file.display()))?.ok()?;
    let id = on.docker.inspect(name, "{{.Id}}")?;
    on.docker.run(&format!("rmi {name}"))?.ok()?;
    Ok(id)
}

fn what_other_tools_write_is_loaded(on: &Subject) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name).display().to_string();
    let id = saved(on, "e2e/tools:1", &dir.path().join("saved.tar"))?;
    let from = format!("docker-archive:{}", at("saved.tar"));
    run("skopeo", &["copy", "-q", &from, &format!("docker-archive:{}:e2e/tools:1", at("skopeo.tar"))])?;
    run("skopeo", &["copy", "-q", &from, &format!("oci-archive:{}:e2e/tools:1", at("oci.tar"))])?;
    let podman =
        ["--storage-driver", "vfs", "--root", &at("podman"), "--runroot", &at("run")].map(str::to_owned);
    let podman = |arguments: &[&str]| {
        let all: Vec<&str> = podman.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        run("podman", &all)
    };
    podman(&["load", "-q", "-i", &at("saved.tar")])?;
    podman(&["save", "-q", "-o", &at("podman.tar"), "e2e/tools:1"])?;
    podman(&["save", "-q", "--format", "oci-archive", "-o", &at("podman-oci.tar"), "e2e/tools:1"])?;
    podman(&["tag", "e2e/tools:1", "e2e/tools:2"])?;
    podman(&["save", "-q", "-m", "-o", &at("several.tar"), "e2e/tools:1", "e2e/tools:2"])?;
    for (packer, end) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")] {
        let script = format!("{packer} -1 -c <{} >{}", at("skopeo.tar"), at(&format!("packed.{end}")));
        run("sh", &["-c", &script])?;
    }
    let archives = [
        "skopeo.tar",
        "oci.tar",
        "podman.tar",
        "podman-oci.tar",
        "several.tar",
        "packed.gz",
        "packed.xz",
        "packed.zst",
    ];
    for archive in archives {
        let loaded = on.docker.run(&format!("load -i {}", at(archive)))?.ok()?.out();
        ensure!(loaded.contains("e2e/tools:1"), "{archive}: {loaded}");
        // podman and skopeo give names without a registry their own.
        let name = match loaded.contains("localhost/") {
            true => "localhost/e2e/tools:1",
            false => "e2e/tools:1",
        };
        let image = on.docker.inspect(name, "{{.Id}}")?;
        ensure!(image == id || archive.contains("oci"), "{archive}: {image} is not {id}");
        on.docker.run(&format!("run --rm --network none {name} cat /by"))?.ok()?.prints("e2e/tools:1")?;
        on.docker.run(&format!("rmi -f {image}"))?.ok()?;
    }
    Ok(())
}

fn skopeo_reads_the_engine_and_fills_it(on: &Subject) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name).display().to_string();
    let id = saved(on, "e2e/daemon:1", &dir.path().join("saved.tar"))?;
    let (host, place) = (on.docker.host().to_owned(), "docker-daemon:e2e/daemon:1");
    let from = format!("docker-archive:{}", at("saved.tar"));
    run("skopeo", &["copy", "-q", "--dest-daemon-host", &host, &from, place])?;
    ensure!(on.docker.inspect("e2e/daemon:1", "{{.Id}}")? == id, "another image came in");
    let layers = "{{json .RootFS.Layers}}";
    let ours: Value = serde_json::from_str(&on.docker.inspect("e2e/daemon:1", layers)?)?;
    let theirs: Value = serde_json::from_str(&run("skopeo", &["inspect", "--daemon-host", &host, place])?)?;
    ensure!(theirs["Layers"] == ours, "{theirs} has not the layers {ours}");
    run("skopeo", &["copy", "-q", "--src-daemon-host", &host, place, &format!("oci:{}:1", at("oci"))])?;
    // By way of a registry and back.
    let there = format!("docker://{}", on.registry.reference("e2e/daemon:1"));
    let oci = format!("oci:{}:1", at("oci"));
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &oci, &there])?;
    let name = on.registry.reference("e2e/daemon:1");
    on.docker.run(&format!("pull -q {name}"))?.ok()?;
    on.docker.run(&format!("run --rm --network none {name} cat /by"))?.ok()?.prints("e2e/daemon:1")?;
    on.docker.run(&format!("rmi -f e2e/daemon:1 {name}"))?.ok()?;
    Ok(())
}

fn lists_of_manifests_are_made_by_hand_and_pushed(on: &Subject) -> anyhow::Result<()> {
    let skiff = on.docker.clone().with_program(binaries::skiff()?);
    let mine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let layer = |text: &str| Layer::new().file("for", 0o644, text.as_bytes());
    let first = Image::busybox()?.with_layer(layer("mine"), Compression::Gzip);
    let second = Image::busybox()?.with_layer(layer("other"), Compression::Gzip).with_architecture("arm");
    on.registry.push(&first, "e2e/of-one", "1")?;
    on.registry.push(&second, "e2e/of-two", "1")?;
    let [one, two, list] =
        ["e2e/of-one:1", "e2e/of-two:1", "e2e/list:1"].map(|name| on.registry.reference(name));
    skiff
        .run(&format!("manifest create --insecure {list} {one} {two}"))?
        .ok()?
        .prints(&format!("Created manifest list {list}\n"))?;
    skiff.run(&format!("manifest create {list} {one}"))?.exits(1)?.complains("--amend")?;
    skiff.run(&format!("manifest annotate --variant v7 {list} {two}"))?.ok()?;
    skiff
        .run(&format!("manifest annotate --os none {list} {two}"))?
        .exits(1)?
        .complains("os/arch combination")?;
    let json = |text: String| -> anyhow::Result<Value> { Ok(serde_json::from_str(&text)?) };
    // Both commands keep their lists in the same place, in the same form.
    let made = json(skiff.run(&format!("manifest inspect {list}"))?.ok()?.out())?;
    let theirs = json(on.docker.run(&format!("manifest inspect {list}"))?.ok()?.out())?;
    ensure!(made == theirs, "{made} is not {theirs}");
    ensure!(made["manifests"][0]["platform"]["architecture"] == mine, "{made}");
    ensure!(made["manifests"][1]["platform"]["variant"] == "v7", "{made}");
    let pushed = skiff.run(&format!("manifest push --purge {list}"))?.ok()?;
    let digest = pushed.out().lines().last().unwrap_or_default().to_owned();
    pushed.shows(&format!("Pushed ref {}@sha256:", on.registry.reference("e2e/list")))?;
    skiff.run(&format!("manifest rm {list}"))?.exits(1)?.complains(&format!("No such manifest: {list}"))?;
    let there = json(skiff.run(&format!("manifest inspect {list}"))?.ok()?.out())?;
    let theirs = json(on.docker.run(&format!("manifest inspect --insecure {list}"))?.ok()?.out())?;
    ensure!(there == made && theirs == made, "{there} or {theirs} is not {made}");
    on.docker.run(&format!("pull {list}"))?.ok()?.shows(&format!("Digest: {digest}"))?;
    on.docker.run(&format!("run --rm --network none {list} cat /for"))?.ok()?.prints("mine")?;
    let other = skiff.run(&format!("rmi --platform linux/s390x {list}"))?.exits(1)?;
    other.complains("does not match the specified platform")?;
    on.docker.run(&format!("rmi -f {list}"))?.ok()?;
    skiff.run(&format!("manifest inspect {list}0"))?.exits(1)?.complains("no such manifest")?;
    Ok(())
}
