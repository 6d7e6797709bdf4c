//! A guest that sleeps and wakes: nothing acknowledged is lost, nobody sees more than a delay, and whatever dies on the way
//! costs the sleep, never the disk.
//!
//! `SKIFF_SLEEPS` and `SKIFF_KILLS` make the rounds more.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use skiff_e2e::Chance;
use skiff_testkit::leftovers::kill_hard;
use skiff_testkit::{Backend, DaemonUnderTest, DockerCli, Finished, Image, free_port, http, wait_until};
use tempfile::TempDir;

/// A guest may have to boot.
const BOOT: Duration = Duration::from_secs(180);

/// Appends rows with checksums to a database, each in a transaction of its own, and tells which are committed.
const WRITER: &str = r#"
import hashlib, sqlite3
db = sqlite3.connect("/v/db")
db.execute("pragma synchronous=full")
db.execute("create table if not exists log (n integer primary key, text blob, sum text)")
n = db.execute("select coalesce(max(n), 0) from log").fetchone()[0]
while True:
    n += 1
    text = bytes((n + i) % 251 for i in range(n * 37 % 9000))
    with db:
        db.execute("insert into log values (?, ?, ?)", (n, text, hashlib.sha256(text).hexdigest()))
    print(n, flush=True)
"#;

/// Checks every row of the database and prints the last one's number.
const READER: &str = r#"
import hashlib, sqlite3
db = sqlite3.connect("/v/db")
assert db.execute("pragma integrity_check").fetchone() == ("ok",)
last = 0
for n, text, sum in db.execute("select n, text, sum from log order by n"):
    assert n == last + 1, (n, last)
    assert text == bytes((n + i) % 251 for i in range(n * 37 % 9000)), n
    assert hashlib.sha256(text).hexdigest() == sum, n
    last = n
print(last)
"#;

/// Answers each line with the same line.
const ECHO: &str = r#"
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
socketserver.ThreadingTCPServer(("", 7), Handler).serve_forever()
"#;

/// Sends numbers over one connection for ever, and ends at the first that does not come back.
const TALKER: &str = r#"
import socket, time
talk = socket.create_connection(("echo", 7)).makefile("rw")
n = 0
while True:
    n += 1
    talk.write(f"{n}\n")
    talk.flush()
    assert talk.readline() == f"{n}\n"
    print(n, flush=True)
    time.sleep(0.02)
"#;

/// Appends numbers with checksums to a file, each on the disk before it is told. A power cut may leave half a line.
const APPENDER: &str = r#"
echo >>/v/log
n=$(awk '$2 == $1 * 7919 % 1000003 { n = $1 } END { print n + 0 }' /v/log)
while :; do
    n=$((n + 1))
    echo $n $((n * 7919 % 1000003)) >>/v/log
    sync /v/log
    echo $n
done
"#;

/// Tells the number up to which none is missing.
const COUNTER: &str = r#"
awk '$2 == $1 * 7919 % 1000003 { seen[$1] } END { while ((n + 1) in seen) n++; print n + 0 }' /v/log
"#;

struct Guest {
    daemon: DaemonUnderTest,
    docker: DockerCli,
    directory: TempDir,
}

impl Guest {
    fn start(daemon_settings: &str) -> anyhow::Result<Guest> {
        let daemon = DaemonUnderTest::start_with_names(Backend::Qemu, |port| {
            format!(
                r#"{{"files": {{"shares": ["/tmp"], "read_only": ["/usr"]}}, "names": {{"port": {port}}},
                "machine": {{"memory_mib": 768}}, "daemon": {daemon_settings}}}"#
            )
        })?;
        let docker = daemon.docker()?;
        docker.feed("load", Image::busybox()?.archive(&["busybox:latest"]))?.ok()?;
        let directory = tempfile::Builder::new().prefix("skiff-sleep-").tempdir_in("/tmp")?;
        Ok(Guest { daemon, docker, directory })
    }

    /// Runs a Python program of this machine's in a container of busybox.
    fn python(&self, options: &str, program: &str) -> anyhow::Result<Finished> {
        let line = format!(
            "run {options} -v {}:/x -v vol:/v -e HOME=/ -e PYTHONDONTWRITEBYTECODE=1 -v /usr:/usr -v /lib:/lib:ro -v \
             /lib64:/lib64:ro busybox /usr/bin/python3 -c",
            self.directory.path().display()
        );
        self.docker.command(&line).args([program]).timeout(BOOT).run()?.ok()
    }

    fn machine(&self, command: &str) -> anyhow::Result<Finished> {
        self.daemon.skiff(&format!("machine {command}"))?.timeout(BOOT).run()
    }

    fn status(&self) -> anyhow::Result<String> {
        Ok(self.machine("status")?.ok()?.out())
    }

    fn count(&self, container: &str) -> anyhow::Result<u64> {
        let logs = self.docker.command(&format!("logs --tail 1 {container}")).timeout(BOOT).run()?.ok()?;
        Ok(logs.out().trim().parse().unwrap_or(0))
    }

    /// Waits until a container has said more.
    fn goes_on(&self, container: &str) -> anyhow::Result<u64> {
        let before = self.count(container)?;
        wait_until(&format!("{container} to go on"), BOOT, || {
            self.count(container).ok().filter(|count| *count > before)
        })
    }

    /// Kills the daemon that a command has started in the place of a killed one.
    fn end_other_daemon(&self) {
        let lock = self.daemon.state().join("lock");
        let pid = fs::read_to_string(lock).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let Some(pid) = pid else { return };
        let state = self.daemon.state();
        // The number may be of the daemon that is dead already, and by now somebody else's.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&*state.to_string_lossy()) {
            kill_hard(pid);
        }
    }

    fn rows(&self) -> anyhow::Result<u64> {
        let out = self.python("--rm", READER)?.out();
        out.trim().parse().with_context(|| format!("{out:?} is no number"))
    }

    fn suspend(&self) -> anyhow::Result<()> {
        self.machine("suspend")?.ok()?;
        ensure!(self.daemon.qemu_pids().is_empty(), "a process of the guest is left");
        Ok(())
    }

    /// An orderly stop leaves a file system without a fault.
    fn ends_clean(mut self) -> anyhow::Result<()> {
        self.daemon.stop()?;
        let disk = self.daemon.state().join("machine/disk.img");
        let check =
            Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(&disk).output().context("start e2fsck")?;
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        ensure!(check.status.success(), "the data disk is damaged:\n{said}");
        Ok(())
    }
}

fn on_guest(settings: &str, test: impl FnOnce(&mut Guest) -> anyhow::Result<()>) {
    let mut guest = Guest::start(settings).unwrap_or_else(|error| panic!("{error:#}"));
    if let Err(error) = test(&mut guest) {
        panic!("{error:#}\n{}", guest.daemon.log_tail());
    }
    guest.ends_clean().unwrap_or_else(|error| panic!("{error:#}"));
}

fn rounds(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn get(port: u16, host: &str) -> anyhow::Result<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Ok(http::request("GET", address, "/word", &[("Host", host)], &[])?.text())
}

#[test]
fn a_guest_that_slept_goes_on_and_its_clients_see_a_delay_only() {
    on_guest("{}", |guest| {
        let mut chance = Chance::announced();
        let port = free_port()?;
        let web = "import http.server, os; os.chdir('/x'); http.server.test(http.server.SimpleHTTPRequestHandler, port=80)";
        guest.docker.run("network create net")?.ok()?;
        guest.python("-d --name echo --network net", ECHO)?;
        guest.python(&format!("-d --name web -p 127.0.0.1:{port}:80"), web)?;
        fs::write(guest.directory.path().join("word"), "first")?;
        wait_until("the web server", BOOT, || get(port, "x").ok().filter(|word| word == "first"))?;
        guest.python("-d --name writer", WRITER)?;
        guest.python("-d --name talker --network net", TALKER)?;
        guest.docker.run("run -d --name still busybox sleep 100000")?.ok()?;
        guest.docker.run("pause still")?.ok()?;
        let started = |name: &str| guest.docker.inspect(name, "{{.State.StartedAt}}");
        let names = ["echo", "web", "writer", "talker"];
        let before: Vec<String> = names.iter().map(|name| started(name)).collect::<Result<_, _>>()?;
        for name in ["writer", "talker"] {
            guest.goes_on(name)?;
        }
        for round in 0..rounds("SKIFF_SLEEPS", 3) {
            std::thread::sleep(chance.below(Duration::from_millis(1500)));
            guest.suspend()?;
            let status = guest.status()?;
            ensure!(status.contains("asleep") && status.contains("Saved:"), "{status}");
            fs::write(guest.directory.path().join("word"), format!("word {round}"))?;
            let word = format!("word {round}");
            match round % 4 {
                0 => ensure!(get(port, "x")? == word, "the published port serves something else"),
                1 => ensure!(
                    get(guest.daemon.names_port(), "web.localhost")? == word,
                    "the name leads elsewhere"
                ),
                2 => drop(guest.docker.command("ps").timeout(BOOT).run()?.ok()?),
                _ => drop(guest.machine("resume")?.ok()?),
            }
            let status = guest.status()?;
            ensure!(status.contains("Wake:") && !status.contains("Saved:"), "it did not wake:\n{status}");
            let clock: u64 = guest.docker.run("exec echo date +%s")?.ok()?.out().trim().parse()?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            ensure!(now.abs_diff(clock) <= 5, "the guest has {clock}, it is {now}");
            for name in ["writer", "talker"] {
                guest.goes_on(name)?;
            }
        }
        let after: Vec<String> = names.iter().map(|name| started(name)).collect::<Result<_, _>>()?;
        ensure!(before == after, "containers were started anew: {before:?} {after:?}");
        ensure!(guest.docker.inspect("still", "{{.State.Status}}")? == "paused");

        // The daemon may end meanwhile.
        guest.suspend()?;
        guest.daemon.stop()?;
        guest.daemon.spawn()?;
        wait_until("the daemon to find the guest asleep", BOOT, || {
            guest.status().ok().filter(|status| status.contains("asleep"))
        })?;
        ensure!(guest.daemon.qemu_pids().is_empty(), "looking wakes the guest");
        // Its ports are bound by the new daemon, and who comes wakes it.
        wait_until("the port to be bound", BOOT, || TcpListener::bind(("127.0.0.1", port)).err())?;
        ensure!(get(port, "x")?.starts_with("word"), "the port is not published again");
        ensure!(started("writer")? == before[2], "it did not wake");
        let acknowledged = guest.goes_on("writer")?;
        guest.docker.run("kill writer talker")?.ok()?;
        let rows = guest.rows()?;
        ensure!(rows >= acknowledged, "{acknowledged} rows were acknowledged, {rows} are there");
        Ok(())
    });
}

/// What must not be the same in two guests that began with one template.
const UNIQUE: &str = r#"
cat /proc/sys/kernel/random/boot_id
head -c 32 /dev/urandom | md5sum
"#;

#[test]
fn starts_from_one_template_share_nothing_that_is_random_and_have_the_disk_as_it_is() {
    on_guest(r#"{}"#, |guest| {
        let kept = guest.daemon.state().join("machine/template/state.json");
        wait_until("the template to be kept", BOOT, || kept.exists().then_some(()))?;
        let status = guest.status()?;
        ensure!(status.contains("Boot:") && status.contains("Template:"), "{status}");
        let mut seen = std::collections::HashSet::new();
        let mut unique = |guest: &Guest, round: u32| -> anyhow::Result<()> {
            let text = guest.docker.sh("run --rm busybox", UNIQUE)?.ok()?.out();
            let id = guest.docker.run(&format!("create --name c{round} busybox true"))?.ok()?.out();
            for word in text.split_whitespace().chain([id.trim()]).filter(|word| word.len() > 16) {
                ensure!(seen.insert(word.to_owned()), "{word} comes again in round {round}:\n{text}");
            }
            Ok(())
        };
        unique(guest, 10)?;
        for round in 11..11 + rounds("SKIFF_STARTS", 2) {
            guest.docker.sh("run --rm -v vol:/v busybox", &format!("echo {round} >/v/round; sync"))?.ok()?;
            guest.machine("stop")?.ok()?;
            let said = guest
                .docker
                .command("run --rm -v vol:/v busybox cat /v/round")
                .timeout(BOOT)
                .run()?
                .ok()?
                .out();
            ensure!(said.trim() == round.to_string(), "the disk is an old one: {said:?}");
            let status = guest.status()?;
            ensure!(status.contains("Start:") && status.contains("from the template"), "{status}");
            unique(guest, round)?;
        }
        // Containers come back by their policies, as after a boot.
        guest.docker.run("run -d --name always --restart always busybox sleep 100000")?.ok()?;
        guest.machine("stop")?.ok()?;
        guest.docker.command("ps").timeout(BOOT).run()?.ok()?;
        wait_until("the container to be started again", BOOT, || {
            guest.docker.inspect("always", "{{.State.Status}}").ok().filter(|status| status == "running")
        })?;
        guest.docker.run("rm -f always")?.ok()?;

        // Damage costs a boot, and the next template.
        guest.machine("stop")?.ok()?;
        let ram = guest.daemon.state().join("machine/template/ram");
        let length = fs::metadata(&ram)?.len();
        fs::File::options().write(true).open(&ram)?.set_len(length / 2)?;
        guest.docker.command("ps").timeout(BOOT).run()?.ok()?;
        let status = guest.status()?;
        ensure!(status.contains("Boot:") && status.contains("No template:"), "{status}");
        wait_until("another template", BOOT, || kept.exists().then_some(()))?;
        guest.machine("prune")?.ok()?;
        ensure!(!ram.exists(), "the template takes space");
        Ok(())
    });
}

#[test]
fn a_sleep_whose_disk_moved_on_is_never_woken() {
    on_guest(r#"{"idle": "sleep", "idle_stop_seconds": 2}"#, |guest| {
        guest.docker.run("run -d --name still busybox sleep 100000")?.ok()?;
        guest.docker.run("pause still")?.ok()?;
        let asleep = |guest: &Guest| guest.status().ok().filter(|status| status.contains("asleep"));
        // Nobody asked for it.
        wait_until("the guest to sleep", BOOT, || asleep(guest))?;
        ensure!(guest.daemon.qemu_pids().is_empty(), "a process of the guest is left");
        let saved = guest.daemon.state().join("machine/saved");
        let kept = guest.directory.path().join("kept");
        let copy = |from: &Path, to: &Path| {
            Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status().context("cp")
        };
        ensure!(copy(&saved, &kept)?.success());
        guest.docker.command("unpause still").timeout(BOOT).run()?.ok()?;
        ensure!(!saved.join("state.json").exists() && !saved.join("ram").exists(), "it could be woken twice");
        guest.docker.run("run --name done busybox true")?.ok()?;
        guest.machine("stop")?.ok()?;

        fs::remove_dir_all(&saved)?;
        ensure!(copy(&kept, &saved)?.success());
        ensure!(
            guest.docker.command("inspect -f {{.State.Status}} done").timeout(BOOT).run()?.ok()?.out().trim()
                == "exited"
        );
        let status = guest.status()?;
        ensure!(status.contains("No wake:") && status.contains("the disk was used since"), "{status}");

        // A stop throws a sleeping guest away.
        guest.suspend()?;
        guest.machine("stop")?.ok()?;
        let status = guest.status()?;
        ensure!(status.contains("stopped") && !status.contains("Saved:"), "{status}");
        Ok(())
    });
}

#[test]
fn whatever_is_killed_in_saving_or_waking_costs_the_sleep_and_never_the_disk() {
    on_guest("{}", |guest| {
        let mut chance = Chance::announced();
        guest.docker.sh("run -d --name writer -v vol:/v busybox", APPENDER)?.ok()?;
        let mut acknowledged = guest.goes_on("writer")?;
        for round in 0..rounds("SKIFF_KILLS", 4) {
            let waking = round % 2 == 1;
            if waking {
                guest.suspend()?;
            }
            let command = if waking { "machine resume" } else { "machine suspend" };
            let under_way = guest.daemon.skiff(command)?.timeout(BOOT).start()?;
            std::thread::sleep(chance.below(Duration::from_millis(if waking { 700 } else { 1500 })));
            let qemu = guest.daemon.qemu_pids();
            if (round / 2) % 2 == 0 {
                qemu.into_iter().for_each(kill_hard);
                let _ = under_way.finish(BOOT)?;
            } else {
                guest.daemon.kill_daemon()?;
                if (round / 4) % 2 == 1 {
                    guest.daemon.qemu_pids().into_iter().for_each(kill_hard);
                }
                // It may have failed, and says so; or it came too late and has started a daemon of its own.
                let _ = under_way.finish(BOOT)?;
                guest.end_other_daemon();
                guest.daemon.start_again()?;
            }
            guest.docker.command("start writer").timeout(BOOT).run()?.ok()?;
            let known = guest.goes_on("writer")?;
            ensure!(known > acknowledged, "{acknowledged} were acknowledged, {known} are known");
            acknowledged = known;
            ensure!(guest.daemon.qemu_pids().len() == 1, "QEMU processes {:?}", guest.daemon.qemu_pids());
        }
        guest.docker.run("kill writer")?.ok()?;
        let rows: u64 = guest.docker.sh("run --rm -v vol:/v busybox", COUNTER)?.ok()?.out().trim().parse()?;
        ensure!(rows >= acknowledged, "{acknowledged} were acknowledged, {rows} are there");
        Ok(())
    });
}
