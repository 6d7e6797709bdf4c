//! Health checks.

use anyhow::ensure;
use serde_json::json;
use skiff_testkit::{Image, wait_until};

use crate::{Subject, scenarios};

scenarios![
    health_follows_the_checks_and_tells_its_changes,
    health_checks_of_an_image_are_inherited_and_can_be_turned_off,
    a_health_check_that_hangs_is_killed,
    long_output_of_a_health_check_is_cut,
    health_checks_stop_with_a_pause_and_with_the_end,
    health_checks_that_make_no_sense_are_refused,
];

const QUICK: &str = "--health-interval 100ms --health-retries 2";

fn health_is(on: &Subject, name: &str, wanted: &str) -> anyhow::Result<()> {
    wait_until(&format!("{name} to be {wanted}"), on.patience(15), || {
        (on.docker.inspect(name, "{{.State.Health.Status}}").ok()? == wanted).then_some(())
    })
}

fn health_follows_the_checks_and_tells_its_changes(on: &Subject) -> anyhow::Result<()> {
    let since = on.now()?;
    let check = ["--health-cmd", "echo looked; test -e /fine"];
    let line = format!("run -d --name box {QUICK} --health-start-period 1s --health-start-interval 100ms");
    on.docker.command(&line).args(check).args(["busybox", "sleep", "1000"]).run()?.ok()?;
    let list = |filter: &str| -> anyhow::Result<String> {
        let format = "--format {{.Names}},{{.Status}}";
        Ok(on.docker.run(&format!("ps --filter health={filter} {format}"))?.ok()?.out())
    };
    let starting = list("starting")?;
    ensure!(starting.starts_with("box,Up") && starting.ends_with("(health: starting)\n"), "{starting:?}");
    on.docker.run("exec box touch /fine")?.ok()?;
    health_is(on, "box", "healthy")?;
    ensure!(list("healthy")?.ends_with("(healthy)\n"));
    on.docker.run("exec box rm /fine")?.ok()?;
    health_is(on, "box", "unhealthy")?;
    ensure!(list("unhealthy")?.ends_with("(unhealthy)\n") && list("none")?.is_empty());
    let log = on.docker.inspect("box", "{{json .State.Health}}")?;
    let log: serde_json::Value = serde_json::from_str(&log)?;
    ensure!(log["FailingStreak"].as_i64().is_some_and(|streak| streak >= 2), "{log:#}");
    wait_until("five results", on.patience(10), || {
        let count = on.docker.inspect("box", "{{len .State.Health.Log}}").ok()?;
        (count == "5").then_some(())
    })?;
    let last = &log["Log"].as_array().and_then(|log| log.last().cloned()).unwrap_or_default();
    ensure!(last["ExitCode"] == 1 && last["Output"] == "looked\n", "{last:#}");
    ensure!(last["Start"].as_str() < last["End"].as_str(), "{last:#}");
    on.docker.run("exec box touch /fine")?.ok()?;
    health_is(on, "box", "healthy")?;
    let command = format!("events --since {since} --until {} --filter event=health_status", on.now()?);
    let events = on.docker.command(&command).args(["--format", "{{.Action}}"]).run()?.ok()?.out();
    ensure!(
        events == "health_status: healthy\nhealth_status: unhealthy\nhealth_status: healthy\n",
        "{events:?}"
    );
    // The engine's own commands are nobody else's.
    ensure!(on.docker.inspect("box", "{{.ExecIDs}}")? == "[]");
    Ok(())
}

fn health_checks_of_an_image_are_inherited_and_can_be_turned_off(on: &Subject) -> anyhow::Result<()> {
    let check = json!({"Test": ["CMD", "test", "-d", "/tmp"], "Interval": 100_000_000, "Retries": 7});
    let image = Image::busybox()?.with_config("Healthcheck", check);
    on.load(&image, "checked:1")?;
    on.docker.run("run -d --name own --health-retries 9 checked:1 sleep 1000")?.ok()?;
    health_is(on, "own", "healthy")?;
    let config =
        on.docker.inspect("own", "{{.Config.Healthcheck.Retries}} {{.Config.Healthcheck.Interval}}")?;
    ensure!(config == "9 100ms", "configuration {config}");
    on.docker.run("run -d --name off --no-healthcheck checked:1 sleep 1000")?.ok()?;
    ensure!(on.docker.inspect("off", "{{.State.Health}}")? == "<nil>");
    on.docker
        .run("ps -q --filter name=off --filter health=none --no-trunc")?
        .ok()?
        .shows(&on.docker.inspect("off", "{{.Id}}")?)?;
    on.remove_containers()?;
    on.docker.run("rmi checked:1")?.ok()?;
    Ok(())
}

fn a_health_check_that_hangs_is_killed(on: &Subject) -> anyhow::Result<()> {
    let check = ["--health-cmd", "echo began; sleep 500 & sleep 501"];
    let line = "run -d --name box --health-interval 100ms --health-timeout 400ms --health-retries 1";
    on.docker.command(line).args(check).args(["busybox", "sleep", "1000"]).run()?.ok()?;
    health_is(on, "box", "unhealthy")?;
    let last = on.docker.inspect("box", "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}")?;
    ensure!(last.starts_with("-1 Health check exceeded timeout (400ms): began"), "{last:?}");
    // What it has started goes with it.
    wait_until("a quiet container", on.patience(10), || {
        let top = on.docker.run("top box").ok()?.out();
        (top.matches("sleep 50").count() <= 2).then_some(())
    })
}

fn long_output_of_a_health_check_is_cut(on: &Subject) -> anyhow::Result<()> {
    let check = ["--health-cmd", "head -c 10000 /dev/zero | tr '\\0' x"];
    let line = format!("run -d --name box {QUICK}");
    on.docker.command(&line).args(check).args(["busybox", "sleep", "1000"]).run()?.ok()?;
    health_is(on, "box", "healthy")?;
    let size = on.docker.inspect("box", "{{len (index .State.Health.Log 0).Output}}")?;
    ensure!(size == "4099", "{size} bytes are kept");
    Ok(())
}

fn health_checks_stop_with_a_pause_and_with_the_end(on: &Subject) -> anyhow::Result<()> {
    let check = ["--health-cmd", "echo x >> /checks"];
    let line = format!("run -d --name box {QUICK}");
    on.docker.command(&line).args(check).args(["busybox", "sleep", "1000"]).run()?.ok()?;
    health_is(on, "box", "healthy")?;
    let last = || on.docker.inspect("box", "{{range .State.Health.Log}}{{.End}} {{end}}");
    if on.docker.run("pause box")?.code == 0 {
        let before = last()?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        ensure!(last()? == before, "a paused container was checked");
        on.docker.run("unpause box")?.ok()?;
        wait_until("another check", on.patience(10), || (last().ok()? != before).then_some(()))?;
    }
    on.docker.run("stop -t 0 box")?.ok()?;
    // Docker's word for whatever does not run.
    health_is(on, "box", "unhealthy")?;
    on.docker.run("start box")?.ok()?;
    health_is(on, "box", "healthy")
}

fn health_checks_that_make_no_sense_are_refused(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run("create --health-cmd true --health-interval 1us busybox")?
        .exits(1)?
        .complains("Interval in Healthcheck cannot be less than 1ms")?;
    on.docker
        .run("create --health-cmd true --health-timeout 1us busybox")?
        .exits(1)?
        .complains("Timeout in Healthcheck cannot be less than 1ms")?;
    Ok(())
}
