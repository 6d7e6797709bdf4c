//! Small files and large ones on a shared directory of the host, inside the guest, beside the guest's own ext4 and tmpfs.
//!
//! virtiofsd and 9p would be the peers, but Debian's cloud kernel has neither file system. This program is run in a
//! container, over all three places in turns, so that all are timed by one clock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::http::Api;
use crate::process::{Running, guest_image, program};
use crate::sample::Sample;

const ROUNDS: usize = 5;
/// Small files in a round.
const FILES: usize = 1000;
/// Bytes of the large file.
const LARGE: usize = 32 << 20;
/// Reads and writes of 4 KiB at random places.
const RANDOM: usize = 500;
const PLACES: [&str; 3] = ["share", "ext4", "tmpfs"];

/// Prints the figures.
pub fn bench() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (state, socket) = (directory.path().join("state"), directory.path().join("docker.sock"));
    let shared = directory.path().join("shared");
    fs::create_dir_all(&state)?;
    fs::create_dir(&shared)?;
    let own = std::env::current_exe().context("this program has a path")?;
    fs::copy(&own, shared.join("skiff-bench"))?;
    let settings = serde_json::json!({"files": {"shares": [&shared], "read_only": ["/usr"]}});
    fs::write(state.join("settings.json"), settings.to_string())?;
    let mut daemon = Command::new(program("skiff")?);
    daemon.args(["daemon", "--backend", "qemu", "--state"]).arg(&state).arg("--socket").arg(&socket);
    daemon.env("SKIFF_GUEST_IMAGE", guest_image()?);
    let _daemon = Running(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    Api::wait(&socket, Duration::from_secs(120))?;

    let told = Command::new(program("skiff")?)
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .arg("--state")
        .arg(&state)
        .args(["run", "--rm", "--tmpfs", "/tmpfs", "-v", "bench:/ext4", "-v"])
        .arg(format!("{}:/share", shared.display()))
        .args(["-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro", "skiff/toolbox"])
        .args(["/share/skiff-bench", "files-inside"])
        .stdin(Stdio::null())
        .output()?;
    ensure!(told.status.success(), "in the guest: {}", String::from_utf8_lossy(&told.stderr).trim());
    let mut samples: BTreeMap<(String, String), Sample> = BTreeMap::new();
    let text = String::from_utf8(told.stdout)?;
    for line in text.lines() {
        let mut words = line.split('\t');
        let (Some(what), Some(place), Some(nanos)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let sample = samples.entry((what.to_owned(), place.to_owned())).or_default();
        sample.push(Duration::from_nanos(nanos.trim().parse()?));
    }
    ensure!(!samples.is_empty(), "no figures came out of the guest: {text:?}");
    println!("files: µs per operation in a container of the guest, and ratio to the guest's ext4");
    println!("  {:<24} {:>10} {:>10} {:>10} {:>8}", "", "share", "ext4", "tmpfs", "ratio");
    let mut names: Vec<&String> = samples.keys().map(|(what, _)| what).collect();
    names.dedup();
    for what in names {
        let of = |place: &str| samples.get(&(what.clone(), place.to_owned()));
        let micros = |place| of(place).map_or(0.0, |sample| sample.median().as_secs_f64() * 1e6);
        let ratio = micros("share") / micros("ext4").max(f64::MIN_POSITIVE);
        println!(
            "  {:<24} {:>10.1} {:>10.1} {:>10.1} {ratio:>8.2}",
            what.get(2..).unwrap_or(what),
            micros("share"),
            micros("ext4"),
            micros("tmpfs")
        );
    }
    Ok(())
}

/// The part that runs in a container; prints a line for each round.
pub fn inside() -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        for place in PLACES {
            round(place).with_context(|| format!("on {place}"))?;
        }
    }
    Ok(())
}

fn timed(
    what: &str,
    place: &str,
    count: usize,
    work: impl FnOnce() -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    work().with_context(|| what.to_owned())?;
    println!("{what}\t{place}\t{}", started.elapsed().as_nanos() / count as u128);
    Ok(())
}

fn round(place: &str) -> anyhow::Result<()> {
    let directory = Path::new("/").join(place).join("work");
    fs::create_dir(&directory)?;
    let file = |number: usize| directory.join(format!("file{number:05}"));
    let all =
        |work: &dyn Fn(&Path) -> std::io::Result<()>| (0..FILES).try_for_each(|number| work(&file(number)));
    timed("a create and write", place, FILES, || all(&|path| fs::write(path, [7_u8; 100])))?;
    timed("b stat after write", place, FILES, || all(&|path| fs::metadata(path).map(drop)))?;
    timed("c open, read, close", place, FILES, || all(&|path| fs::read(path).map(drop)))?;
    // A read leaves the access time to be asked for: the second time still takes a message.
    timed("d open, read, close again", place, FILES, || all(&|path| fs::read(path).map(drop)))?;
    timed("d the same once more", place, FILES, || all(&|path| fs::read(path).map(drop)))?;
    timed("e list with attributes", place, FILES, || {
        for entry in fs::read_dir(&directory)? {
            entry?.metadata()?;
        }
        Ok(())
    })?;
    timed("f stat again", place, FILES, || all(&|path| fs::metadata(path).map(drop)))?;
    let nothing = || all(&|path| fs::metadata(path.with_extension("x")).map(drop).or(Ok(())));
    timed("g stat of nothing", place, FILES, nothing)?;
    timed("h stat of it again", place, FILES, nothing)?;
    timed("i unlink", place, FILES, || all(&|path| fs::remove_file(path)))?;
    let large = directory.join("large");
    let mebibytes = LARGE >> 20;
    timed("j write 1 MiB of 32", place, mebibytes, || {
        let content = vec![9_u8; 1 << 20];
        let file = File::create(&large)?;
        (0..mebibytes).try_for_each(|number| file.write_all_at(&content, (number << 20) as u64))?;
        file.sync_all()
    })?;
    timed("k read 1 MiB of 32", place, mebibytes, || fs::read(&large).map(drop))?;
    let file = File::options().read(true).write(true).open(&large)?;
    let at = |number: usize| (number.wrapping_mul(7919) % (LARGE / 4096) * 4096) as u64;
    timed("l write 4 KiB anywhere", place, RANDOM, || {
        (0..RANDOM).try_for_each(|number| file.write_all_at(&[3; 4096], at(number)))
    })?;
    timed("m read 4 KiB anywhere", place, RANDOM, || {
        (0..RANDOM).try_for_each(|number| file.read_exact_at(&mut [0; 4096], at(number)))
    })?;
    drop(file);
    fs::remove_dir_all(&directory)?;
    Ok(())
}
