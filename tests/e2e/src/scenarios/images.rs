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
    every_tag_of_a_repository_is_pulled,
    another_platforms_image_is_told,
    a_tar_is_imported_from_an_address,
    a_name_that_moves_at_a_load_is_told,
    what_others_were_made_of_stays_and_goes_with_them,
    an_index_is_asked_by_search,
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
    let driver = docker.inspect("e2e/lone:1", "{{json .GraphDriver.Data}}")?;
    for place in ["LowerDir", "MergedDir", "UpperDir", "WorkDir"] {
        ensure!(driver.contains(&format!("\"{place}\":\"/")), "{place} is not in {driver}");
    }
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

fn every_tag_of_a_repository_is_pulled(on: &Subject) -> anyhow::Result<()> {
    for tag in ["1", "2"] {
        let layer = Layer::new().file("tag", 0o644, tag.as_bytes());
        on.registry.push(&Image::busybox()?.with_layer(layer, Compression::Gzip), "e2e/all", tag)?;
    }
    let name = on.registry.reference("e2e/all");
    let pulled = on.docker.run(&format!("pull -a {name}"))?.ok()?;
    pulled
        .shows("1: Pulling from e2e/all")?
        .shows("2: Pulling from e2e/all")?
        .shows(&format!("Status: Downloaded newer image for {name}\n{name}\n"))?;
    on.docker.run(&format!("run --rm {name}:1 cat /tag"))?.ok()?.prints("1")?;
    let again = on.docker.run(&format!("pull -a {name}"))?.ok()?;
    again.shows(&format!("Status: Image is up to date for {name}\n"))?;
    let gone = on.registry.reference("e2e/no-such-repository");
    on.docker.run(&format!("pull -a {gone}"))?.exits(1)?.complains("name unknown")?;
    on.docker.run(&format!("rmi {name}:1 {name}:2"))?.ok()?;
    Ok(())
}

fn another_platforms_image_is_told(on: &Subject) -> anyhow::Result<()> {
    on.registry.push(&Image::busybox()?, "e2e/lone", "1")?;
    let name = on.registry.reference("e2e/lone:1");
    let told = on.docker.run(&format!("pull --platform linux/s390x {name}"))?.exits(1)?;
    told.complains(&format!(
        "image with reference {name} was found but does not match the specified platform: wanted linux/s390x"
    ))?;
    on.docker.run(&format!("rmi {name}"))?.ok()?;
    for refused in ["pull", "create"] {
        let refused = on.docker.run(&format!("{refused} --platform foo busybox"))?.exits(1)?;
        refused.complains("\"foo\": unknown operating system or architecture: invalid argument")?;
    }
    let described = on.call(
        "GET",
        "/images/busybox/json?platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22s390x%22%7D",
        "",
    )?;
    ensure!(described.status == 404, "{described:?}");
    Ok(())
}

fn a_tar_is_imported_from_an_address(on: &Subject) -> anyhow::Result<()> {
    let busybox = on.docker.run("run --rm busybox cat /bin/busybox")?.ok()?.stdout;
    let layer = Layer::new().file("busybox", 0o755, &busybox);
    let image = Image::scratch().with_layer(layer, Compression::Gzip);
    on.registry.push(&image, "e2e/by-address", "1")?;
    let config = image.id();
    let blobs = image.blobs();
    let blob = blobs.keys().find(|digest| **digest != config).expect("a layer");
    let address = format!("{}/v2/e2e/by-address/blobs/{blob}", on.registry.url());
    on.docker.run(&format!("import {address} e2e/fetched:1"))?.ok()?.shows("sha256:")?;
    on.docker.run("run --rm e2e/fetched:1 /busybox echo on")?.ok()?.prints("on\n")?;
    let comment = on.docker.inspect("e2e/fetched:1", "{{.Comment}}")?;
    ensure!(comment == format!("Imported from {address}"), "{comment}");
    let failed = on.docker.run(&format!("import {address}0 e2e/fetched:2"))?.exits(1)?;
    failed.complains("invalid response status 4")?;
    on.docker.run("rmi e2e/fetched:1")?.ok()?;
    Ok(())
}

fn a_name_that_moves_at_a_load_is_told(on: &Subject) -> anyhow::Result<()> {
    let image = |text: &[u8]| -> anyhow::Result<Image> {
        Ok(Image::busybox()?.with_layer(Layer::new().file("text", 0o644, text), Compression::None))
    };
    on.load(&image(b"one")?, "e2e/moving:1")?;
    let old = on.docker.inspect("e2e/moving:1", "{{.Id}}")?;
    let loaded = on.docker.feed("load", image(b"two")?.archive(&["e2e/moving:1"]))?.ok()?;
    loaded.shows(&format!(
        "The image e2e/moving:1 already exists, renaming the old one with ID {old} to empty string\n"
    ))?;
    on.docker.run(&format!("rmi {old} e2e/moving:1"))?.ok()?;
    Ok(())
}

fn what_others_were_made_of_stays_and_goes_with_them(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    let lone = Image::busybox()?.with_layer(Layer::new().noise("parent", 1000, 97), Compression::Gzip);
    on.load(&lone, "e2e/parent:1")?;
    let parent = docker.inspect("e2e/parent:1", "{{.Id}}")?;
    docker.run("run --name maker e2e/parent:1 touch /made")?.ok()?;
    docker.run("commit maker e2e/child:1")?.ok()?;
    ensure!(docker.inspect("e2e/child:1", "{{.Parent}}")? == parent, "the child names another parent");
    docker.run("rm maker")?.ok()?;
    docker.run("rmi e2e/parent:1")?.ok()?.prints("Untagged: e2e/parent:1\n")?;
    docker.run(&format!("rmi {parent}"))?.exits(1)?.complains("image has dependent child images")?;
    let hidden = docker.run("images -q --no-trunc")?.ok()?.out();
    ensure!(!hidden.contains(&parent), "an intermediate image is listed: {hidden}");
    docker.run("images -a -q --no-trunc")?.ok()?.shows(&parent)?;
    docker.run("rmi e2e/child:1")?.ok()?.shows(&format!("Deleted: {parent}"))?;

    // A container shows the id of an image that has lost its name.
    on.load(&lone, "e2e/parent:1")?;
    docker.run("create --name keeper e2e/parent:1 true")?.ok()?;
    docker.run("rmi -f e2e/parent:1")?.ok()?;
    let shown = docker.run("ps -a --no-trunc --filter name=keeper --format {{.Image}}")?.ok()?.out();
    ensure!(shown.contains(parent.trim_start_matches("sha256:")), "ps shows {shown:?}");
    docker.run("rm keeper")?.ok()?;
    docker.run(&format!("rmi -f {parent}"))?;
    Ok(())
}

fn an_index_is_asked_by_search(on: &Subject) -> anyhow::Result<()> {
    // Debian's registry has no index, and says so.
    let term = on.registry.reference("word");
    on.docker.run(&format!("search {term}"))?.exits(1)?.complains("Unexpected status code 404")?;
    on.docker
        .run(&format!("search --filter colour=red {term}"))?
        .exits(1)?
        .complains("invalid filter 'colour'")?;
    on.docker
        .run(&format!("search --limit 101 {term}"))?
        .exits(1)?
        .complains("outside the range of [1, 100]")?;
    Ok(())
}
