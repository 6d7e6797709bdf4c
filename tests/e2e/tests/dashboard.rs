//! The web interface in a real browser on a real engine. The scenarios are in `ui/tests`, for Playwright to run.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use skiff_testkit::binaries::target_directory;
use skiff_testkit::{
    Backend, DaemonUnderTest, DockerCli, Image, Program, Registry, free_port, http, wait_until,
};

const SOON: Duration = Duration::from_secs(30);

/// What the scenarios find: a server with a volume and a health check, a compose project, one that failed, and two that talk.
fn furnish(docker: &DockerCli, registry: &Registry) -> anyhow::Result<()> {
    docker.feed("load", Image::busybox()?.archive(&["busybox:latest"]))?.ok()?;
    let port = free_port()?;
    let page = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www";
    let health = "--health-cmd true --health-interval 1s";
    docker
        .sh(&format!("run -d --name web -v data:/data {health} -p 127.0.0.1:{port}:80 busybox"), page)?
        .ok()?;
    docker.run("network create --label com.docker.compose.project=shop shop_default")?.ok()?;
    for service in ["api", "db"] {
        let labels =
            format!("--label com.docker.compose.project=shop --label com.docker.compose.service={service}");
        let options = format!("--init --network shop_default --name shop-{service}-1 {labels}");
        docker.run(&format!("run -d {options} busybox sleep 100000"))?.ok()?;
    }
    docker
        .sh("run -d --init --name job busybox", "[ -e /again ] && exec sleep 100; touch /again; exit 3")?
        .ok()?;
    docker.run("wait job")?.ok()?.prints("3\n")?;
    let colours = r"printf '\033[32mgreen\033[0m and \033[1;31mred\033[0m\n'; echo a needle in here; echo oops >&2; echo tick; exec sleep 100000";
    docker.sh("run -d --init --name colours busybox", colours)?.ok()?;
    // Pages of it are what a log view must get through.
    let flood = r#"awk 'BEGIN { for (i = 0; i < 200000; i++) print "line " i " of a program that has much to say" }'; echo the last line"#;
    docker.sh("run --name flood -d busybox", flood)?.ok()?;
    registry.push(&Image::big(3, 3_000_000)?, "team/app", "1")?;
    Ok(())
}

/// Many containers and images, and one container that never stops printing.
fn crowd(docker: &DockerCli, socket: &Path) -> anyhow::Result<()> {
    // `SKIFF_SCALE=1000` measures what the interface promises; fewer are enough to see that rows are left out.
    let many: usize = std::env::var("SKIFF_SCALE").ok().and_then(|many| many.parse().ok()).unwrap_or(200);
    docker.run("create --name base busybox")?.ok()?;
    let post = |path: String, body: &str| {
        let answer = http::unix_request("POST", socket, &path, body.as_bytes())?;
        ensure!(answer.status == 201, "{path}: {} {}", answer.status, answer.text());
        Ok(())
    };
    for number in 0..many {
        let container = r#"{"Image":"busybox","Cmd":["true"]}"#;
        post(format!("/containers/create?name=many-{number}"), container)?;
        post(format!("/commit?container=base&repo=many/image-{number}&comment={number}"), "{}")?;
    }
    let lines =
        r#"BEGIN { for (i = 0; i < 5000; i++) print "torrent, line " i " of many that nobody can read" }"#;
    let torrent = format!("while :; do awk '{lines}'; sleep 0.1; done");
    docker.sh("run -d --init --name torrent busybox", &torrent)?.ok()?;
    Ok(())
}

fn ui() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui")
}

#[test]
fn each_view_s_tasks_work_in_a_browser() -> anyhow::Result<()> {
    let playwright = ui().join("node_modules/@playwright/test/cli.js");
    ensure!(playwright.exists(), "the interface's packages are missing: run scripts/build");
    let registry = Registry::start()?;
    let daemon = DaemonUnderTest::start(Backend::Native, &[registry.url()])?;
    furnish(&daemon.docker()?, &registry)?;
    let dashboard = daemon.skiff("dashboard")?.start()?;
    let link = wait_until("the link", SOON, || {
        String::from_utf8(dashboard.stdout())
            .ok()?
            .lines()
            .find(|line| line.contains("#token="))
            .map(str::to_owned)
    })?;
    let shots = target_directory().join("dashboard");
    let session = daemon.state().join("browser.json");
    let play = |what: &str| {
        Program::new("node")
            .args([playwright.clone(), "test".into(), what.into()])
            .args(["--config".into(), ui().join("playwright.config.ts")])
            .env("SKIFF_LINK", &link)
            .env("SKIFF_SESSION", &session)
            .env("SKIFF_IMAGE", registry.reference("team/app:1"))
            .env("SKIFF_SHOTS", &shots)
            .env("SKIFF_ARTEFACTS", shots.join("failures"))
            .env("HOME", daemon.state())
            .timeout(Duration::from_secs(900))
            .run()
            .context("run playwright")?
            .ok()
    };
    play("views")?;
    crowd(&daemon.docker()?, &daemon.socket())?;
    let told = play("scale")?;
    for line in told.out().lines().filter(|line| line.contains("scale:")) {
        println!("{}", line.trim());
    }
    Ok(())
}
