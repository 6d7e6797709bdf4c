//! Building images with the classic builder.

use std::path::Path;

use anyhow::{Context as _, ensure};
use skiff_testkit::process::{Finished, Program};

use crate::{Subject, scenarios};

scenarios![
    a_dockerfile_becomes_an_image_and_the_next_build_comes_from_the_cache,
    stages_copies_and_owners_are_right,
    a_failing_step_tells_its_exit_code,
    links_of_contexts_and_images_lead_nowhere_outside,
    cache_mounts_keep_what_steps_write,
    the_build_cache_is_listed_and_pruned,
    a_client_that_goes_takes_its_steps_with_it,
];

/// A context in a directory of its own.
struct Context {
    directory: tempfile::TempDir,
}

impl Context {
    fn new(files: &[(&str, &str)]) -> anyhow::Result<Context> {
        let directory = tempfile::tempdir()?;
        let context = Context { directory };
        for (path, text) in files {
            context.write(path, text)?;
        }
        Ok(context)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        Ok(std::fs::write(path, text)?)
    }
}

fn command(on: &Subject, line: &str, context: &Context) -> Program {
    // The classic builder also where the client has BuildKit's.
    let program = on.docker.command(&format!("build {line}")).args([context.path()]);
    program.env("DOCKER_BUILDKIT", "0").timeout(on.patience(120))
}

fn build(on: &Subject, line: &str, context: &Context) -> anyhow::Result<Finished> {
    command(on, line, context).run()
}

fn a_dockerfile_becomes_an_image_and_the_next_build_comes_from_the_cache(on: &Subject) -> anyhow::Result<()> {
    let dockerfile = "FROM busybox\nARG GREETING=hello\nENV WHO=world\nCOPY text /data/\nRUN echo \"$GREETING $WHO\" >/data/said\n\
                      WORKDIR /data\nUSER 1000\nLABEL a=b\nCMD [\"cat\", \"said\", \"text\"]\n";
    let context = Context::new(&[("Dockerfile", dockerfile), ("text", "one\n")])?;
    let first = build(on, "-t e2e/built:1 --build-arg GREETING=servus", &context)?.ok()?;
    let first = first.shows("Step 1/9 : FROM busybox")?.shows("Step 5/9 : RUN")?;
    first.shows("Successfully tagged e2e/built:1\n")?;
    on.docker.run("run --rm e2e/built:1")?.ok()?.prints("servus world\none\n")?;
    let format =
        "{{.Config.User}} {{.Config.WorkingDir}} {{index .Config.Labels \"a\"}} {{len .RootFS.Layers}}";
    ensure!(on.docker.inspect("e2e/built:1", format)? == "1000 /data b 4");
    let id = on.docker.inspect("e2e/built:1", "{{.Id}}")?;
    on.docker
        .run("history --no-trunc --format {{.CreatedBy}} e2e/built:1")?
        .ok()?
        .shows("COPY text /data/")?;

    // Contents count, times don't.
    std::fs::File::options()
        .write(true)
        .open(context.path().join("text"))?
        .set_modified(std::time::UNIX_EPOCH)?;
    let again = build(on, "-t e2e/built:2 --build-arg GREETING=servus", &context)?.ok()?;
    again.shows(" ---> Using cache")?;
    ensure!(on.docker.inspect("e2e/built:2", "{{.Id}}")? == id, "a build from the cache is another image");
    context.write("text", "two\n")?;
    build(on, "-q -t e2e/built:3 --build-arg GREETING=servus", &context)?.ok()?.shows("sha256:")?;
    on.docker.run("run --rm e2e/built:3")?.ok()?.prints("servus world\ntwo\n")?;
    on.docker.run("rmi -f e2e/built:1 e2e/built:2 e2e/built:3")?.ok()?;
    Ok(())
}

fn stages_copies_and_owners_are_right(on: &Subject) -> anyhow::Result<()> {
    let dockerfile = "FROM busybox AS one\nRUN echo 1 >/one && ln /one /again && chown 7:8 /one\n\
                      FROM busybox AS two\nRUN echo 2 >/two\nFROM busybox AS unused\nRUN exit 9\n\
                      FROM busybox\nCOPY --from=one /one /again /from/\nCOPY --from=two --chown=5:6 /two /from/two\n\
                      COPY tree/ /tree/\nADD packed.tar /unpacked/\nRUN rm -r /bin/vi && stat -c '%n %u %g' /from/*\n";
    let context = Context::new(&[
        ("Dockerfile", dockerfile),
        ("tree/a/b", "b"),
        ("tree/skip/x", "x"),
        (".dockerignore", "tree/skip\n"),
    ])?;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o640);
    header.set_cksum();
    tar.append_data(&mut header, "in/side", &b"abc"[..])?;
    std::fs::write(context.path().join("packed.tar"), tar.into_inner()?)?;
    let built = build(on, "-t e2e/stages", &context)?.ok()?;
    built.shows("/from/one 7 8")?.shows("/from/two 5 6")?;
    let script = "find /tree /unpacked -type f | sort; cat /unpacked/in/side; ls /bin/vi 2>&1 | wc -l; ls /proc /etc/hosts >/dev/null";
    on.docker.sh("run --rm e2e/stages", script)?.ok()?.prints("/tree/a/b\n/unpacked/in/side\nabc1\n")?;
    on.docker.run("rmi -f e2e/stages")?.ok()?;
    Ok(())
}

fn a_failing_step_tells_its_exit_code(on: &Subject) -> anyhow::Result<()> {
    let context = Context::new(&[("Dockerfile", "FROM busybox\nRUN echo before; exit 3\n")])?;
    let failed = build(on, "-t e2e/failed", &context)?;
    let failed = failed.exits(3)?.shows("before")?;
    failed.complains("The command '/bin/sh -c echo before; exit 3' returned a non-zero code: 3")?;
    on.docker.run("image inspect e2e/failed")?.exits(1)?;
    context.write("Dockerfile", "FROM busybox\nCOPY nothing /\n")?;
    build(on, "-t e2e/failed", &context)?
        .exits(1)?
        .complains("COPY failed: file not found in build context")?;
    context.write("Dockerfile", "FROM busybox\nFOO bar\n")?;
    build(on, "-t e2e/failed", &context)?.exits(1)?.complains("unknown instruction: FOO")?;
    context.write("Dockerfile", "FROM busybox\nRUN true\n")?;
    build(on, "-t e2e/failed", &context)?.ok()?;
    on.docker.run("rmi -f e2e/failed")?.ok()?;
    Ok(())
}

fn links_of_contexts_and_images_lead_nowhere_outside(on: &Subject) -> anyhow::Result<()> {
    let dockerfile = "FROM busybox\nRUN ln -s /proc/1/root /evil && ln -s ../../../../../../tmp /up && mkdir -p /tmp\n\
                      COPY file /evil/tmp/skiff-escaped\nCOPY file /up/skiff-escaped-too\nCOPY link/ /linked/\n";
    let context = Context::new(&[("Dockerfile", dockerfile), ("file", "x\n"), ("link/a", "a")])?;
    std::os::unix::fs::symlink("/etc", context.path().join("link/etc"))?;
    std::os::unix::fs::symlink("/../../../../etc/passwd", context.path().join("link/passwd"))?;
    let built = build(on, "-t e2e/evil", &context)?;
    for name in ["skiff-escaped", "skiff-escaped-too"] {
        let outside = Path::new("/tmp").join(name);
        ensure!(!outside.exists(), "{} was written", outside.display());
    }
    if built.code == 0 {
        on.docker
            .sh("run --rm e2e/evil", "readlink /linked/passwd; cat /tmp/skiff-escaped-too")?
            .ok()?
            .shows("x\n")?;
        on.docker.run("rmi -f e2e/evil")?.ok()?;
    }
    Ok(())
}

fn cache_mounts_keep_what_steps_write(on: &Subject) -> anyhow::Result<()> {
    let dockerfile = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/cache,id=e2e-cache echo $N >>/cache/all; cat /cache/all\n\
                      RUN --mount=type=tmpfs,target=/mem grep ' /mem tmpfs' /proc/mounts\n";
    let context = Context::new(&[("Dockerfile", dockerfile)])?;
    build(on, "--build-arg N=first", &context)?.ok()?.shows("first\n")?;
    let second = build(on, "--build-arg N=second", &context)?.ok()?;
    second.shows("first\nsecond\n")?;
    Ok(())
}

fn the_build_cache_is_listed_and_pruned(on: &Subject) -> anyhow::Result<()> {
    let context =
        Context::new(&[("Dockerfile", "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=3\n")])?;
    build(on, "-q", &context)?.ok()?;
    on.docker.run("system df -v")?.ok()?.shows("Build cache usage")?;
    let pruned = on.docker.run("builder prune -af")?.ok()?;
    pruned.shows("Total")?;
    let usage = on.call("GET", "/system/df?type=build-cache", "")?;
    let text = usage.text();
    ensure!(text.contains("\"BuildCache\":[]"), "{text}");
    let after = build(on, "", &context)?.ok()?;
    ensure!(!after.out().contains("Using cache"), "{after}");
    on.docker.run("image prune -f")?.ok()?;
    Ok(())
}

fn a_client_that_goes_takes_its_steps_with_it(on: &Subject) -> anyhow::Result<()> {
    let context = Context::new(&[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 1000\n")])?;
    let running = command(on, "", &context).start()?;
    running.wait_for("begun", on.patience(30))?;
    // The client's process is dropped, and killed with that.
    drop(running);
    // The next build does not wait for the step of a client that has gone.
    context.write("Dockerfile", "FROM busybox\nRUN echo next\n")?;
    build(on, "-q", &context)?.ok()?;
    on.expect_no_leftovers()
}
