//! What a container is created with: mounts of images, devices, a control group, forms of the API.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use skiff_testkit::Image;

use crate::{Subject, scenarios};

scenarios![
    an_image_is_mounted_for_reading,
    devices_are_for_those_who_were_given_them,
    a_paused_container_stands_still,
    a_control_group_is_where_it_was_wished,
    a_websocket_attaches,
    volumes_tell_of_their_mounts,
    gos_forms_of_json_are_understood,
    defaults_are_shown_and_hold,
    an_upload_that_nobody_wants_gets_its_answer,
];

fn an_image_is_mounted_for_reading(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    on.load(&Image::layered()?, "e2e/mounted:1")?;
    for image in ["busybox", "e2e/mounted:1"] {
        let options = format!("run --rm --mount type=image,source={image},target=/image busybox");
        docker.sh(&options, "ls /image/bin/busybox && ! touch /image/new 2>/dev/null")?.ok()?;
    }
    let part = "--mount type=image,source=e2e/mounted:1,target=/image,image-subpath=etc";
    docker.sh(&format!("create --name box {part} busybox"), "cat /image/passwd")?.ok()?;
    let mounts = docker.inspect("box", "{{json .Mounts}}")?;
    let mount = &serde_json::from_str::<Value>(&mounts)?[0];
    for (key, expected) in [("Type", "image"), ("Name", "e2e/mounted:1"), ("Destination", "/image")] {
        ensure!(mount[key] == expected, "{key} is {} in {mounts}", mount[key]);
    }
    ensure!(mount["RW"] == false, "{mounts}");
    docker.run("start -a box")?.ok()?.shows("root:")?;
    docker.run("cp box:/image/passwd -")?.ok()?;
    docker.run("rmi e2e/mounted:1")?.exits(1)?.complains("container")?;
    let refused =
        docker.run("run --mount type=image,source=busybox,target=/i,image-subpath=nonesuch busybox")?;
    // As docker: its client takes the words for a command that is not there.
    refused.exits(127)?.complains("no such file or directory")?;
    docker.run("rm -f box")?.ok()?;
    docker.run("rmi e2e/mounted:1")?.ok()?;
    Ok(())
}

fn devices_are_for_those_who_were_given_them(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    let make_and_open =
        "mknod /tmp/null c 1 3 && echo x > /tmp/null && mknod /tmp/other c 10 229 && head -c 0 /tmp/other";
    docker.sh("run --rm busybox", make_and_open)?.exits(1)?.complains("Operation not permitted")?;
    for allowed in ["--device-cgroup-rule=c\\ 10:*\\ r", "--privileged"] {
        let options = allowed.replace('\\', "");
        let words = ["run", "--rm", &options, "busybox", "sh", "-c", make_and_open];
        let opened = docker.args(&words)?;
        ensure!(!opened.err().contains("not permitted"), "{options}: {opened}");
    }
    docker.sh(
        "run --rm --device /dev/null:/dev/mine:r busybox",
        "cat /dev/mine && ! echo x > /dev/mine 2>/dev/null",
    )?;
    let body = r#"{"Image":"busybox","HostConfig":{"DeviceCgroupRules":["c 1:3"]}}"#;
    let refused = on.call("POST", "/containers/create", body)?;
    ensure!(
        refused.status == 400 && refused.text().contains("invalid device cgroup rule format"),
        "{}",
        refused.text()
    );
    Ok(())
}

fn a_paused_container_stands_still(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    docker.sh("run -d --name box busybox", "while :; do echo tick; sleep 0.05; done")?.ok()?;
    docker.run("pause box")?.ok()?.prints("box\n")?;
    docker.run("ps --format {{.Status}}")?.ok()?.shows("(Paused)")?;
    ensure!(
        docker.inspect("box", "{{.State.Status}} {{.State.Running}} {{.State.Paused}}")?
            == "paused true true"
    );
    docker.run("exec box true")?.exits(1)?.complains("is paused, unpause the container before exec")?;
    docker.run("pause box")?.exits(1)?.complains("is already paused")?;
    docker.run("start box")?.exits(1)?.complains("cannot start a paused container")?;
    let ticks = || -> anyhow::Result<usize> { Ok(docker.run("logs box")?.ok()?.out().lines().count()) };
    let before = ticks()?;
    std::thread::sleep(Duration::from_millis(400));
    ensure!(ticks()? == before, "a paused container has written");
    docker.run("unpause box")?.ok()?;
    skiff_testkit::wait_until("the container to go on", on.patience(10), || {
        ticks().is_ok_and(|now| now > before).then_some(())
    })?;
    docker.run("unpause box")?.exits(1)?.complains("is not paused")?;
    docker.run("pause box")?.ok()?;
    docker.run("rm -f box")?.ok()?;
    Ok(())
}

fn a_control_group_is_where_it_was_wished(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    docker
        .run("run -d --name box --cgroupns host --cgroup-parent /skiff-e2e/wished busybox sleep 1000")?
        .ok()?;
    let id = docker.inspect("box", "{{.Id}}")?;
    docker.run("exec box cat /proc/1/cgroup")?.ok()?.shows(&format!("0::/skiff-e2e/wished/{id}\n"))?;
    docker.run("pause box")?.ok()?;
    docker.run("unpause box")?.ok()?;
    docker.run("rm -f box")?.ok()?;
    for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        // As with dockerd, the parent is the user's. In a guest it goes with the guest.
        let _ = std::fs::remove_dir(format!("{root}/skiff-e2e/wished"));
        let _ = std::fs::remove_dir(format!("{root}/skiff-e2e"));
    }
    Ok(())
}

fn a_websocket_attaches(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d -i --name box busybox cat")?.ok()?;
    let mut stream = on.connect()?;
    stream.set_read_timeout(Some(on.patience(20)))?;
    write!(
        stream,
        "GET /v1.44/containers/box/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    ensure!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // "hey\n" with a mask of zeros.
    stream.write_all(b"\x82\x84\0\0\0\0hey\n")?;
    let mut frame = [0; 6];
    stream.read_exact(&mut frame)?;
    ensure!(&frame == b"\x82\x04hey\n", "{frame:?}");
    on.docker.run("rm -f box")?.ok()?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    ensure!(rest.starts_with(b"\x88"), "the end is told by a close: {rest:?}");
    Ok(())
}

fn volumes_tell_of_their_mounts(on: &Subject) -> anyhow::Result<()> {
    let since = on.now()?;
    on.docker.run("run --name box -v told:/data:ro busybox true")?.ok()?;
    let id = on.docker.inspect("box", "{{.Id}}")?;
    on.docker.run("rm box")?.ok()?;
    on.docker.run("volume rm told")?.ok()?;
    let until = on.now()?;
    let format =
        "{{.Action}} {{index .Actor.Attributes \"container\"}} {{index .Actor.Attributes \"read/write\"}}";
    let told = on
        .docker
        .args(&[
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            "volume=told",
            "--format",
            format,
        ])?
        .ok()?;
    told.prints(&format!("create  \nmount {id} false\nunmount {id} \ndestroy  \n"))?;
    Ok(())
}

fn gos_forms_of_json_are_understood(on: &Subject) -> anyhow::Result<()> {
    let body = r#"{"image":"busybox","cmd":"true","Env":null,"hostconfig":{"memory":20000000,"Binds":null,
                   "restartPolicy":{"name":"on-failure","maximumRetryCount":2}}}"#;
    let made = on.call("POST", "/containers/create?name=box", body)?;
    ensure!(made.status == 201, "{}", made.text());
    let shown =
        on.docker.inspect("box", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}")?;
    ensure!(shown == "20000000 2", "{shown}");
    let wrong =
        on.call("POST", "/containers/create", r#"{"Image":"busybox","HostConfig":{"Memory":"x"}}"#)?;
    let text = wrong.text();
    ensure!(
        wrong.status == 400 && text.contains("json: cannot unmarshal string into Go struct field"),
        "{text}"
    );
    let image = Image::busybox()?
        .with_config("Entrypoint", serde_json::json!(["echo", "entry"]))
        .with_config("Cmd", serde_json::json!(["echo", "default"]));
    on.load(&image, "e2e/forms:1")?;
    for (body, expected) in [
        (r#"{"Image":"e2e/forms:1"}"#, "echo entry echo default"),
        (r#"{"Image":"e2e/forms:1","Entrypoint":[]}"#, "echo default"),
        (r#"{"Image":"e2e/forms:1","Entrypoint":[""],"Cmd":["a",""]}"#, "a "),
        (r#"{"Image":"e2e/forms:1","Entrypoint":"x"}"#, "x"),
    ] {
        let made = on.call("POST", "/containers/create", body)?;
        let made: Value = serde_json::from_str(&made.text())?;
        let id = made["Id"].as_str().context("no id")?;
        let shown = on.docker.inspect(id, "{{.Path}}{{range .Args}} {{.}}{{end}}")?;
        ensure!(shown.trim_end() == expected.trim_end(), "{body} runs {shown:?}");
    }
    on.remove_containers()?;
    on.docker.run("rmi e2e/forms:1")?.ok()?;
    Ok(())
}

fn defaults_are_shown_and_hold(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    let mounts =
        "-v named:/a -v named:/b:ro -v /anonymous --mount type=volume,source=named,target=/c --tmpfs /d";
    docker.run(&format!("create --name box {mounts} --mount type=tmpfs,target=/e busybox true"))?.ok()?;
    let shown = docker.inspect("box", "{{range .Mounts}}{{.Destination}}={{.Mode}} {{end}}")?;
    let mut shown: Vec<_> = shown.split_whitespace().collect();
    shown.sort_unstable();
    ensure!(shown == ["/a=z", "/anonymous=", "/b=ro", "/c=z", "/e="], "{shown:?}");
    let paths =
        docker.inspect("box", "{{json .HostConfig.MaskedPaths}} {{json .HostConfig.ReadonlyPaths}}")?;
    ensure!(paths.contains("/proc/kcore") && paths.contains("/proc/sysrq-trigger"), "{paths}");
    docker.run("rm -f -v box")?.ok()?;
    docker.run("volume rm named")?.ok()?;

    docker.run("create --name box --privileged busybox true")?.ok()?;
    let paths = docker.inspect("box", "{{json .HostConfig.MaskedPaths}} {{.HostConfig.SecurityOpt}}")?;
    ensure!(paths == "null [label=disable]", "{paths}");
    docker.run("rm box")?.ok()?;

    docker.run("run -d --name box --ipc shareable busybox sleep 1000")?.ok()?;
    docker.run("exec box touch /dev/shm/shared")?.ok()?;
    docker.run("run --rm --ipc container:box busybox rm /dev/shm/shared")?.ok()?;
    docker.run("exec box ls /dev/shm")?.ok()?.prints("")?;
    docker.run("rm -f box")?.ok()?;

    // Whatever the machine has of these.
    docker.run("run --rm --ipc host --pid host --uts host busybox true")?.ok()?;
    let names = "test $(hostname) = $(cat /etc/hostname)";
    docker.sh("run --rm --network host busybox", names)?.ok()?;
    docker.sh("run --rm --read-only busybox", "! touch /new && ! sh -c 'echo x >> /etc/hosts'")?.ok()?;
    docker.run("run --rm -u 1000:1001 --group-add 5 busybox id -G")?.ok()?.shows("1001")?.shows("5")?;
    docker
        .sh("run --rm -u 1000:1001 --group-add 5 busybox", "grep -q '^Groups:.*1001' /proc/self/status")?
        .ok()?;
    Ok(())
}

fn an_upload_that_nobody_wants_gets_its_answer(on: &Subject) -> anyhow::Result<()> {
    let body = "x".repeat(8 << 20);
    for (path, status, words) in [
        ("/images/create?fromSrc=-&changes=RUN%20x", 400, "RUN is not a valid change command"),
        ("/images/create?fromSrc=-&changes=STOPSIGNAL%20X", 400, "invalid signal: X"),
    ] {
        let answer = on.call("POST", path, &body)?;
        ensure!(answer.status == status && answer.text().contains(words), "{path}: {}", answer.text());
    }
    let answer = on.call("PUT", "/containers/nonesuch/archive?path=/", &body)?;
    ensure!(answer.status == 404, "{}", answer.text());
    on.docker
        .run("run --rm --tmpfs /t:bad busybox true")?
        .exits(125)?
        .complains("invalid tmpfs option \"bad\"")?;
    Ok(())
}
