//! Pushing images, and registries that want to know who asks.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use anyhow::ensure;
use skiff_testkit::image::{Compression, Layer};
use skiff_testkit::registry::{PASSWORD, USER};
use skiff_testkit::{DockerCli, Image, Registry, binaries, wait_until};

use crate::{Subject, scenarios};

scenarios![
    a_pushed_image_comes_back_the_same,
    all_tags_are_pushed,
    a_protected_registry_wants_a_login,
    skiff_and_docker_share_their_logins,
    a_helper_keeps_the_logins_of_both,
    what_can_not_be_pushed_is_named,
    skiffs_own_registry_takes_and_gives_images,
];

fn a_pushed_image_comes_back_the_same(on: &Subject) -> anyhow::Result<()> {
    let reference = on.registry.reference("e2e/pushed:v1");
    // A layer of its own: what other scenarios have brought to the registry is mounted, not sent.
    let layer = Layer::new().file("pushed", 0o644, b"once\n");
    on.load(&Image::busybox()?.with_layer(layer, Compression::Gzip), &reference)?;
    let id = on.docker.inspect(&reference, "{{.Id}}")?;
    let pushed = on.docker.run(&format!("push {reference}"))?.ok()?;
    pushed
        .shows(&format!("The push refers to repository [{}]", on.registry.reference("e2e/pushed")))?
        .shows("Pushed")?
        .shows("v1: digest: sha256:")?;
    let digest = on.docker.inspect(&reference, "{{index .RepoDigests 0}}")?;
    on.docker.run(&format!("push {reference}"))?.ok()?.shows("Layer already exists")?;
    on.docker.run(&format!("rmi -f {id}"))?.ok()?;
    on.docker.run(&format!("pull {digest}"))?.ok()?;
    ensure!(on.docker.inspect(&digest, "{{.Id}}")? == id, "another image came back");
    let described = on.call("GET", &format!("/distribution/{digest}/json"), "")?;
    let expected = digest.rsplit('@').next().unwrap_or_default();
    let described: serde_json::Value = serde_json::from_str(&described.text())?;
    ensure!(described["Descriptor"]["digest"] == expected, "{described:?}");
    let events =
        on.docker.args(&["events", "--since", "1h", "--until", &on.now()?, "--filter", "event=push"])?;
    events.ok()?.shows("image push")?;
    Ok(())
}

fn all_tags_are_pushed(on: &Subject) -> anyhow::Result<()> {
    let name = on.registry.reference("e2e/tags");
    for tag in ["one", "two"] {
        on.docker.run(&format!("tag busybox {name}:{tag}"))?.ok()?;
    }
    let pushed = on.docker.run(&format!("push --all-tags {name}"))?.ok()?;
    pushed.shows("one: digest: sha256:")?.shows("two: digest: sha256:")?;
    on.docker.run(&format!("pull {name}:two"))?.ok()?.shows("up to date")?;
    Ok(())
}

fn a_protected_registry_wants_a_login(on: &Subject) -> anyhow::Result<()> {
    let registry = Registry::protected()?;
    let reference = registry.reference("private/x:1");
    let server = registry.address();
    on.docker.run(&format!("tag busybox {reference}"))?.ok()?;
    on.docker.run(&format!("push {reference}"))?.exits(1)?.complains("no basic auth credentials")?;
    let login = format!("login -u {USER} --password-stdin {server}");
    on.docker.feed(&login, "wrong")?.exits(1)?.complains("unauthorized")?;
    on.docker.feed(&login, PASSWORD)?.ok()?.shows("Login Succeeded")?;
    on.docker.run(&format!("push {reference}"))?.ok()?.shows("1: digest: sha256:")?;
    on.docker.run(&format!("pull {reference}"))?.ok()?.shows("up to date")?;
    on.docker.run(&format!("logout {server}"))?.ok()?;
    on.docker.run(&format!("pull {reference}"))?.exits(1)?.complains("no basic auth credentials")?;
    Ok(())
}

fn skiff_and_docker_share_their_logins(on: &Subject) -> anyhow::Result<()> {
    let registry = Registry::protected()?;
    let skiff = on.docker.clone().with_program(binaries::skiff()?);
    let reference = registry.reference("private/y:1");
    let server = registry.address();
    let login = format!("login -u {USER} --password-stdin {server}");
    skiff.feed(&login, "wrong")?.exits(1)?.complains("unauthorized")?;
    skiff.feed(&login, PASSWORD)?.ok()?.shows("Login Succeeded")?.complains("stored unencrypted")?;
    skiff.run(&format!("tag busybox {reference}"))?.ok()?;
    on.docker.run(&format!("push {reference}"))?.ok()?;
    skiff.run(&format!("push -q {reference}"))?.ok()?.prints(&format!("{reference}\n"))?;
    skiff.run(&format!("pull {reference}"))?.ok()?.shows("up to date")?;
    on.docker.run(&format!("logout {server}"))?.ok()?;
    skiff.run(&format!("logout {server}"))?.ok()?.shows("Not logged in")?;
    skiff.run(&format!("pull {reference}"))?.exits(1)?.complains("no basic auth credentials")?;
    Ok(())
}

/// A credential helper that keeps what it is given in files beside itself.
const HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
input=$(cat)
case $1 in
store) server=$(printf %s "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/') ;;
*) server=$input ;;
esac
file=kept-$(printf %s "$server" | tr -c '[:alnum:]' _)
case $1 in
store) printf %s "$input" >"$file" ;;
get) cat "$file" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm -f "$file" ;;
list) echo '{}' ;;
esac
"#;

fn a_helper_keeps_the_logins_of_both(on: &Subject) -> anyhow::Result<()> {
    let registry = Registry::protected()?;
    let (server, reference) = (registry.address(), registry.reference("private/z:1"));
    let dir = tempfile::tempdir()?;
    let helper = dir.path().join("docker-credential-e2e");
    std::fs::write(&helper, HELPER)?;
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default());
    let skiff = on.docker.clone().with_program(binaries::skiff()?);
    let config = dir.path().join("config.json");
    for settings in
        [r#"{"credsStore":"e2e"}"#.to_owned(), format!(r#"{{"credHelpers":{{"{server}":"e2e"}}}}"#)]
    {
        std::fs::write(&config, settings)?;
        for (one, other) in [(&skiff, &on.docker), (&on.docker, &skiff)] {
            let run = |docker: &DockerCli, line: &str| {
                docker.command(line).env("DOCKER_CONFIG", dir.path()).env("PATH", &path)
            };
            let login = format!("login -u {USER} --password-stdin {server}");
            run(one, &login).stdin(PASSWORD).run()?.ok()?.shows("Login Succeeded")?;
            let kept = std::fs::read_to_string(&config)?;
            ensure!(!kept.contains(r#""auth":"#), "the password is in the file: {kept}");
            run(one, &format!("tag busybox {reference}")).run()?.ok()?;
            run(other, &format!("push {reference}")).run()?.ok()?;
            run(one, &format!("pull {reference}")).run()?.ok()?.shows("up to date")?;
            run(other, &format!("logout {server}")).run()?.ok()?;
            let refused = run(one, &format!("pull {reference}")).run()?.exits(1)?;
            refused.complains("no basic auth credentials")?;
        }
    }
    on.docker.run(&format!("rmi {reference}"))?.ok()?;
    Ok(())
}

fn what_can_not_be_pushed_is_named(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run("push nothing/like:this")?
        .exits(1)?
        .complains("An image does not exist locally with the tag: nothing/like")?;
    let port = skiff_testkit::free_port()?;
    let nowhere = format!("127.0.0.1:{port}/x:1");
    on.docker.run(&format!("tag busybox {nowhere}"))?.ok()?;
    on.docker.run(&format!("push {nowhere}"))?.exits(1)?.complains("connection refused")?;
    on.docker.run(&format!("rmi {nowhere}"))?.ok()?;
    Ok(())
}

fn skiffs_own_registry_takes_and_gives_images(on: &Subject) -> anyhow::Result<()> {
    let (port, root) = (skiff_testkit::free_port()?, tempfile::tempdir()?);
    let serve = Command::new(binaries::skiff()?)
        .args([
            "registry",
            "serve",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--user",
            "ann:secret",
            "--root",
        ])
        .arg(root.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _serve = Ended(serve);
    let server = format!("127.0.0.1:{port}");
    wait_until("the registry to listen", on.patience(10), || TcpStream::connect(&server).ok())?;
    let reference = format!("{server}/team/own:1");
    let layer = Layer::new().file("own", 0o644, b"through our own registry\n");
    on.load(&Image::busybox()?.with_layer(layer, Compression::Gzip), &reference)?;
    on.docker.run(&format!("push {reference}"))?.exits(1)?.complains("no basic auth credentials")?;
    on.docker.feed(&format!("login -u ann --password-stdin {server}"), "secret")?.ok()?;
    on.docker.run(&format!("push {reference}"))?.ok()?.shows("1: digest: sha256:")?;
    let digest = on.docker.inspect(&reference, "{{index .RepoDigests 0}}")?;
    on.docker.run(&format!("rmi {reference}"))?.ok()?;
    on.docker.run(&format!("pull -a {server}/team/own"))?.ok()?.shows("Downloaded newer image")?;
    on.docker.run(&format!("run --rm {digest} cat /own"))?.ok()?.prints("through our own registry\n")?;
    on.docker.run(&format!("rmi {reference}"))?.ok()?;
    on.docker.run(&format!("logout {server}"))?.ok()?;
    Ok(())
}

/// A child that ends with the scenario.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
