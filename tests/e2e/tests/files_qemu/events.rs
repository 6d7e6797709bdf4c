//! The contract of events: what a program in a container hears of a file is what one on the host hears of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use skiff_e2e::chance::Chance;
use skiff_testkit::{Program, wait_until};

use crate::{Guest, PATIENCE};

/// Changes of a usual run; `SKIFF_CHANGES` asks for more.
const CHANGES: usize = 6_000;
/// Changes before the test waits for both recorders: as many as the kernel's own queue (16,384 events) has room for.
const BURST: usize = 3_000;
const DIRECTORIES: usize = 12;
/// Names in each directory: few, so that a name is made, changed, moved and deleted again and again.
const NAMES: usize = 12;

/// Writes every event of the directories below its first argument to its second, until a file `stop` appears.
const RECORDER: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
top, output = sys.argv[1], open(sys.argv[2], "w", buffering=1 << 16)
fd = libc.inotify_init()
mask = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200
places = {}
for name in sorted(os.listdir(top)) + ["."]:
    watch = libc.inotify_add_watch(fd, os.path.join(top, name).encode(), mask)
    assert watch > 0, os.strerror(ctypes.get_errno())
    places[watch] = name
words = {2: "modify", 4: "attrib", 0x40: "from", 0x80: "to", 0x100: "create", 0x200: "delete"}
print("ready", flush=True)
while True:
    data = os.read(fd, 1 << 20)
    while data:
        watch, mask, cookie, length = struct.unpack("iIII", data[:16])
        name = data[16:16 + length].rstrip(b"\0").decode()
        word = "overflow" if mask & 0x4000 else words.get(mask & 0xfff, "?")
        if places.get(watch) == "." and name.startswith("mark"):
            if word == "create":
                output.flush()
                print(name, flush=True)
        elif name == "stop":
            output.close()
            raise SystemExit
        elif not mask & 0x40000000:
            output.write("%s %s/%s\n" % (word, places.get(watch, "?"), name))
        data = data[16 + length:]
"#;

/// Makes random changes and compares what each recorder heard of each name.
pub(crate) fn are_the_hosts(guest: &Guest) -> anyhow::Result<()> {
    let changes = std::env::var("SKIFF_CHANGES").ok().and_then(|text| text.parse().ok()).unwrap_or(CHANGES);
    let top = guest.path().join("watched");
    for number in 0..DIRECTORIES {
        fs::create_dir_all(top.join(format!("d{number}")))?;
    }
    let elsewhere = tempfile::tempdir()?;
    let recorder = guest.path().join("recorder.py");
    fs::write(&recorder, RECORDER)?;
    let line = format!(
        "run -d --name recorder -v /recorded {} busybox python3 /x/recorder.py /x/watched /recorded/events",
        guest.options()
    );
    guest.docker.command(&line).timeout(PATIENCE).run()?.ok()?;
    let heard_inside = || guest.docker.run("logs recorder").map(|logs| logs.out()).unwrap_or_default();
    let native = elsewhere.path().join("native");
    let host = Program::new("/usr/bin/python3")
        .args([recorder.as_os_str(), top.as_os_str(), native.as_os_str()])
        .start()
        .context("start the host's own recorder")?;
    host.wait_for("ready", PATIENCE)?;
    wait_until("the recorder", PATIENCE, || heard_inside().contains("ready").then_some(()))?;

    let mut changer = Changer::new(&top);
    let mut made = 0;
    while made < changes {
        for _ in 0..BURST.min(changes - made) {
            changer.change()?;
        }
        made += BURST;
        let mark = format!("mark{made}");
        fs::write(top.join(&mark), "")?;
        host.wait_for(&mark, PATIENCE)?;
        wait_until("what was changed to be heard of", PATIENCE, || {
            heard_inside().lines().any(|line| line == mark).then_some(())
        })?;
    }
    fs::write(top.join("d0/stop"), "")?;
    host.finish(PATIENCE)?.ok()?;
    guest.docker.command("wait recorder").timeout(PATIENCE).run()?.ok()?.prints("0\n")?;
    let copy = elsewhere.path().join("inside");
    guest.docker.command("cp recorder:/recorded/events").args([&copy]).run()?.ok()?;
    let (host, inside) = (by_name(&native)?, by_name(&copy)?);
    let wrong: Vec<String> = host
        .iter()
        .filter(|(name, words)| inside.get(*name) != Some(words))
        .map(|(name, words)| difference(name, words, inside.get(name).map_or(&[], Vec::as_slice)))
        .collect();
    ensure!(
        wrong.is_empty() && host.len() == inside.len(),
        "{} of {} names differ (seed {}); the first: {}",
        wrong.len(),
        host.len(),
        changer.chance.seed(),
        wrong.iter().take(5).cloned().collect::<Vec<_>>().join("; ")
    );
    eprintln!("{made} changes, {} events, each as on the host", host.values().map(Vec::len).sum::<usize>());
    guest.docker.run("rm -fv recorder")?.ok()?;
    Ok(())
}

/// Where two sequences part, with what is around.
fn difference(name: &str, host: &[String], inside: &[String]) -> String {
    let at = host.iter().zip(inside).position(|(one, other)| one != other);
    let at = at.unwrap_or(host.len().min(inside.len()));
    let part =
        |words: &[String]| words.iter().skip(at.saturating_sub(3)).take(7).cloned().collect::<Vec<_>>();
    format!("{name}, event {at} of {}: host {:?}, inside {:?}", host.len(), part(host), part(inside))
}

/// The events of each name; the kernel joins equal ones that follow each other, when they are read late enough.
fn by_name(file: &Path) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let (word, name) = line.split_once(' ').context("an event without a name")?;
        let of = all.entry(name.to_owned()).or_default();
        if of.last().map(String::as_str) != Some(word) {
            of.push(word.to_owned());
        }
    }
    Ok(all)
}

struct Changer {
    top: PathBuf,
    chance: Chance,
    made: usize,
}

impl Changer {
    fn new(top: &Path) -> Self {
        Self { top: top.to_owned(), chance: Chance::announced(), made: 0 }
    }

    fn name(&mut self) -> PathBuf {
        let (directory, name) = (self.chance.index(DIRECTORIES), self.chance.index(NAMES));
        self.top.join(format!("d{directory}/f{name}"))
    }

    /// One change of a random file, of the kinds that editors, compilers and version control make.
    fn change(&mut self) -> anyhow::Result<()> {
        self.made += 1;
        let (path, kind) = (self.name(), self.chance.index(10));
        let text = format!("change {}\n", self.made);
        if !path.exists() {
            return fs::write(&path, text).with_context(|| format!("make {}", path.display()));
        }
        match kind {
            0..=2 => fs::OpenOptions::new().append(true).open(&path)?.write_all(text.as_bytes())?,
            3 => fs::write(&path, text)?,
            4 => {
                let saved = path.with_extension("new");
                fs::write(&saved, text)?;
                fs::rename(&saved, &path)?;
            }
            5 | 6 => {
                let to = self.name();
                fs::rename(&path, to)?;
            }
            7 => {
                let mut mode = fs::metadata(&path)?.permissions();
                mode.set_readonly(!mode.readonly());
                fs::set_permissions(&path, mode)?;
            }
            _ => fs::remove_file(&path)?,
        }
        Ok(())
    }
}
