//! Builds for several platforms by buildx: a list of manifests at a registry or in a layout, a directory for each at the
//! client; and what is refused.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::buildx::{client, project, text};
use crate::{Subject, scenarios};

scenarios![a_build_for_several_platforms_is_pushed_and_written_as_one_image];

/// Cross-compiles, as far as a shell can: nothing is run on another platform than the builder's.
const DOCKERFILE: &str = "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH TARGETVARIANT\n\
    RUN mkdir -p /out/dir && echo for $TARGETARCH$TARGETVARIANT > /out/dir/for && ln /out/dir/for /out/dir/again\n\
    FROM scratch\nCOPY --from=make /out /\nCMD [\"/never\"]\n";
const EPOCH: i64 = 1_600_000_000;

fn a_build_for_several_platforms_is_pushed_and_written_as_one_image(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[("app/Dockerfile", DOCKERFILE)])?;
    let app = dir.path().join("app");
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let build = |more: &[&str]| {
        let first = ["build", "--platform", "linux/amd64,linux/arm64,linux/arm/v7"];
        buildx(&[&first[..], more, &[text(&app)]].concat()).run()
    };

    // A registry has one name for all of them.
    let reference = on.registry.reference("e2e/several:1");
    let metadata = dir.path().join("metadata");
    build(&["--tag", &reference, "--push", "--metadata-file", text(&metadata)])?.ok()?;
    let told: Value = serde_json::from_slice(&std::fs::read(&metadata)?)?;
    let digest = told["containerimage.digest"].as_str().context("the metadata has a digest")?;
    let listed = on.docker.run(&format!("manifest inspect --insecure {reference}"))?.ok()?.out();
    let listed: Value = serde_json::from_str(&listed)?;
    let platforms: Vec<String> = listed["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| format!("{}{}", one["platform"]["architecture"], one["platform"]["variant"]))
        .collect();
    ensure!(platforms == ["\"amd64\"null", "\"arm64\"null", "\"arm\"\"v7\""], "{platforms:?}");
    // What would be pulled is here.
    let mine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let found = on.docker.inspect(&reference, "{{.Architecture}} {{index .RepoDigests 0}}")?;
    ensure!(found == format!("{mine} {}@{digest}", on.registry.reference("e2e/several")), "{found}");
    on.docker.run(&format!("rmi -f {reference}"))?.ok()?;
    for (platform, architecture) in
        [("linux/arm64", "arm64"), ("linux/arm/v7", "arm"), ("linux/amd64", "amd64")]
    {
        let pulled = on.docker.run(&format!("pull --platform {platform} {reference}"))?.ok()?;
        pulled.shows(&format!("Digest: {digest}"))?;
        let found = on.docker.inspect(&reference, "{{.Architecture}} {{json .Config.Cmd}}")?;
        ensure!(found == format!("{architecture} [\"/never\"]"), "{platform}: {found}");
        on.docker.run(&format!("rmi -f {reference}"))?.ok()?;
    }

    // So has a layout; whoever loads it gets what runs here.
    let archive = dir.path().join("several.tar");
    build(&["--tag", "e2e/several:2", "--output", &format!("type=oci,dest={}", text(&archive))])?.ok()?;
    on.docker.run(&format!("load -i {}", text(&archive)))?.ok()?.shows("e2e/several:2")?;
    ensure!(on.docker.inspect("e2e/several:2", "{{.Architecture}}")? == mine, "another platform was loaded");
    on.docker.run("rmi e2e/several:2")?.ok()?;

    // At the client each has a directory, with one time for all files when there is an epoch.
    let (out, tar) = (dir.path().join("out"), dir.path().join("files.tar"));
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    for output in [format!("type=local,dest={}", text(&out)), format!("type=tar,dest={}", text(&tar))] {
        build(&["--build-arg", &epoch, "--output", &output])?.ok()?;
    }
    for (directory, line) in [("linux_amd64", "for amd64\n"), ("linux_arm_v7", "for armv7\n")] {
        let file = out.join(directory).join("dir/for");
        ensure!(std::fs::read_to_string(&file)? == line, "{} has something else", file.display());
        let (one, other) = (file.metadata()?, out.join(directory).join("dir/again").metadata()?);
        let inode = std::os::unix::fs::MetadataExt::ino;
        ensure!(inode(&one) == inode(&other), "a hard link has become a file of its own");
        ensure!(std::os::unix::fs::MetadataExt::mtime(&one) == EPOCH, "{:?}", one.modified());
    }
    let mut in_tar = Vec::new();
    for entry in tar::Archive::new(std::fs::File::open(&tar)?).entries()? {
        let entry = entry?;
        ensure!(entry.header().mtime()? == EPOCH as u64, "{:?} has another time", entry.path()?);
        in_tar.push(entry.path()?.display().to_string());
    }
    ensure!(in_tar.iter().any(|path| path == "linux_arm64/dir/for"), "{in_tar:?}");

    // The store has one platform for a name; and nobody vouches for what was built.
    build(&["--tag", "e2e/several:3"])?.exits(1)?.complains("--output type=oci")?;
    let attested = buildx(&["build", "--attest", "type=sbom", text(&app)]).run()?;
    attested.exits(1)?.complains("Attestations are not supported by the current BuildKit daemon")?;
    Ok(())
}
