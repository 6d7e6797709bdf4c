//! Bind mounts of the host's directories: the same words and the same files with and without a guest between.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::{Subject, scenarios};

scenarios![
    bind_mounts_are_the_hosts_files,
    bind_sources_are_made_or_refused_as_with_docker,
    bind_mounts_of_what_is_not_shared_are_refused,
    docker_socket_is_the_engines_own_in_a_container,
    containers_and_the_host_write_the_same_tree,
    host_changes_are_seen_by_the_next_exec,
    volumes_are_exported_imported_and_copied_from,
];

fn directory() -> anyhow::Result<TempDir> {
    tempfile::Builder::new().prefix("skiff-files-").tempdir().context("make a directory")
}

fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn bind_mounts_are_the_hosts_files(on: &Subject) -> anyhow::Result<()> {
    let dir = directory()?;
    let host = dir.path();
    fs::write(host.join("from-host"), "one\n")?;
    let bind = format!("run --rm -v {}:/x busybox", host.display());
    let script = "cat /x/from-host && echo two > /x/from-container && mkdir -p /x/a/b && echo deep > /x/a/b/c && \
                  ln -s from-host /x/link && cat /x/link && chown 12:34 /x/a/b/c && chmod 640 /x/a/b/c && \
                  stat -c %u:%g:%a /x/a/b/c";
    on.docker.sh(&bind, script)?.ok()?.prints("one\none\n12:34:640\n")?;
    ensure!(text(&host.join("from-container"))? == "two\n");
    ensure!(text(&host.join("a/b/c"))? == "deep\n");
    ensure!(fs::read_link(host.join("link"))? == Path::new("from-host"));
    if on.is_guest() {
        ensure!(
            fs::metadata(host.join("a/b/c"))?.uid() == fs::metadata(host)?.uid(),
            "the host's owner stays"
        );
    }
    // What was set is still set for the next container.
    on.docker.sh(&bind, "stat -c %u:%g:%a /x/a/b/c; rm -r /x/a")?.ok()?.prints("12:34:640\n")?;
    ensure!(!host.join("a").exists());

    // A single file, and a directory that may only be read.
    let file = format!("run --rm -v {}/from-host:/etc/motd busybox", host.display());
    on.docker.sh(&file, "cat /etc/motd; echo more >> /etc/motd")?.ok()?.prints("one\n")?;
    ensure!(text(&host.join("from-host"))? == "one\nmore\n");
    let read_only = format!("run --rm -v {}:/x:ro busybox", host.display());
    on.docker.sh(&read_only, "echo no > /x/from-host")?.exits(1)?.complains("Read-only file system")?;
    // A volume that binds a directory, as compose files write it.
    let device = format!("device={}", host.display());
    on.docker
        .args(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "f-bound"])?
        .ok()?;
    on.docker.run("run --rm -v f-bound:/x busybox cat /x/from-host")?.ok()?.prints("one\nmore\n")?;
    on.docker.run("volume rm f-bound")?.ok()?;
    // A link on the way is the host's to follow.
    symlink(host, host.join("self"))?;
    let linked = format!("run --rm -v {}/self/self:/x busybox cat /x/from-host", host.display());
    on.docker.run(&linked)?.ok()?.prints("one\nmore\n")?;
    let created = format!("create --name bound -v {}:/x busybox true", host.display());
    on.docker.run(&created)?.ok()?;
    let source = on.docker.inspect("bound", "{{(index .Mounts 0).Source}}")?;
    ensure!(source == host.display().to_string(), "inspect shows {source}");
    on.docker.run("cp bound:/x/from-host -")?.ok()?.shows("more")?;
    Ok(())
}

fn bind_sources_are_made_or_refused_as_with_docker(on: &Subject) -> anyhow::Result<()> {
    let dir = directory()?;
    let missing = dir.path().join("not/yet");
    let mount = format!("type=bind,source={},target=/x", missing.display());
    on.docker
        .args(&["run", "--rm", "--mount", &mount, "busybox", "true"])?
        .exits(125)?
        .complains(&format!("bind source path does not exist: {}", missing.display()))?;
    ensure!(!missing.exists());
    on.docker.run(&format!("run --rm -v {}:/x busybox touch /x/file", missing.display()))?.ok()?;
    ensure!(missing.join("file").exists());
    on.docker.args(&["run", "--rm", "--mount", &mount, "busybox", "ls", "/x"])?.ok()?.prints("file\n")?;
    Ok(())
}

fn bind_mounts_of_what_is_not_shared_are_refused(on: &Subject) -> anyhow::Result<()> {
    if !on.is_guest() {
        // There every path is the user's own, as with Docker on Linux.
        return Ok(());
    }
    let dir = directory()?;
    symlink("/etc", dir.path().join("out"))?;
    for source in ["/etc".to_owned(), "/etc/hostname".into(), format!("{}/out/ssh", dir.path().display())] {
        on.docker
            .run(&format!("run --rm -v {source}:/x busybox true"))?
            .exits(125)?
            .complains("mounts denied")?
            .complains(&format!("The path {source} is not shared from the host"))?
            .complains("files.shares")?;
    }
    Ok(())
}

fn docker_socket_is_the_engines_own_in_a_container(on: &Subject) -> anyhow::Result<()> {
    let Some(socket) = on.docker.host().strip_prefix("unix://").map(str::to_owned) else { return Ok(()) };
    let usual = "/var/run/docker.sock";
    let sources = if on.is_guest() { vec![usual, socket.as_str()] } else { vec![socket.as_str()] };
    for source in sources {
        let bind = format!("run --rm -v {source}:{usual} busybox test -S {usual}");
        on.docker.run(&bind)?.ok()?;
    }
    Ok(())
}

fn containers_and_the_host_write_the_same_tree(on: &Subject) -> anyhow::Result<()> {
    let dir = directory()?;
    let host = dir.path();
    // The shape of a package manager's work: many small files in many directories, moved into place.
    let script = "for d in 1 2 3 4 5 6 7 8; do mkdir -p /x/$NAME.tmp/$d; for f in 1 2 3 4 5 6 7 8 9 10; do \
                  echo $NAME $d $f > /x/$NAME.tmp/$d/$f; echo $NAME >> /x/log; done; done; \
                  mv /x/$NAME.tmp /x/$NAME; cat /x/$NAME/*/* | wc -l";
    let run = |name: &str| {
        let line = format!("run --rm -e NAME={name} -v {}:/x busybox", host.display());
        on.docker.sh(&line, script)
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let containers = ["one", "two"].map(|name| scope.spawn(move || run(name)));
        for number in 0..80 {
            fs::write(host.join(format!("host-{number}")), "host")?;
        }
        for container in containers {
            container.join().expect("the docker CLI does not panic")?.ok()?.prints("80\n")?;
        }
        Ok(())
    })?;
    for (name, directory, file) in [("one", 1, 1), ("two", 8, 10)] {
        let path = host.join(format!("{name}/{directory}/{file}"));
        ensure!(text(&path)? == format!("{name} {directory} {file}\n"));
    }
    let log = text(&host.join("log"))?;
    let count = |name: &str| log.lines().filter(|line| *line == name).count();
    ensure!((count("one"), count("two"), log.lines().count()) == (80, 80, 160), "appended lines are lost");
    let line = format!("run --rm -v {}:/x busybox sh -c", host.display());
    on.docker.command(&line).args(["ls /x | wc -l"]).run()?.ok()?.prints("83\n")?;
    Ok(())
}

fn host_changes_are_seen_by_the_next_exec(on: &Subject) -> anyhow::Result<()> {
    let dir = directory()?;
    let file = dir.path().join("source");
    fs::write(&file, "0")?;
    on.docker.run(&format!("run -d --name box -v {}:/x busybox sleep 1000", dir.path().display()))?.ok()?;
    on.docker.run("exec box cat /x/source")?.ok()?.prints("0")?;
    for round in 1..6 {
        // The same length each time, by turns in place and by a new file.
        if round % 2 == 0 {
            fs::write(&file, round.to_string())?;
        } else {
            fs::write(dir.path().join("new"), round.to_string())?;
            fs::rename(dir.path().join("new"), &file)?;
        }
        on.docker.run("exec box cat /x/source")?.ok()?.prints(&round.to_string())?;
    }
    Ok(())
}

fn volumes_are_exported_imported_and_copied_from(on: &Subject) -> anyhow::Result<()> {
    let dir = directory()?;
    let skiff = on.docker.clone().with_program(skiff_testkit::binaries::skiff()?);
    let archive = dir.path().join("volume.tar");
    let archive = archive.to_str().context("a temporary path is text")?;
    on.docker
        .sh("run --rm -v f-first:/v busybox", "mkdir /v/d; echo kept > /v/d/file; chown 5:6 /v/d/file")?
        .ok()?;
    skiff.args(&["volume", "export", "-o", archive, "f-first"])?.ok()?.prints("")?;
    skiff.args(&["volume", "import", "f-second", archive])?.ok()?.prints("")?;
    on.docker
        .sh("run --rm -v f-second:/v busybox", "cat /v/d/file; stat -c %u:%g /v/d/file")?
        .ok()?
        .prints("kept\n5:6\n")?;
    // Single files both ways; a volume's own root is the path's.
    let here = dir.path().join("here");
    let local = here.to_str().context("a temporary path is text")?;
    skiff.args(&["volume", "cp", "f-second:d/file", local])?.ok()?;
    ensure!(text(&here)? == "kept\n");
    fs::write(&here, "changed\n")?;
    skiff.args(&["volume", "cp", local, "f-second:/d/file"])?.ok()?;
    skiff.args(&["volume", "cp", "f-second:/", dir.path().join("all").to_str().context("text")?])?.ok()?;
    ensure!(text(&dir.path().join("all/d/file"))? == "changed\n");
    for (words, complaint) in [
        (["f-second:/none", local], "Could not find the file /none in volume f-second"),
        (["f-none:/d", local], "no such volume"),
        ([local, local], "must specify at least one volume source"),
    ] {
        skiff.args(&["volume", "cp", words[0], words[1]])?.exits(1)?.complains(complaint)?;
    }
    ensure!(on.docker.run("ps -aq --filter volume=f-second")?.out().is_empty());
    skiff.args(&["volume", "export", "-o", archive, "f-none"])?.exits(1)?.complains("no such volume")?;
    on.docker.run("volume rm f-first f-second")?.ok()?;
    Ok(())
}
