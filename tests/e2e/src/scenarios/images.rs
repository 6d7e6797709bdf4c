//! Images: pull, load, import, list, tag, remove.

use anyhow::ensure;
use skiff_testkit::image::{Compression, Layer};
use skiff_testkit::{CuttingProxy, Image};

use crate::{Subject, scenarios};

scenarios![
    a_layered_image_is_pulled_and_right,
    pulling_again_finds_it_up_to_date,
    a_manifest_list_gives_this_machines_platform,
    a_pull_by_digest_works,
    a_mirror_answers_for_docker_hub,
    run_pulls_what_is_missing,
    a_broken_download_is_resumed,
    every_archive_form_can_be_loaded,
    a_tar_can_be_imported,
    images_are_listed_tagged_and_removed,
    an_image_in_use_is_kept,
];

fn a_layered_image_is_pulled_and_right(on: &Subject) -> anyhow::Result<()> {
    let image = Image::layered()?;
    let digest = on.registry.push(&image, "e2e/layered", "v1")?;
    let reference = on.registry.reference("e2e/layered:v1");
    let pulled = on.docker.run(&format!("pull {reference}"))?.ok()?;
    let pulled = pulled
        .shows("v1: Pulling from e2e/layered")?
        .shows("Pull complete")?
        .shows(&format!("Digest: {digest}"))?;
    let pulled = pulled.shows(&format!("Status: Downloaded newer image for {reference}"))?;
    pulled.shows(&format!("\n{reference}\n"))?;
    let script = "cat /data/replaced /data/added; ls /data; stat -c %a /data/added";
    let shown = on.docker.sh(&format!("run --rm {reference}"), script)?.ok()?;
    shown.prints("new\nadded\nadded\nreplaced\n600\n")?;
    let id = on.docker.inspect(&reference, "{{.Id}}")?;
    ensure!(id == image.id(), "{id} is not {}", image.id());
    let digests = on.docker.inspect(&reference, "{{index .RepoDigests 0}}")?;
    ensure!(digests.ends_with(&format!("@{digest}")), "repo digest {digests}");
    Ok(())
}

fn pulling_again_finds_it_up_to_date(on: &Subject) -> anyhow::Result<()> {
    on.registry.push(&Image::layered()?, "e2e/again", "v1")?;
    let reference = on.registry.reference("e2e/again:v1");
    on.docker.run(&format!("pull -q {reference}"))?.ok()?.prints(&format!("{reference}\n"))?;
    let again = on.docker.run(&format!("pull {reference}"))?.ok()?;
    again.shows(&format!("Status: Image is up to date for {reference}"))?;
    on.docker.run(&format!("rmi {reference}"))?.ok()?;
    // What other images still have is not fetched again.
    Ok(())
}

fn a_manifest_list_gives_this_machines_platform(on: &Subject) -> anyhow::Result<()> {
    let mine = Image::busybox()?.with_layer(Layer::new().file("mine", 0o644, b"yes\n"), Compression::Zstd);
    let other = Image::busybox()?.with_architecture("s390x");
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    on.registry.push_index(&[("s390x", &other), (architecture, &mine)], "e2e/multi", "latest")?;
    let reference = on.registry.reference("e2e/multi");
    on.docker.run(&format!("pull {reference}"))?.ok()?.shows("Using default tag: latest")?;
    on.docker.run(&format!("run --rm {reference} cat /mine"))?.ok()?.prints("yes\n")?;
    Ok(())
}

fn a_pull_by_digest_works(on: &Subject) -> anyhow::Result<()> {
    let digest = on.registry.push(&Image::layered()?, "e2e/digest", "v1")?;
    let reference = on.registry.reference(&format!("e2e/digest@{digest}"));
    on.docker.run(&format!("pull {reference}"))?.ok()?.shows(&format!("Digest: {digest}"))?;
    on.docker.run(&format!("run --rm {reference} true"))?.ok()?;
    Ok(())
}

fn a_mirror_answers_for_docker_hub(on: &Subject) -> anyhow::Result<()> {
    let image =
        Image::busybox()?.with_layer(Layer::new().file("mirrored", 0o644, b"yes\n"), Compression::Gzip);
    on.registry.push(&image, "library/mirrored", "v1")?;
    on.docker.run("pull mirrored:v1")?.ok()?.shows("docker.io/library/mirrored:v1")?;
    on.docker.run("run --rm mirrored:v1 cat /mirrored")?.ok()?.prints("yes\n")?;
    Ok(())
}

fn run_pulls_what_is_missing(on: &Subject) -> anyhow::Result<()> {
    let image =
        Image::busybox()?.with_layer(Layer::new().file("m", 0o644, b"pulled by run\n"), Compression::Gzip);
    on.registry.push(&image, "e2e/missing", "latest")?;
    let reference = on.registry.reference("e2e/missing");
    let shown = on.docker.run(&format!("run --rm {reference} cat /m"))?.ok()?.prints("pulled by run\n")?;
    shown.complains("Unable to find image")?;
    Ok(())
}

fn a_broken_download_is_resumed(on: &Subject) -> anyhow::Result<()> {
    const SIZE: usize = 6_000_000;
    on.registry.push(&Image::big(2, SIZE)?, "e2e/big", "latest")?;
    let proxy = CuttingProxy::start(on.registry.address(), 1_500_000, 4)?;
    let reference = proxy.reference("e2e/big:latest");
    on.docker.command(&format!("pull {reference}")).timeout(on.patience(90)).run()?.ok()?;
    ensure!(proxy.cuts_made() == 4, "{} connections were cut", proxy.cuts_made());
    let ranges = proxy.requests().iter().filter(|line| line.to_lowercase().starts_with("range:")).count();
    ensure!(ranges > 0, "no request asked for a range: {:#?}", proxy.requests());
    ensure!(
        proxy.bytes() < 2 * SIZE as u64 + 7_000_000,
        "{} bytes were fetched for twice {SIZE}",
        proxy.bytes()
    );
    on.docker.run(&format!("run --rm {reference} wc -c /big0 /big1"))?.ok()?.shows("12000000 total")?;
    on.docker.run(&format!("rmi {reference}"))?.ok()?;
    Ok(())
}

fn every_archive_form_can_be_loaded(on: &Subject) -> anyhow::Result<()> {
    let image = Image::layered()?;
    let archives = [
        ("both", image.archive(&["e2e/both:1", "e2e/both:2"])),
        ("docker", image.docker_archive(&["e2e/docker:1"])),
        ("oci", image.oci_archive(&["e2e/oci:1"])),
    ];
    for (name, archive) in archives {
        on.docker.feed("load", archive)?.ok()?.shows(&format!("Loaded image: e2e/{name}:1"))?;
        on.docker.run(&format!("run --rm e2e/{name}:1 cat /data/replaced"))?.ok()?.prints("new\n")?;
        on.docker.run(&format!("rmi e2e/{name}:1"))?.ok()?;
    }
    on.docker.run("rmi e2e/both:2")?.ok()?;
    Ok(())
}

fn a_tar_can_be_imported(on: &Subject) -> anyhow::Result<()> {
    let busybox = on.docker.run("run --rm busybox cat /bin/busybox")?.ok()?.stdout;
    let tar = Layer::new()
        .dir("bin")
        .file("bin/busybox", 0o755, &busybox)
        .file("note", 0o644, b"imported\n")
        .into_tar();
    let import = on.docker.command("import").args([
        "--change",
        r#"CMD ["/bin/busybox","cat","/note"]"#,
        "-",
        "e2e/imported:1",
    ]);
    import.stdin(tar).run()?.ok()?.shows("sha256:")?;
    on.docker.run("run --rm e2e/imported:1")?.ok()?.prints("imported\n")?;
    on.docker.run("rmi e2e/imported:1")?.ok()?;
    Ok(())
}

fn images_are_listed_tagged_and_removed(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    docker.run("tag busybox e2e/tagged:1")?.ok()?;
    let listed =
        docker.args(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "e2e/tagged"])?.ok()?.out();
    let id = docker.run("images -q --no-trunc busybox:latest")?.ok()?.out();
    let id = id.trim().trim_start_matches("sha256:");
    ensure!(listed == format!("e2e/tagged:1 {}\n", &id[..12]), "images shows {listed:?}");
    docker.run("images")?.ok()?.shows("REPOSITORY")?;
    docker.run("images --filter reference=e2e/tag* -q")?.ok()?.prints(&format!("{}\n", &id[..12]))?;
    docker.run("rmi e2e/tagged:1")?.ok()?.prints("Untagged: e2e/tagged:1\n")?;
    docker.run("rmi e2e/tagged:1")?.exits(1)?.complains("No such image: e2e/tagged:1")?;
    docker.run("run --rm busybox true")?.ok()?;

    let lone = Image::busybox()?.with_layer(Layer::new().noise("lone", 1000, 99), Compression::Gzip);
    on.load(&lone, "e2e/lone:1")?;
    docker.run("rmi e2e/lone:1")?.ok()?.shows("Untagged: e2e/lone:1")?.shows("Deleted: sha256:")?;
    docker.run("image inspect e2e/lone:1")?.exits(1)?.complains("No such image: e2e/lone:1")?;
    Ok(())
}

fn an_image_in_use_is_kept(on: &Subject) -> anyhow::Result<()> {
    let image = Image::busybox()?.with_layer(Layer::new().noise("used", 1000, 98), Compression::Gzip);
    on.load(&image, "e2e/used:1")?;
    on.docker.run("run -d --name user e2e/used:1 sleep 1000")?.ok()?;
    on.docker.run("rmi e2e/used:1")?.exits(1)?.complains("container")?;
    on.docker.run("exec user wc -c /used")?.ok()?;
    on.docker.run("rm -f user")?.ok()?;
    on.docker.run("rmi e2e/used:1")?.ok()?;
    Ok(())
}
