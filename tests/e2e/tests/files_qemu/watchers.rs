//! Programs that build or start again when a file changes, in a container, while the files change on the host.

use std::fs;
use std::path::Path;

use anyhow::Context;
use skiff_testkit::{Program, wait_until};

use crate::{Guest, PATIENCE};

/// nodemon has chokidar 3; newer tools have chokidar 4, webpack has watchpack.
const PACKAGES: [&str; 3] = ["nodemon@3", "chokidar@4", "watchpack@2"];

const NODE: &str = r#"
const chokidar = require("/x/node_modules/chokidar"), Watchpack = require("/x/node_modules/watchpack");
const short = (path) => path.replace("/x/project/", "");
chokidar.watch("/x/project", { ignoreInitial: true })
    .on("all", (event, path) => console.log("chokidar", event, short(path)))
    .on("ready", () => console.log("chokidar ready"));
const pack = new Watchpack({ aggregateTimeout: 20 });
pack.on("change", (path) => console.log("watchpack change", short(path)));
pack.on("remove", (path) => console.log("watchpack remove", short(path)));
pack.watch({ files: ["/x/project/src/app.js", "/x/project/src/old.js"], startTime: Date.now() });
"#;

const PYTHON: &str = r#"
import sys
from watchdog.observers import Observer
from watchdog.events import FileSystemEventHandler
class Teller(FileSystemEventHandler):
    def on_any_event(self, event):
        print("watchdog", event.event_type, event.src_path.replace("/x/project/", ""), flush=True)
observer = Observer()
observer.schedule(Teller(), "/x/project", recursive=True)
observer.start()
print("watchdog ready", flush=True)
observer.join()
"#;

/// Each hears of what the host did, by events: none of them is told to poll.
pub(crate) fn notice(guest: &Guest) -> anyhow::Result<()> {
    let place = guest.path();
    let npm =
        Program::new("npm").args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]);
    npm.args([place]).args(PACKAGES).timeout(PATIENCE).run()?.ok()?;
    Program::new("/usr/bin/python3").args(["-m", "venv"]).args([place.join("venv")]).run()?.ok()?;
    let pip = Program::new(place.join("venv/bin/pip")).args(["install", "-q", "watchdog"]);
    pip.timeout(PATIENCE).run()?.ok()?;
    let source = place.join("project/src");
    fs::create_dir_all(&source)?;
    fs::write(source.join("app.js"), app(1))?;
    fs::write(source.join("old.js"), "")?;
    fs::write(place.join("watch.js"), NODE)?;
    fs::write(place.join("watch.py"), PYTHON)?;

    let libraries =
        fs::read_dir(place.join("venv/lib"))?.flatten().next().context("a directory of Python's")?;
    let libraries = format!("/x/venv/lib/{}/site-packages", libraries.file_name().to_string_lossy());
    let start = |name: &str, command: &str| -> anyhow::Result<()> {
        let line = format!(
            "run -d --init --name {name} -e PYTHONPATH={libraries} {} busybox {command}",
            guest.options()
        );
        guest.docker.command(&line).timeout(PATIENCE).run()?.ok()?;
        Ok(())
    };
    start("node", "node /x/watch.js")?;
    start("python", "python3 /x/watch.py")?;
    start(
        "nodemon",
        "node /x/node_modules/nodemon/bin/nodemon.js --watch /x/project/src /x/project/src/app.js",
    )?;
    hears(guest, "node", "chokidar ready")?;
    hears(guest, "python", "watchdog ready")?;
    hears(guest, "nodemon", "version 1")?;

    fs::write(source.join("app.js"), app(2))?;
    hears(guest, "nodemon", "version 2")?;
    hears(guest, "node", "chokidar change src/app.js")?;
    hears(guest, "node", "watchpack change src/app.js")?;
    hears(guest, "python", "watchdog modified src/app.js")?;
    // As an editor saves: another file takes the name.
    fs::write(source.join("app.js~"), app(3))?;
    fs::rename(source.join("app.js~"), source.join("app.js"))?;
    hears(guest, "nodemon", "version 3")?;
    hears(guest, "python", "watchdog moved src/app.js~")?;
    // A directory that was not there when they began to watch.
    fs::create_dir(source.join("deep"))?;
    hears(guest, "node", "chokidar addDir src/deep")?;
    fs::write(source.join("deep/new.js"), "new")?;
    hears(guest, "node", "chokidar add src/deep/new.js")?;
    hears(guest, "python", "watchdog created src/deep/new.js")?;
    fs::remove_file(source.join("old.js"))?;
    hears(guest, "node", "chokidar unlink src/old.js")?;
    hears(guest, "node", "watchpack remove src/old.js")?;
    hears(guest, "python", "watchdog deleted src/old.js")?;
    // And what another container changes.
    guest.run("echo 'console.log(\"version 4\")' >>/x/project/src/app.js")?.ok()?;
    hears(guest, "nodemon", "version 4")?;
    guest.docker.command("rm -f node python nodemon").timeout(PATIENCE).run()?.ok()?;
    remove(&place.join("node_modules"))?;
    remove(&place.join("venv"))
}

/// A program that says which it is, and stays.
fn app(version: u32) -> String {
    format!("console.log(\"version {version}\"); setInterval(() => {{}}, 1000);\n")
}

fn hears(guest: &Guest, name: &str, line: &str) -> anyhow::Result<()> {
    let told = || guest.docker.run(&format!("logs {name}")).map(|logs| logs.out()).unwrap_or_default();
    wait_until(&format!("{name} to say {line:?}"), PATIENCE, || {
        told().lines().any(|told| told == line).then_some(())
    })
    .with_context(told)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))
}
