//! A real guest in QEMU: boot, re-adoption, clean stop.
//!
//! Needs QEMU and a guest image (`SKIFF_GUEST_IMAGE`, or `guest` in the target directory); without them there is
//! nothing to test, and the tests say so.

#![cfg(target_os = "linux")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use skiff_machine::{DiskSize, Machine, Options, Phase, backend};
use skiff_settings::{BackendChoice, Paths, Settings};

/// A state directory that ends its guest when the test ends, however it ends.
struct State {
    dir: tempfile::TempDir,
}

impl State {
    /// Prepares a state directory, or tells why there is nothing to test.
    fn new() -> Option<Self> {
        let state = Self { dir: tempfile::tempdir().unwrap() };
        match backend::select(&state.paths(), BackendChoice::Qemu, &state.exe()) {
            Ok(_) => {}
            Err(error) => {
                eprintln!("skipped: {error}");
                return None;
            }
        }
        state.paths().prepare().unwrap();
        let mut settings = Settings::default();
        settings.machine.memory_mib = Some(512);
        settings.machine.disk_gib = 4;
        settings.save(&state.paths().settings()).unwrap();
        Some(state)
    }

    fn paths(&self) -> Paths {
        Paths::discover_with(Some(self.dir.path()), |name| std::env::var_os(name)).unwrap()
    }

    /// A program in the target directory, where the image is looked for as well.
    fn exe(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/skiff")
    }

    fn machine(&self) -> Machine {
        let selected = backend::select(&self.paths(), BackendChoice::Qemu, &self.exe()).unwrap();
        Machine::spawn(Options::new(self.paths(), Arc::new(|_, _| {})), selected)
    }

    /// The QEMU processes whose command line names this directory.
    fn processes(&self) -> Vec<i32> {
        let needle = self.dir.path().as_os_str().as_encoded_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_qemu = cmdline.split(|b| *b == 0).next().is_some_and(|program| {
                String::from_utf8_lossy(program)
                    .rsplit('/')
                    .next()
                    .is_some_and(|name| name.starts_with("qemu-system"))
            });
            if is_qemu && cmdline.windows(needle.len()).any(|window| window == needle) {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for pid in self.processes() {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

async fn start(machine: &Machine) {
    let began = Instant::now();
    if let Err(error) = machine.start(false).await {
        let tail = error.detail().unwrap_or_default();
        panic!("{error}: {:?}\n{tail}", std::error::Error::source(&*error));
    }
    let snapshot = machine.snapshot();
    eprintln!("booted in {:?}: {:?} {:?}", began.elapsed(), snapshot.description, snapshot.hello);
}

#[tokio::test]
async fn guest_boots_and_stops_and_leaves_nothing() {
    let Some(state) = State::new() else { return };
    let machine = state.machine();
    start(&machine).await;
    assert!(!machine.snapshot().hello.unwrap().version.is_empty(), "the agent answers");
    let disk = DiskSize::of(&state.paths().disk()).unwrap();
    assert_eq!(disk.length, 4 << 30);
    assert!(disk.used < 256 << 20, "{disk:?}");

    let began = Instant::now();
    machine.stop().await.unwrap();
    eprintln!("stopped in {:?}", began.elapsed());
    let console = std::fs::read_to_string(state.paths().console_log()).unwrap();
    assert!(console.contains("Power down"), "the guest was not asked, or did not listen:\n{console}");
    assert!(began.elapsed() < Duration::from_secs(20), "by itself, not by force: {:?}", began.elapsed());
    assert_eq!(machine.snapshot().phase, Phase::Stopped);
    assert_eq!(state.processes(), Vec::<i32>::new());
    let left: Vec<_> = std::fs::read_dir(state.paths().machine_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            !["disk.img", "generation", "verdict.json", "image.json", "template"].contains(&name.as_str())
        })
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn guest_sleeps_in_a_file_and_goes_on_where_it_was() {
    let Some(state) = State::new() else { return };
    let machine = state.machine();
    start(&machine).await;
    let booted = machine.snapshot().hello.unwrap().uptime;
    machine.suspend().await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(state.processes(), Vec::<i32>::new());
    let saved = machine.saved().unwrap();
    let length = std::fs::metadata(state.paths().saved_dir().join("ram")).unwrap().len();
    assert!(saved.bytes < length / 2, "free memory is not written: {saved:?} of {length}");
    drop(machine);
    tokio::time::sleep(Duration::from_secs(3)).await;

    let machine = state.machine();
    start(&machine).await;
    let snapshot = machine.snapshot();
    assert!(snapshot.woken, "{:?}", snapshot.wake_note);
    // It ran a little before and after, and had no time in between.
    assert!(snapshot.hello.unwrap().uptime > booted);
    assert!(machine.saved().is_none());
    let console = std::fs::read_to_string(state.paths().console_log()).unwrap();
    assert_eq!(console.matches("skiff-agent 0").count(), 1, "it was booted again:\n{console}");
    machine.stop().await.unwrap();
    assert_eq!(state.processes(), Vec::<i32>::new());
}

#[tokio::test]
async fn running_guest_is_found_again() {
    let Some(state) = State::new() else { return };
    let machine = state.machine();
    start(&machine).await;
    let pid = machine.snapshot().description.unwrap().pid;
    drop(machine);
    let machine = state.machine();
    start(&machine).await;
    let description = machine.snapshot().description.unwrap();
    assert_eq!((description.pid, description.adopted), (pid, true));
    machine.stop().await.unwrap();
    assert_eq!(state.processes(), Vec::<i32>::new());
}
