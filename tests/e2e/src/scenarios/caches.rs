//! Caches that builds leave for other machines, images in directories as contexts, results that come out the same, and the
//! history of builds: by buildx.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::buildx::{client, project, text};
use crate::{Subject, scenarios};

scenarios![
    caches_at_a_registry_and_in_a_directory_are_found_by_a_builder_that_has_none,
    an_image_in_a_directory_is_a_context,
    the_same_sources_make_the_same_image,
    the_history_tells_of_each_build,
];

fn caches_at_a_registry_and_in_a_directory_are_found_by_a_builder_that_has_none(
    on: &Subject,
) -> anyhow::Result<()> {
    // The second stage's first step is in no image: only the largest cache has it.
    let dockerfile = "FROM busybox AS tool\nRUN echo $((6 * 7)) > /answer && echo tool-ran-$((1 + 1))\nFROM busybox\n\
                      COPY file.txt /\nCOPY --from=tool /answer /answer\nRUN cat /answer && echo rest-ran-$((1 + 1))\n";
    let dir = project(&[("app/Dockerfile", dockerfile), ("app/file.txt", "one\n")])?;
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let app = dir.path().join("app");
    let build = |more: &[&str]| {
        let mut words = vec!["build", "--tag", "cached:1"];
        words.extend(more);
        words.push(text(&app));
        buildx(&words).run()?.ok()
    };
    let forget = || {
        on.docker.run("image rm cached:1")?.ok()?;
        on.docker.run("builder prune --all --force")?.ok()
    };
    let reference = on.registry.reference("cache/app");
    let place = dir.path().join("cache");
    let to = format!("type=registry,ref={reference},mode=max");
    let first =
        build(&["--cache-to", &to, "--cache-to", &format!("type=local,dest={},mode=max", text(&place))])?;
    let first = first.complains("tool-ran-2")?;
    ensure!(first.err().contains("exporting cache to registry"), "{}", first.err());
    ensure!(place.join("index.json").is_file(), "no index in the client's directory");
    let id = on.docker.inspect("cached:1", "{{json .RootFS}}")?;

    for from in [format!("type=registry,ref={reference}"), format!("type=local,src={}", text(&place))] {
        forget()?;
        let found = build(&["--cache-from", &from])?;
        ensure!(!found.err().contains("-ran-2"), "a step ran again with {from}:\n{}", found.err());
        ensure!(found.err().matches("CACHED").count() >= 3, "{}", found.err());
        ensure!(on.docker.inspect("cached:1", "{{json .RootFS}}")? == id, "other layers with {from}");
        on.docker.run("run --rm cached:1 cat /answer /file.txt")?.ok()?.prints("42\none\n")?;
    }

    // What has changed is made anew, what has not is found; a stage can be kept from it.
    forget()?;
    std::fs::write(app.join("file.txt"), "two\n")?;
    let from = format!("type=registry,ref={reference}");
    let changed = build(&["--cache-from", &from])?;
    ensure!(!changed.err().contains("tool-ran-2"), "{}", changed.err());
    changed.complains("rest-ran-2")?;
    let filtered = build(&["--no-cache-filter", "tool"])?;
    filtered.complains("tool-ran-2")?;

    // The smallest cache, in the image itself.
    forget()?;
    let image = on.registry.reference("cache/inline");
    buildx(&["build", "--cache-to", "type=inline", "--tag", &image, "--push", text(&app)]).run()?.ok()?;
    on.docker.args(&["image", "rm", &image])?.ok()?;
    on.docker.run("builder prune --all --force")?.ok()?;
    let found = build(&["--cache-from", &image])?;
    ensure!(!found.err().contains("rest-ran-2"), "{}", found.err());
    // One that is not there is no reason to fail.
    build(&["--cache-from", &format!("{reference}-nowhere")])?;
    let elsewhere = buildx(&["build", "--cache-to", "type=azblob,name=x", text(&app)]).run()?;
    elsewhere.exits(1)?.complains("unknown cache exporter: \"azblob\"")?;
    forget().map(drop)
}

fn an_image_in_a_directory_is_a_context(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[
        ("base/Dockerfile", "FROM busybox\nRUN echo from-a-directory > /mark\nENV MARK=set\n"),
        ("app/Dockerfile", "FROM base\nCOPY --from=base /mark /copied\nRUN echo $MARK > /env\n"),
    ])?;
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let (base, app, layout) = (dir.path().join("base"), dir.path().join("app"), dir.path().join("layout"));
    let out = format!("type=oci,dest={}/base.tar", text(dir.path()));
    buildx(&["build", "--output", &out, text(&base)]).run()?.ok()?;
    std::fs::create_dir(&layout)?;
    let archive = std::fs::File::open(dir.path().join("base.tar"))?;
    tar::Archive::new(archive).unpack(&layout)?;
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
    let digest = index["manifests"][0]["digest"].as_str().context("the index has a manifest")?;
    on.docker.run("builder prune --all --force")?.ok()?;
    let context = format!("base=oci-layout://{}@{digest}", text(&layout));
    let built = buildx(&["build", "--tag", "of-layout", "--build-context", &context, text(&app)]).run()?;
    built.ok()?;
    on.docker.run("run --rm of-layout cat /copied /env")?.ok()?.prints("from-a-directory\nset\n")?;
    on.docker.run("image rm of-layout")?.ok().map(drop)
}

fn the_same_sources_make_the_same_image(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[(
        "Dockerfile",
        "FROM busybox\nRUN mkdir /d && echo 1 > /d/new && touch -d '2001-02-03 04:05:06' /d/old\nCOPY Dockerfile /\n",
    )])?;
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let epoch = 1_600_000_000;
    let build = |more: &[&str]| {
        let epoch = format!("SOURCE_DATE_EPOCH={epoch}");
        let mut words = vec!["build", "--no-cache", "--build-arg", &epoch];
        words.extend(more);
        words.push(text(dir.path()));
        buildx(&words).run()?.ok()?;
        on.docker.inspect("same", "{{.Id}} {{.Created}}")
    };
    let rewritten = ["--output", "type=image,name=same,rewrite-timestamp=true"];
    let first = build(&rewritten)?;
    ensure!(first.ends_with("2020-09-13T12:26:40Z"), "{first}");
    // Times of files have seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    std::fs::write(dir.path().join("Dockerfile"), std::fs::read(dir.path().join("Dockerfile"))?)?;
    ensure!(build(&rewritten)? == first, "the same sources made another image");
    ensure!(build(&["--tag", "same"])? != first, "without it the files' times count");
    build(&rewritten)?;
    let times = on.docker.run("run --rm same stat -c %Y /d /d/new /d/old /Dockerfile")?.ok()?.out();
    let times: Vec<i64> = times.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(times == [epoch, epoch, 981_173_106, epoch], "{times:?}");
    on.docker.run("image rm same")?.ok().map(drop)
}

fn the_history_tells_of_each_build(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[
        ("Dockerfile", "FROM busybox\nARG WHO\nRUN echo hello $WHO\n"),
        ("bad", "FROM busybox\nRUN echo before; exit 3\n"),
    ])?;
    let Some(buildx) = client(on, "docker-buildx-new", dir.path()) else { return Ok(()) };
    if buildx(&["version"]).run()?.code != 0 {
        eprintln!("       skipped: the newer buildx does not run on this machine");
        return Ok(());
    }
    let metadata = dir.path().join("metadata");
    let words =
        ["build", "--no-cache", "--build-arg", "WHO=me", "--tag", "told", "--metadata-file", text(&metadata)];
    buildx(&[words.as_slice(), &[text(dir.path())]].concat()).run()?.ok()?;
    let told: Value = serde_json::from_slice(&std::fs::read(&metadata)?)?;
    let reference = told["buildx.build.ref"].as_str().context("the metadata has a reference")?;
    let provenance = &told["buildx.build.provenance"];
    ensure!(provenance["invocation"]["parameters"]["args"]["build-arg:WHO"] == "me", "{provenance}");
    ensure!(
        provenance["materials"][0]["uri"].as_str().is_some_and(|uri| uri.starts_with("pkg:docker/busybox@")),
        "{provenance}"
    );
    let good = reference.rsplit('/').next().unwrap_or_default();
    let failed = buildx(&["build", "--file", text(&dir.path().join("bad")), text(dir.path())]).run()?;
    ensure!(failed.code != 0, "{failed}");

    let listed = buildx(&["history", "ls", "--format", "json"]).run()?.ok()?.out();
    let records: Vec<Value> = listed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let find = |status: &str| {
        records
            .iter()
            .find(|record| record["status"] == status)
            .with_context(|| format!("no {status} in {listed}"))
    };
    ensure!(find("Completed")?["total_steps"] == find("Completed")?["completed_steps"], "{listed}");
    let bad =
        find("Error")?["ref"].as_str().and_then(|name| name.rsplit('/').next()).context("it has a name")?;
    let inspected = buildx(&["history", "inspect", good, "--format", "json"]).run()?.ok()?.out();
    let inspected: Value = serde_json::from_str(&inspected)?;
    ensure!(inspected["Status"] == "completed" && inspected["BuildArgs"][0]["Value"] == "me", "{inspected}");
    ensure!(inspected["Attachments"].as_array().is_some_and(|all| all.len() == 2), "{inspected}");
    buildx(&["history", "inspect", bad])
        .run()?
        .ok()?
        .shows("exit code: 3")?
        .shows(">>> RUN echo before; exit 3")?;
    let attached =
        buildx(&["history", "inspect", "attachment", good, "--type", "provenance"]).run()?.ok()?.out();
    ensure!(attached.contains("pkg:docker/busybox@"), "{attached}");
    let logs = buildx(&["history", "logs", good, "--progress", "plain"]).run()?.ok()?;
    ensure!(format!("{}{}", logs.out(), logs.err()).contains("hello me"), "{logs}");
    buildx(&["history", "rm", good]).run()?.ok()?;
    let listed = buildx(&["history", "ls", "--format", "json"]).run()?.ok()?.out();
    ensure!(!listed.contains(good) && listed.contains(bad), "{listed}");
    on.docker.run("image rm told")?.ok().map(drop)
}
