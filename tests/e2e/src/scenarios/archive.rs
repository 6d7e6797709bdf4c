//! Files in and out of containers and images: `cp`, `export`, `diff`, `commit`, `save`.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use anyhow::{Context, ensure};
use skiff_testkit::image::Layer;

use crate::{Subject, scenarios};

scenarios![
    files_are_copied_out_of_a_container_running_or_not,
    files_are_copied_into_a_container_running_or_not,
    a_copy_sees_what_the_container_sees,
    copies_that_make_no_sense_are_refused_in_dockers_words,
    links_of_a_container_lead_nowhere_but_inside_it,
    what_is_no_file_is_never_opened,
    a_big_file_is_streamed_both_ways,
    ownership_is_kept_or_becomes_the_containers,
    a_hostile_archive_stays_inside_the_container,
    changes_are_listed_as_docker_lists_them,
    an_export_is_the_merged_tree,
    a_commit_makes_an_image_that_is_the_container,
    saved_images_can_be_loaded_again,
];

/// Names in an archive with their kinds and link targets.
fn entries(archive: &[u8]) -> anyhow::Result<BTreeMap<String, (tar::EntryType, String)>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        let link = entry.link_name()?.map(|link| link.display().to_string()).unwrap_or_default();
        let name = String::from_utf8(entry.path_bytes().into_owned())?;
        found.insert(name, (entry.header().entry_type(), link));
    }
    Ok(found)
}

fn content(archive: &[u8], name: &str) -> anyhow::Result<Vec<u8>> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if *entry.path_bytes() == *name.as_bytes() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
    }
    anyhow::bail!("{name} is not in the archive")
}

fn files_are_copied_out_of_a_container_running_or_not(on: &Subject) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let to = dir.path().display();
    on.sleeper("box")?;
    let script = "mkdir -p /d/sub && echo one > /d/one && echo two > /d/sub/two && ln -s one /d/link && \
                  chmod 4751 /d/one && ln /d/one /d/again && touch -d '2001-02-03 04:05:06' /d/sub/two";
    on.docker.sh("exec box", script)?.ok()?;
    for state in ["running", "stopped"] {
        if state == "stopped" {
            on.docker.run("kill box")?.ok()?;
            on.docker.wait_for_status("box", "exited", on.patience(10))?;
        }
        on.docker.run(&format!("cp -a box:/d {to}/{state}"))?.ok()?;
        let local = dir.path().join(state);
        ensure!(std::fs::read_to_string(local.join("sub/two"))? == "two\n");
        ensure!(std::fs::read_link(local.join("link"))?.as_os_str() == "one");
        let status = std::fs::metadata(local.join("one"))?;
        ensure!(status.permissions().mode() & 0o7777 == 0o4751 && status.nlink() == 2, "{status:?}");
        ensure!(std::fs::metadata(local.join("sub/two"))?.mtime() == 981_173_106);
        // The content of a directory, and one file to another name.
        on.docker.run(&format!("cp box:/d/. {to}/{state}-content"))?.ok()?;
        ensure!(std::fs::read_to_string(dir.path().join(format!("{state}-content/one")))? == "one\n");
        on.docker.run(&format!("cp -q box:/d/link {to}/{state}-link"))?.ok()?;
        ensure!(std::fs::read_link(dir.path().join(format!("{state}-link")))?.as_os_str() == "one");
        on.docker.run(&format!("cp -L box:/d/link {to}/{state}-file"))?.ok()?;
        ensure!(std::fs::read_to_string(dir.path().join(format!("{state}-file")))? == "one\n");
        let archive = on.docker.run("cp box:/d/sub -")?.ok()?.stdout;
        ensure!(
            entries(&archive)?.keys().map(String::as_str).eq(["sub/", "sub/two"]),
            "{:?}",
            entries(&archive)?
        );
    }
    Ok(())
}

fn files_are_copied_into_a_container_running_or_not(on: &Subject) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let from = dir.path().join("tree");
    std::fs::create_dir_all(from.join("sub"))?;
    std::fs::write(from.join("sub/file"), "new\n")?;
    std::fs::set_permissions(from.join("sub/file"), std::fs::Permissions::from_mode(0o640))?;
    symlink("sub/file", from.join("link"))?;
    let from = from.display();
    on.sleeper("box")?;
    on.docker.run(&format!("cp {from} box:/running"))?.ok()?;
    on.docker.run(&format!("cp {from}/. box:/tmp/"))?.ok()?;
    on.docker.run(&format!("cp {from}/sub/file box:/tmp/renamed"))?.ok()?;
    let tar = Layer::new().file("piped", 0o644, b"piped\n").into_tar();
    on.docker.feed("cp - box:/tmp", tar)?.ok()?;
    on.docker.run("kill box")?.ok()?;
    on.docker.wait_for_status("box", "exited", on.patience(10))?;
    on.docker.run(&format!("cp {from} box:/stopped"))?.ok()?;
    on.docker.run(&format!("cp {from}/sub/file box:/tmp/sub"))?.ok()?;
    on.docker.run("start box")?.ok()?;
    let script =
        "cat /running/link /tmp/sub/file /tmp/renamed /tmp/piped /stopped/link; stat -c %a /stopped/sub/file";
    on.docker.sh("exec box", script)?.ok()?.prints("new\nnew\nnew\npiped\nnew\n640\n")?;
    // Never started.
    on.docker.run("create --name fresh busybox cat /x/link")?.ok()?;
    on.docker.run(&format!("cp {from} fresh:/x"))?.ok()?;
    on.docker.run("start -a fresh")?.ok()?.prints("new\n")?;
    Ok(())
}

fn a_copy_sees_what_the_container_sees(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run("run -d --name box -v cp-volume:/data -v cp-volume:/ro:ro --tmpfs /mem busybox sleep 1000")?
        .ok()?;
    on.docker.sh("exec box", "echo v > /data/file; echo m > /mem/file; mkdir /data/sub")?.ok()?;
    let read = |path: &str, name: &str| -> anyhow::Result<String> {
        let archive = on.docker.run(&format!("cp box:{path} -"))?.ok()?.stdout;
        Ok(String::from_utf8(content(&archive, name)?)?)
    };
    ensure!(read("/data/file", "file")? == "v\n");
    ensure!(read("/mem/file", "file")? == "m\n");
    ensure!(read("/etc/hostname", "hostname")?.trim() == on.docker.inspect("box", "{{.Config.Hostname}}")?);
    let tar = || Layer::new().file("in", 0o644, b"in\n").into_tar();
    on.docker.feed("cp - box:/data/sub", tar())?.ok()?;
    on.docker.feed("cp - box:/ro", tar())?.exits(1)?.complains("mounted volume is marked read-only")?;
    on.docker.run("kill box")?.ok()?;
    on.docker.wait_for_status("box", "exited", on.patience(10))?;
    ensure!(read("/data/sub/in", "in")? == "in\n");
    ensure!(read("/ro/file", "file")? == "v\n");
    on.docker.feed("cp - box:/ro", tar())?.exits(1)?.complains("mounted volume is marked read-only")?;
    on.docker.feed("cp - box:/data", tar())?.ok()?;
    on.docker.run("start box")?.ok()?;
    on.docker.run("exec box cat /ro/in")?.ok()?.prints("in\n")?;
    on.docker.run("run -d --name fixed --read-only busybox sleep 1000")?.ok()?;
    let refused = on.docker.feed("cp - fixed:/", tar())?.exits(1)?;
    refused.complains("container rootfs is marked read-only")?;
    on.docker.run("rm -f box")?.ok()?;
    on.docker.run("volume rm cp-volume")?.ok()?;
    Ok(())
}

fn copies_that_make_no_sense_are_refused_in_dockers_words(on: &Subject) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("file"), "x")?;
    std::fs::create_dir(dir.path().join("directory"))?;
    let here = dir.path().display();
    on.sleeper("box")?;
    let missing = on.docker.run(&format!("cp box:/missing {here}"))?.exits(1)?;
    missing.complains("Error response from daemon: Could not find the file /missing in container box")?;
    let missing = on.docker.run(&format!("cp {here}/file box:/missing/file"))?.exits(1)?;
    missing.complains("Could not find the file /missing in container box")?;
    on.docker.run(&format!("cp none:/x {here}"))?.exits(1)?.complains("No such container: none")?;
    on.docker
        .run(&format!("cp {here}/directory box:/etc/passwd"))?
        .exits(1)?
        .complains("cannot copy directory")?;
    on.docker.run(&format!("cp box:/etc/passwd/ {here}"))?.exits(1)?.complains("not a directory")?;
    let tar = Layer::new().file("x", 0o644, b"").into_tar();
    let refused = on.docker.feed("cp - box:/etc/passwd", tar)?.exits(1)?;
    refused.complains("destination \"box:/etc/passwd\" must be a directory")?;
    let answer = on.call("PUT", "/containers/box/archive?path=/etc/passwd", "")?;
    ensure!(
        answer.status == 400 && answer.text().contains("extraction point is not a directory"),
        "{answer:?}"
    );
    on.docker.sh("exec box", "mkdir /kind; mkdir /kind/d; touch /kind/f")?.ok()?;
    let file = Layer::new().file("d", 0o644, b"").into_tar();
    let refused = on.docker.feed("cp - box:/kind", file)?.exits(1)?;
    refused.complains("cannot overwrite directory \"/kind/d\" with non-directory \"/kind\"")?;
    let directory = Layer::new().dir("f").into_tar();
    let refused = on.docker.feed("cp - box:/kind", directory)?.exits(1)?;
    refused.complains("cannot overwrite non-directory \"/kind/f\" with directory \"/kind\"")?;
    on.docker.feed("cp - box:/kind", "no archive")?.exits(1)?;
    let answer = on.call("GET", "/containers/box/archive", "")?;
    ensure!(answer.status == 400 && answer.text().contains("bad parameter"), "{answer:?}");
    Ok(())
}

fn links_of_a_container_lead_nowhere_but_inside_it(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    let script = "echo mine > /etc/mine; ln -s /etc /absolute; ln -s ../../../../../../etc /tmp/relative; ln -s /proc/1/root/etc /magic; \
                  ln -s loop /loop; mkdir /real; ln -s /real /door";
    on.docker.sh("exec box", script)?.ok()?;
    for path in ["/absolute/mine", "/tmp/relative/mine", "/../../absolute/../etc/mine"] {
        let archive = on.docker.run(&format!("cp box:{path} -"))?.ok()?.stdout;
        ensure!(content(&archive, "mine")? == b"mine\n", "{path}");
    }
    on.docker.run("cp box:/magic/hostname -")?.exits(1)?;
    on.docker.run("cp box:/loop/x -")?.exits(1)?;
    // A link to a directory is entered, and what it hides on this machine is not touched.
    let tar = Layer::new().file("guest", 0o644, b"in\n").into_tar();
    on.docker.feed("cp - box:/door", tar.clone())?.ok()?;
    on.docker.run("exec box cat /real/guest")?.ok()?.prints("in\n")?;
    on.docker.feed("cp - box:/absolute", tar)?.ok()?;
    on.docker.run("exec box cat /etc/guest")?.ok()?.prints("in\n")?;
    ensure!(!std::path::Path::new("/etc/guest").exists());
    Ok(())
}

fn what_is_no_file_is_never_opened(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    let script = "mkdir /odd; mkfifo /odd/fifo; mknod /odd/null c 1 3; mknod /odd/zero c 1 5; echo x > /odd/file; \
                  d=/deep; for i in 1 2 3 4 5 6 7 8; do d=$d/$(printf %0200d $i); done; mkdir -p $d; echo y > $d/file";
    on.docker.sh("exec box", script)?.ok()?;
    let archive = on.docker.run("cp box:/odd -")?.ok()?.stdout;
    let found = entries(&archive)?;
    ensure!(found["odd/fifo"].0 == tar::EntryType::Fifo && found["odd/zero"].0 == tar::EntryType::Char);
    ensure!(content(&archive, "odd/file")? == b"x\n");
    let deep = entries(&on.docker.run("cp box:/deep -")?.ok()?.stdout)?;
    ensure!(deep.keys().any(|name| name.ends_with("8/file") && name.len() > 1600), "{deep:?}");
    // They come back as what they are.
    on.docker.sh("exec box", "mkdir /back")?.ok()?;
    on.docker.feed("cp - box:/back", archive)?.ok()?;
    let script = "stat -c '%F %t %T' /back/odd/null; stat -c %F /back/odd/fifo";
    on.docker.sh("exec box", script)?.ok()?.prints("character special file 1 3\nfifo\n")?;
    Ok(())
}

fn a_big_file_is_streamed_both_ways(on: &Subject) -> anyhow::Result<()> {
    const SIZE: usize = 96 << 20;
    on.sleeper("box")?;
    on.docker.sh("exec box", "dd if=/dev/zero of=/big bs=1M count=96 2>/dev/null")?.ok()?;
    on.docker.run("cp box:/etc/hostname -")?.ok()?;
    let before = on.engine_memory()?;
    let archive = on.docker.command("cp box:/big -").timeout(on.patience(60)).run()?.ok()?.stdout;
    ensure!(archive.len() > SIZE, "{} bytes", archive.len());
    on.docker.command("cp - box:/tmp").stdin(archive).timeout(on.patience(60)).run()?.ok()?;
    on.docker.run("exec box wc -c /tmp/big")?.ok()?.shows(&SIZE.to_string())?;
    if let (Some(before), Some(after)) = (before, on.engine_memory()?) {
        ensure!(after < before + (24 << 20), "the engine grew from {before} to {after} bytes");
    }
    // A client that does not read holds nothing up.
    let _deaf = on.deaf_client("/containers/box/archive?path=/big")?;
    on.docker.run("exec box true")?.ok()?;
    on.docker.run("rm -f box")?.ok()?;
    Ok(())
}

fn ownership_is_kept_or_becomes_the_containers(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name box -u 1234:567 busybox sleep 1000")?.ok()?;
    let mut header = tar::Header::new_gnu();
    header.set_path("owned")?;
    header.set_uid(4321);
    header.set_gid(8765);
    header.set_mode(0o4755);
    header.set_size(0);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, std::io::empty())?;
    let archive = archive.into_inner()?;
    let stat = "exec box stat -c %u:%g:%a /tmp/owned";
    on.docker.feed("cp - box:/tmp", archive.clone())?.ok()?;
    on.docker.run(stat)?.ok()?.prints("4321:8765:4755\n")?;
    on.docker.feed("cp -a - box:/tmp", archive)?.ok()?;
    on.docker.run(stat)?.ok()?.prints("1234:567:4755\n")?;
    Ok(())
}

fn a_hostile_archive_stays_inside_the_container(on: &Subject) -> anyhow::Result<()> {
    on.sleeper("box")?;
    on.docker.sh("exec box", "mkdir /in; ln -s / /in/root")?.ok()?;
    let mut header = tar::Header::new_gnu();
    let name = b"../../../../../../tmp/escaped";
    header.as_gnu_mut().context("gnu")?.name[..name.len()].copy_from_slice(name);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, std::io::empty())?;
    let put = on.docker.feed("cp - box:/in", archive.into_inner()?)?.exits(1)?;
    put.complains("is outside of \"/in\"")?;
    // Through links that the archive brings itself, and hard links.
    let tar =
        Layer::new().symlink("up", "../../../../../..").file("up/tmp/through", 0o644, b"t\n").into_tar();
    on.docker.feed("cp - box:/in", tar)?.ok()?;
    on.docker.run("exec box cat /tmp/through")?.ok()?.prints("t\n")?;
    ensure!(!std::path::Path::new("/tmp/through").exists() && !std::path::Path::new("/tmp/escaped").exists());
    Ok(())
}

fn changes_are_listed_as_docker_lists_them(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run --name untouched busybox true")?.ok()?;
    on.docker.run("diff untouched")?.ok()?.prints("")?;
    on.sleeper("box")?;
    let script = "mkdir /new; echo x > /new/file; echo y >> /etc/passwd; rm /bin/cat; mkdir -p /etc/sub";
    on.docker.sh("exec box", script)?.ok()?;
    let wanted = "C /bin\nD /bin/cat\nC /etc\nC /etc/passwd\nA /etc/sub\nA /new\nA /new/file\n";
    on.docker.run("diff box")?.ok()?.prints(wanted)?;
    on.docker.run("kill box")?.ok()?;
    on.docker.run("diff box")?.ok()?.prints(wanted)?;
    on.docker.run("diff none")?.exits(1)?.complains("No such container: none")?;
    Ok(())
}

fn an_export_is_the_merged_tree(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name box -v export-volume:/data busybox sleep 1000")?.ok()?;
    on.docker
        .sh(
            "exec box",
            "echo v > /data/hidden; echo x > /new; rm /bin/cat; rm -r /tmp; mkdir /tmp; touch /tmp/only",
        )?
        .ok()?;
    for state in ["running", "stopped"] {
        if state == "stopped" {
            on.docker.run("kill box")?.ok()?;
        }
        let archive = on.docker.run("export box")?.ok()?.stdout;
        let found = entries(&archive)?;
        ensure!(
            found.contains_key("new") && found.contains_key("data/") && found.contains_key("bin/busybox")
        );
        ensure!(!found.contains_key("data/hidden") && !found.contains_key("bin/cat"), "{state}: {found:?}");
        ensure!(
            !found.keys().any(|name| name.contains(".wh.") || name.starts_with("proc/1")),
            "{state}: {found:?}"
        );
        let import = on.docker.feed("import - e2e/exported", archive)?.ok()?;
        import.shows("sha256:")?;
        on.docker.run("run --rm e2e/exported busybox cat /new")?.ok()?.prints("x\n")?;
        on.docker.run("rmi e2e/exported")?.ok()?;
    }
    on.docker.run("rm -f box")?.ok()?;
    on.docker.run("volume rm export-volume")?.ok()?;
    Ok(())
}

fn a_commit_makes_an_image_that_is_the_container(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name box -e A=1 -l l=1 -w /tmp busybox sleep 1000")?.ok()?;
    let script = "echo x > /new; rm /bin/cat; mkdir /dir; ln /new /hard; ln -s new /soft; rm -r /etc/group; chmod 1777 /dir";
    on.docker.sh("exec box", script)?.ok()?;
    let commit = on.docker.command("commit -m remark -a me").args([
        "-c",
        "CMD [\"busybox\",\"cat\",\"/new\"]",
        "-c",
        "ENV B=two",
        "-c",
        "LABEL m=2",
        "box",
        "e2e/committed:1",
    ]);
    let id = commit.run()?.ok()?.out();
    on.docker.run("run --rm e2e/committed:1")?.ok()?.prints("x\n")?;
    ensure!(on.docker.inspect("e2e/committed:1", "{{.Id}}")? == id.trim());
    let format = "{{.Author}} {{.Comment}} {{.Config.WorkingDir}} {{index .Config.Labels \"l\"}}{{index .Config.Labels \"m\"}} {{len .RootFS.Layers}}";
    let layers = on.docker.inspect("busybox", "{{len .RootFS.Layers}}")?.parse::<u32>()? + 1;
    ensure!(on.docker.inspect("e2e/committed:1", format)? == format!("me remark /tmp 12 {layers}"));
    let env = on.docker.run("run --rm e2e/committed:1 busybox env")?.ok()?;
    env.shows("A=1")?.shows("B=two")?;
    let script =
        "ls /bin/cat /etc/group 2>/dev/null; stat -c '%h %a' /new /dir; readlink /soft; ls /etc/passwd";
    let seen = on.docker.sh("run --rm e2e/committed:1 busybox", script)?;
    ensure!(seen.out().ends_with("/etc/passwd\n") && !seen.out().contains("/bin/cat"), "{seen:?}");
    seen.shows("2 644")?.shows("1777")?.shows("new\n")?;
    let history =
        on.docker.run("history --no-trunc --format {{.CreatedBy}}|{{.Comment}} e2e/committed:1")?.ok()?;
    ensure!(history.out().starts_with("sleep 1000|remark\n"), "{}", history.out());
    ensure!(on.docker.inspect("box", "{{.State.Status}}")? == "running");
    // Without changes there is no layer; without a name there is none.
    on.docker.run("run --name same busybox true")?.ok()?;
    let id = on.docker.run("commit same")?.ok()?.out();
    ensure!(
        on.docker.inspect(id.trim(), "{{len .RootFS.Layers}}{{len .RepoTags}}")?
            == format!("{}0", layers - 1)
    );
    on.docker
        .args(&["commit", "-c", "RUN x", "same"])?
        .exits(1)?
        .complains("RUN is not a valid change command")?;
    on.docker.run("commit same Bad/Name")?.exits(1)?.complains("repository name")?;
    on.docker.run("rm -f box same")?.ok()?;
    on.docker.run(&format!("rmi e2e/committed:1 {}", id.trim()))?.ok()?;
    Ok(())
}

fn saved_images_can_be_loaded_again(on: &Subject) -> anyhow::Result<()> {
    on.load(&skiff_testkit::Image::layered()?, "e2e/saved:1")?;
    on.docker.run("tag e2e/saved:1 e2e/saved:2")?.ok()?;
    let id = on.docker.inspect("e2e/saved:1", "{{.Id}}")?;
    // A name without a tag saves all of its tags.
    let archive = on.docker.run("save e2e/saved busybox")?.ok()?.stdout;
    let found = entries(&archive)?;
    for name in ["manifest.json", "index.json", "oci-layout", &format!("blobs/sha256/{}", &id[7..])] {
        ensure!(found.contains_key(name), "{name} is missing: {:?}", found.keys());
    }
    let list: serde_json::Value = serde_json::from_slice(&content(&archive, "manifest.json")?)?;
    ensure!(list[0]["RepoTags"] == serde_json::json!(["e2e/saved:1", "e2e/saved:2"]), "{list}");
    ensure!(list.as_array().map(Vec::len) == Some(2), "{list}");
    on.docker.run("rmi e2e/saved:1 e2e/saved:2")?.ok()?;
    let loaded = on.docker.feed("load", archive)?.ok()?;
    loaded.shows("Loaded image: e2e/saved:1")?.shows("Loaded image: e2e/saved:2")?;
    ensure!(on.docker.inspect("e2e/saved:2", "{{.Id}}")? == id);
    on.docker.run("run --rm e2e/saved:1 cat /data/replaced")?.ok()?.prints("new\n")?;
    // By id no name is saved.
    let archive = on.docker.run(&format!("save {id}"))?.ok()?.stdout;
    let list: serde_json::Value = serde_json::from_slice(&content(&archive, "manifest.json")?)?;
    ensure!(list[0]["RepoTags"].is_null(), "{list}");
    on.docker.run("save e2e/none")?.exits(1)?.complains("No such image: e2e/none")?;
    on.docker.run("rmi e2e/saved:1 e2e/saved:2")?.ok()?;
    Ok(())
}
