//! Other people's image tools: what they write is loaded, what they push is pulled; and lists of manifests made by hand.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use skiff_testkit::image::{Compression, Layer};
use skiff_testkit::process::Program;
use skiff_testkit::{Image, binaries, wait_until};

use crate::{Subject, scenarios};

scenarios![
    what_other_tools_write_is_loaded,
    skopeo_and_podman_use_the_registry_that_skiff_serves,
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
    // A guest is slow, and reads them as any engine does.
    for archive in archives.into_iter().filter(|archive| !on.in_guest || archive.contains("oci")) {
        let loaded = on.docker.run(&format!("load -i {}", at(archive)))?.ok()?.out();
        ensure!(loaded.contains("e2e/tools:1"), "{archive}: {loaded}");
        // podman and skopeo give names without a registry their own.
        let name = match loaded.contains("localhost/e2e/tools:1") {
            true => "localhost/e2e/tools:1",
            false => "e2e/tools:1",
        };
        let image = on.docker.inspect(name, "{{.Id}}").with_context(|| format!("{archive}: {loaded}"))?;
        ensure!(image == id || archive.contains("oci"), "{archive}: {image} is not {id}");
        on.docker.run(&format!("run --rm --network none {name} cat /by"))?.ok()?.prints("e2e/tools:1")?;
        on.docker.run(&format!("rmi -f {image}"))?.ok()?;
    }
    Ok(())
}

fn skopeo_and_podman_use_the_registry_that_skiff_serves(on: &Subject) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name).display().to_string();
    let id = saved(on, "e2e/served:1", &dir.path().join("saved.tar"))?;
    let mut serve = Served::start(on, &dir.path().join("registry"))?;
    let (here, there) =
        (format!("docker://{}/team/app:1", serve.address), format!("docker://{}/team/app:2", serve.address));
    let from = format!("docker-archive:{}", at("saved.tar"));
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &from, &here])?;
    let podman = ["--storage-driver", "vfs", "--root", &at("podman"), "--runroot", &at("run")];
    let podman = |arguments: &[&str]| run("podman", &[&podman[..], arguments].concat());
    let first = format!("{}/team/app:1", serve.address);
    let second = format!("{}/team/app:2", serve.address);
    podman(&["pull", "-q", "--tls-verify=false", &first])?;
    podman(&["push", "-q", "--tls-verify=false", &first, &second])?;
    // Killed with a push under way: nothing of it shows, what was there stays, and the push can be made again.
    let cut = serve.begin_upload("team/app")?;
    serve.kill()?;
    serve.start_again(on)?;
    ensure!(!dir.path().join("registry/uploads").join(&cut).exists(), "the upload {cut} was kept");
    let tags =
        run("skopeo", &["list-tags", "--tls-verify=false", &format!("docker://{}/team/app", serve.address)])?;
    let tags: Value = serde_json::from_str(&tags)?;
    ensure!(tags["Tags"] == serde_json::json!(["1", "2"]), "{tags}");
    podman(&["push", "-q", "--tls-verify=false", &first, &second])?;
    run(
        "skopeo",
        &["sync", "--src-tls-verify=false", "--src", "docker", "--dest", "dir", &first, &at("synced")],
    )?;
    if !on.in_guest {
        // A guest does not reach what listens on this loopback alone, but by another name.
        on.docker.run(&format!("pull -q {first}"))?.ok()?;
        let pulled = on.docker.inspect(&first, "{{.Id}}")?;
        ensure!(pulled == id, "{pulled} is not {id}");
        on.docker.run(&format!("run --rm --network none {first} cat /by"))?.ok()?.prints("e2e/served:1")?;
        on.docker.run(&format!("rmi -f {first}"))?.ok()?;
    }
    run("skopeo", &["delete", "--tls-verify=false", &there])?;
    Ok(())
}

/// `skiff registry serve`, ended with the scenario.
struct Served {
    address: String,
    root: PathBuf,
    child: Child,
}

impl Served {
    fn start(on: &Subject, root: &Path) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1:{}", skiff_testkit::free_port()?);
        let child = Self::spawn(on, &address, root)?;
        Ok(Self { address, root: root.to_owned(), child })
    }

    fn spawn(on: &Subject, address: &str, root: &Path) -> anyhow::Result<Child> {
        let mut serve = Command::new(binaries::skiff()?);
        serve.args(["registry", "serve", "--listen", address, "--root"]).arg(root);
        let child = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        wait_until("the registry to listen", on.patience(10), || TcpStream::connect(address).ok())?;
        Ok(child)
    }

    /// Sends a part of a blob; returns the upload's name.
    fn begin_upload(&self, repository: &str) -> anyhow::Result<String> {
        let curl = |words: &[&str]| run("curl", &[&["-sS", "-D", "-", "-o", "/dev/null"], words].concat());
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let answer = curl(&["-X", "POST", &url])?;
        let header = answer.lines().find(|line| line.to_lowercase().starts_with("location:"));
        let place = header.context("an upload has a place")?[9..].trim().to_owned();
        let place = match place.starts_with('/') {
            true => format!("http://{}{place}", self.address),
            false => place,
        };
        let sent =
            curl(&["-X", "PATCH", "-H", "Content-Type: application/octet-stream", "-d", "half", &place])?;
        ensure!(sent.contains(" 202"), "{sent}");
        let name = place.split('?').next().and_then(|place| place.rsplit('/').next());
        Ok(name.context("an upload has a name")?.to_owned())
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn start_again(&mut self, on: &Subject) -> anyhow::Result<()> {
        self.child = Self::spawn(on, &self.address, &self.root)?;
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.kill();
    }
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
    let upper = list.replace("e2e/list", "e2e/LIST");
    skiff
        .run(&format!("manifest create {upper} {one}"))?
        .exits(1)?
        .complains("repository name (e2e/LIST) must be lowercase")?;
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
