//! Shared directories under real programs in the guest: git, SQLite, a recorder of events, and a daemon that is killed.
//!
//! The programs are this machine's own: its `/usr` is shared for reading, and mounted into a container of busybox.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod events;
mod watchers;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use skiff_testkit::process::Finished;
use skiff_testkit::{Backend, DaemonUnderTest, DockerCli, Image, wait_until};
use tempfile::TempDir;

const SETTINGS: &str = r#"{"files": {"shares": ["/tmp"], "read_only": ["/usr"]}}"#;
const PATIENCE: Duration = Duration::from_secs(240);

struct Guest {
    daemon: DaemonUnderTest,
    docker: DockerCli,
    directory: TempDir,
}

impl Guest {
    fn start() -> anyhow::Result<Guest> {
        let daemon = DaemonUnderTest::start_with_settings(Backend::Qemu, SETTINGS)?;
        let docker = daemon.docker()?;
        docker.feed("load", Image::busybox()?.archive(&["busybox:latest"]))?.ok()?;
        let directory = tempfile::Builder::new().prefix("skiff-files-").tempdir_in("/tmp")?;
        Ok(Guest { daemon, docker, directory })
    }

    /// The options of a container that sees the shared directory at `/x` and has this machine's programs.
    fn options(&self) -> String {
        format!(
            "-v {}:/x -w /x -e HOME=/ -e PATH=/usr/bin:/bin -e PYTHONDONTWRITEBYTECODE=1 -v /usr:/usr -v /lib:/lib:ro -v \
             /lib64:/lib64:ro",
            self.directory.path().display()
        )
    }

    fn run(&self, script: &str) -> anyhow::Result<Finished> {
        let line = format!("run --rm {} busybox sh -c", self.options());
        self.docker.command(&line).args([script]).timeout(PATIENCE).run()
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Makes the database, which two at once may not: SQLite doesn't wait for the lock that switches the journal.
const NEW_DATABASE: &str = r#"
import sqlite3
db = sqlite3.connect("/x/data.db")
db.execute("pragma journal_mode=wal")
db.execute("create table t (name text, n integer)")
"#;

/// Two of these write one database at once.
const DATABASE: &str = r#"
import os, sqlite3
name = os.environ["NAME"]
db = sqlite3.connect("/x/data.db", timeout=120, isolation_level=None)
for n in range(40):
    db.execute("begin immediate")
    db.execute("insert into t values (?, ?)", (name, n))
    db.execute("commit")
assert db.execute("pragma integrity_check").fetchone() == ("ok",)
print(db.execute("select count(*) from t where name = ?", (name,)).fetchone()[0])
"#;

/// Writes numbers, each on the disk before it is acknowledged.
const WRITER: &str = r#"
import os, time
fd = os.open("/x/log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
n = 0
while True:
    try:
        os.write(fd, b"%d\n" % n)
        os.fsync(fd)
    except OSError as error:
        print("error", error.errno, flush=True)
        break
    print(n, flush=True)
    n += 1
"#;

/// Has a file open, and goes on with it when it is told to.
const HOLDER: &str = r#"
import os, time
held = open("/x/held", "r+")
print(held.readline().strip(), flush=True)
while not os.path.exists("/x/go"):
    time.sleep(0.1)
print(held.readline().strip(), flush=True)
held.seek(0, 2)
held.write("three\n")
"#;

#[test]
fn real_programs_work_on_shared_directories() {
    let mut guest = Guest::start().unwrap_or_else(|error| panic!("{error:#}"));
    let result = git(&guest)
        .and_then(|()| database(&guest))
        .and_then(|()| read_only_share(&guest))
        .and_then(|()| events::are_the_hosts(&guest))
        .and_then(|()| watchers::notice(&guest))
        .and_then(|()| killed_daemon(&mut guest));
    if let Err(error) = result {
        panic!("{error:#}\n{}", guest.daemon.log_tail());
    }
}

fn git(guest: &Guest) -> anyhow::Result<()> {
    let script = "set -e; git init -q origin; cd origin; git config user.email a@b; git config user.name n; \
                  for d in 1 2 3 4 5; do mkdir -p d$d; for f in 1 2 3 4 5 6 7 8 9 10; do echo $d $f > d$d/$f; done; done; \
                  git add .; git commit -qm one; cd ..; git clone -q origin copy; cd copy; git status --porcelain; \
                  git mv d1 moved; git commit -qam two --author 'n <a@b>'; git status --porcelain; git log --oneline | wc -l; \
                  git fsck 2>&1";
    let script = format!("export GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=a@b; {script}");
    guest.run(&script)?.ok()?.prints("2\n")?;
    ensure!(fs::read_to_string(guest.path().join("copy/moved/7"))? == "1 7\n");
    // The host's change is in the next status.
    fs::write(guest.path().join("copy/moved/7"), "1 8\n")?;
    guest
        .run("git config --global --add safe.directory '*'; cd copy && git status --porcelain")?
        .ok()?
        .prints(" M moved/7\n")?;
    Ok(())
}

fn database(guest: &Guest) -> anyhow::Result<()> {
    fs::write(guest.path().join("database.py"), DATABASE)?;
    fs::write(guest.path().join("new.py"), NEW_DATABASE)?;
    guest.run("python3 /x/new.py")?.ok()?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let writers = ["one", "two"]
            .map(|name| scope.spawn(move || guest.run(&format!("NAME={name} python3 /x/database.py"))));
        for writer in writers {
            writer.join().expect("the docker CLI does not panic")?.ok()?.prints("40\n")?;
        }
        Ok(())
    })
}

fn read_only_share(guest: &Guest) -> anyhow::Result<()> {
    // Mounted without `:ro`, and refused when it is opened, not when it is written.
    let script = "exec 3>>/usr/bin/env";
    guest.run(script)?.complains("Read-only file system")?;
    guest.run("rm /usr/bin/env; test -e /usr/bin/env")?.ok()?.complains("Read-only file system")?;
    Ok(())
}

fn killed_daemon(guest: &mut Guest) -> anyhow::Result<()> {
    fs::write(guest.path().join("writer.py"), WRITER)?;
    let line = format!("run -d --name writer {} busybox python3 /x/writer.py", guest.options());
    guest.docker.command(&line).timeout(PATIENCE).run()?.ok()?;
    let logs = |guest: &Guest| guest.docker.run("logs writer").map(|logs| logs.out()).unwrap_or_default();
    wait_until("the writer", PATIENCE, || (logs(guest).lines().count() > 20).then_some(()))?;
    fs::write(guest.path().join("held"), "one\ntwo\n")?;
    fs::write(guest.path().join("holder.py"), HOLDER)?;
    let line = format!("run -d --name holder {} busybox python3 /x/holder.py", guest.options());
    guest.docker.command(&line).timeout(PATIENCE).run()?.ok()?;
    wait_until("the holder", PATIENCE, || {
        guest.docker.run("logs holder").ok()?.out().contains("one").then_some(())
    })?;
    let qemu = guest.daemon.qemu_pid()?;
    guest.daemon.kill_daemon()?;
    guest.daemon.start_again()?;
    let docker = guest.daemon.docker()?;
    let same_guest = guest.daemon.qemu_pids() == [qemu];
    let ended = wait_until("the writer to end", PATIENCE, || {
        (docker.inspect("writer", "{{.State.Running}}").ok()? == "false").then_some(())
    });
    ended.context("a program waits for a host that is gone")?;
    let acknowledged = logs(guest);
    if same_guest {
        ensure!(acknowledged.lines().last().is_some_and(|line| line.starts_with("error")), "{acknowledged}");
    }
    let written = fs::read_to_string(guest.path().join("log"))?;
    for line in acknowledged.lines().filter(|line| !line.starts_with("error")) {
        ensure!(written.lines().any(|written| written == line), "{line} was on the disk and is gone");
    }
    fs::write(guest.path().join("go"), "")?;
    if same_guest {
        // What was open when the daemon was killed is still open.
        guest.docker.command("wait holder").timeout(PATIENCE).run()?.ok()?.prints("0\n")?;
        guest.docker.run("logs holder")?.ok()?.prints("one\ntwo\n")?;
        ensure!(fs::read_to_string(guest.path().join("held"))? == "one\ntwo\nthree\n");
    }
    guest.docker.run("rm -f writer holder")?.ok()?;
    guest.run("cat log | wc -l; echo again > after")?.ok()?;
    ensure!(fs::read_to_string(guest.path().join("after"))? == "again\n");
    Ok(())
}
