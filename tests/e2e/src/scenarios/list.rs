//! ps, inspect, events.

use anyhow::ensure;
use serde_json::Value;

use crate::{Subject, scenarios};

scenarios![
    ps_filters_and_formats,
    inspect_tells_what_was_asked_for,
    events_tell_the_past,
    events_tell_the_present
];

fn ps_filters_and_formats(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    docker.run("run -d --name one --label k=v busybox sleep 1000")?.ok()?;
    docker.sh("run --name two --label k=w busybox", "exit 3")?.exits(3)?;
    docker.run("create --name three busybox true")?.ok()?;
    let names = |arguments: &str| -> anyhow::Result<String> {
        let list = docker.run(&format!("ps {arguments} --format {{{{.Names}}}}"))?.ok()?;
        Ok(list.out().split_whitespace().collect::<Vec<_>>().join(" "))
    };
    for (arguments, expected) in [
        ("", "one"),
        ("-a", "three two one"),
        ("-a --filter status=exited", "two"),
        ("-a --filter status=created", "three"),
        ("-a --filter exited=3", "two"),
        ("-a --filter name=^/one$", "one"),
        ("-a --filter name=t", "three two"),
        ("-a --filter label=k", "two one"),
        ("-a --filter label=k=w", "two"),
        ("-a --filter ancestor=busybox", "three two one"),
        ("-a --filter before=three", "two one"),
        ("-a --filter since=one", "three two"),
        ("-l", "three"),
        ("-n 2", "three two"),
        ("-a --filter name=nobody", ""),
    ] {
        let found = names(arguments)?;
        ensure!(found == expected, "ps {arguments} shows {found:?}, not {expected:?}");
    }
    let format = "{{.Names}}|{{.Image}}|{{.Command}}|{{.State}}|{{.Label \"k\"}}";
    docker.args(&["ps", "--format", format])?.ok()?.prints("one|busybox|\"sleep 1000\"|running|v\n")?;
    docker.run("ps")?.ok()?.shows("CONTAINER ID   IMAGE")?.shows("Up ")?;
    docker.run("ps -a")?.ok()?.shows("Exited (3)")?.shows("Created")?;
    docker.run("ps -a --filter status=nonsense")?.exits(1)?;
    docker.run("ps -as")?.ok()?.shows("SIZE")?;
    Ok(())
}

fn inspect_tells_what_was_asked_for(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -d --name box -e A=b --label k=v -w /tmp --hostname h busybox sleep 1000")?.ok()?;
    let text = on.docker.run("inspect box")?.ok()?.out();
    let all: Value = serde_json::from_str(&text)?;
    let found = &all[0];
    for (pointer, expected) in [
        ("/Name", "/box"),
        ("/Path", "sleep"),
        ("/Args/0", "1000"),
        ("/State/Status", "running"),
        ("/Config/Image", "busybox"),
        ("/Config/Hostname", "h"),
        ("/Config/WorkingDir", "/tmp"),
        ("/Config/Labels/k", "v"),
        (
            "/NetworkSettings/Networks/bridge/IPAddress",
            on.docker.inspect("box", "{{.NetworkSettings.IPAddress}}")?.as_str(),
        ),
    ] {
        ensure!(found.pointer(pointer).and_then(Value::as_str) == Some(expected), "{pointer} in {text}");
    }
    ensure!(found["State"]["Pid"].as_i64() > Some(0), "no pid in {text}");
    let mac = on.docker.inspect("box", "{{.NetworkSettings.MacAddress}}")?;
    ensure!(mac.starts_with("02:42:"), "hardware address {mac}");
    let image = on.docker.inspect("box", "{{.Image}}")?;
    let id = on.docker.args(&["image", "inspect", "--format", "{{.Id}}", "busybox"])?.ok()?.out();
    ensure!(id.trim() == image, "{image} is not {id}");
    Ok(())
}

fn in_order(text: &str, words: &[&str]) -> bool {
    let mut lines = text.lines();
    words.iter().all(|word| lines.any(|line| line == *word))
}

fn events_tell_the_past(on: &Subject) -> anyhow::Result<()> {
    let since = on.now()?;
    on.docker.sh("run --rm --name box busybox", "exit 3")?.exits(3)?;
    on.docker.run("run --rm --name other busybox true")?.ok()?;
    // The removal of a --rm container may still be going on when the client has ended.
    let mut past = String::new();
    let complete = skiff_testkit::wait_until("the events", on.patience(10), || {
        let until = on.now().ok()?;
        let filters = ["--filter", "type=container", "--filter", "container=box", "--format", "{{.Action}}"];
        let command = on
            .docker
            .command_args(["events", "--since", since.as_str(), "--until", until.as_str()])
            .args(filters);
        past = command.run().ok()?.out();
        in_order(&past, &["create", "start", "die", "destroy"]).then_some(())
    });
    ensure!(complete.is_ok(), "events were {past:?}");
    let until = on.now()?;
    let format = "{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}} {{.Actor.Attributes.image}}";
    let died = on.docker.args(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        "event=die",
        "--format",
        format,
    ])?;
    died.ok()?.prints("box 3 busybox\nother 0 busybox\n")?;
    Ok(())
}

fn events_tell_the_present(on: &Subject) -> anyhow::Result<()> {
    let listener =
        on.docker.start("events --filter type=container --format {{.Action}}:{{.Actor.Attributes.name}}")?;
    // The subscription has no visible beginning: repeat until it is there.
    skiff_testkit::wait_until("the subscription", on.patience(15), || {
        on.docker.run("run --rm --name probe busybox true").ok()?;
        listener.wait_for("start:probe", on.patience(1)).ok()
    })?;
    on.sleeper("box")?;
    on.docker.run("kill box")?.ok()?;
    on.docker.run("rename box last")?.ok()?;
    on.docker.run("rm -f last")?.ok()?;
    listener.wait_for("destroy:last", on.patience(10))?;
    let text = String::from_utf8_lossy(&listener.stdout()).into_owned();
    let expected = ["create:box", "start:box", "kill:box", "die:box", "rename:last", "destroy:last"];
    ensure!(in_order(&text, &expected), "events were {text:?}");
    Ok(())
}
