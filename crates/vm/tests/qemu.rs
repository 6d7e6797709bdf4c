//! QEMU for real: the stages, their deadlines, and what is left behind.
//!
//! None of these needs a guest image: what is booted here is a few bytes of machine code or nothing at all.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use skiff_vm::{
    Accelerator, Backend, Error, ExitReason, GuestConfig, Restore, Stage, Step, Transport,
    qemu::{Deadlines, Files, Qemu},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A machine directory that ends its QEMU when the test ends, however it ends.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("initramfs"), b"none").unwrap();
        let disk = std::fs::File::create(dir.path().join("disk.img")).unwrap();
        disk.set_len(1 << 20).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn files(&self) -> Files {
        Files {
            monitor: self.path("qmp.sock"),
            console: self.path("console.sock"),
            link: self.path("link.sock"),
            console_log: self.path("console.log"),
            stderr_log: self.path("qemu.log"),
            verdict: self.path("verdict.json"),
            record: self.path("guest.json"),
        }
    }

    fn config(&self, kernel: &[u8]) -> GuestConfig {
        std::fs::write(self.path("kernel"), kernel).unwrap();
        GuestConfig {
            name: "skiff-test".to_owned(),
            kernel: self.path("kernel"),
            initramfs: self.path("initramfs"),
            cmdline: String::new(),
            disk: self.path("disk.img"),
            cpus: None,
            memory_mib: 64,
            registry_mirrors: Vec::new(),
            address_pools: Vec::new(),
            publish_ip: std::net::Ipv4Addr::UNSPECIFIED.into(),
            environment: Vec::new(),
            retry_accelerator: false,
            image_id: "test".to_owned(),
            restore: None,
        }
    }

    fn backend(&self) -> Qemu {
        Qemu::new(self.files()).deadlines(Deadlines {
            monitor: Duration::from_secs(15),
            first_sign_hardware: Duration::from_secs(2),
            first_sign_translated: Duration::from_secs(3),
            loaded: Duration::from_secs(30),
        })
    }

    fn left_over(&self) -> Vec<String> {
        let expected = ["initramfs", "disk.img", "kernel", "console.log", "qemu.log", "verdict.json"];
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !expected.contains(&name.as_str()))
            .collect();
        names.extend(processes_naming(self.dir.path()).into_iter().map(|pid| format!("process {pid}")));
        names
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for pid in processes_naming(self.dir.path()) {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Finds the QEMU processes whose command line names the test's own directory.
fn processes_naming(dir: &Path) -> Vec<i32> {
    let needle = dir.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_qemu = cmdline.starts_with(b"qemu-system") || cmdline.starts_with(b"/usr/bin/qemu-system");
        if is_qemu && cmdline.windows(needle.len()).any(|window| window == needle) {
            found.push(pid);
        }
    }
    found
}

/// A kernel of a few instructions: a PVH ELF image that runs `code` in 32-bit protected mode.
fn pvh_kernel(code: &[u8]) -> Vec<u8> {
    const LOAD: u32 = 0x0010_0000;
    const HEADERS: u32 = 64 + 2 * 56;
    const NOTE: u32 = HEADERS;
    const NOTE_SIZE: u32 = 12 + 4 + 4;
    let entry = LOAD + NOTE + NOTE_SIZE;
    let mut image = Vec::new();
    let word = |image: &mut Vec<u8>, value: u64, size: usize| image.extend(&value.to_le_bytes()[..size]);
    image.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    word(&mut image, 2, 2); // executable
    word(&mut image, 62, 2); // x86-64
    word(&mut image, 1, 4);
    word(&mut image, u64::from(entry), 8);
    word(&mut image, 64, 8); // program headers
    word(&mut image, 0, 8);
    word(&mut image, 0, 4);
    for value in [64_u64, 56, 2, 0, 0, 0] {
        word(&mut image, value, 2);
    }
    let size = u64::from(NOTE + NOTE_SIZE) + code.len() as u64;
    for (kind, offset, length) in [(1_u64, 0_u64, size), (4, u64::from(NOTE), u64::from(NOTE_SIZE))] {
        word(&mut image, kind, 4);
        word(&mut image, 7, 4);
        word(&mut image, offset, 8);
        word(&mut image, u64::from(LOAD) + offset, 8);
        word(&mut image, u64::from(LOAD) + offset, 8);
        word(&mut image, length, 8);
        word(&mut image, length, 8);
        word(&mut image, 4, 8);
    }
    // XEN_ELFNOTE_PHYS32_ENTRY, see the PVH boot protocol.
    for value in [4_u32, 4, 18] {
        word(&mut image, u64::from(value), 4);
    }
    image.extend(b"Xen\0");
    word(&mut image, u64::from(entry), 4);
    image.extend(code);
    image
}

/// `mov dx, 0x3f8; mov al, 'S'; out dx, al; hlt; jmp -3`: writes one byte to the first serial port and idles.
const WRITES_A_BYTE: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'S', 0xee, 0xf4, 0xeb, 0xfd];
/// `jmp -2`: spins without a word, as a guest does on a broken accelerator.
const SPINS: &[u8] = &[0xeb, 0xfe];
/// The same word, then a triple fault: `lidt [0]; int3` with an empty table.
const WRITES_AND_RESETS: &[u8] =
    &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'S', 0xee, 0x0f, 0x01, 0x1d, 0, 0, 0, 0, 0xcc];

#[tokio::test]
async fn guest_that_shows_a_sign_of_life_starts_and_stops_without_remains() {
    let machine = Machine::new();
    let backend = machine.backend().accelerator(Accelerator::Tcg);
    let steps = Mutex::new(Vec::new());
    let guest = backend
        .start(&machine.config(&pvh_kernel(WRITES_A_BYTE)), &|step| steps.lock().unwrap().push(step))
        .await
        .unwrap();
    assert_eq!(
        *steps.lock().unwrap(),
        [
            Step::StartingProcess { accelerator: Some(Accelerator::Tcg) },
            Step::WaitingForGuest,
            Step::GuestAlive
        ]
    );
    assert_eq!(guest.console_tail(), "S");
    let description = guest.description();
    assert_eq!((description.backend.as_str(), description.accelerator), ("qemu", Some(Accelerator::Tcg)));
    assert!(matches!(guest.open_transport().await.unwrap(), Transport::Stream(_)));
    guest.stop(Duration::from_secs(5)).await.unwrap();
    assert_eq!(guest.wait().await.reason, ExitReason::Stopped);
    assert_eq!(machine.left_over(), Vec::<String>::new());
    assert_eq!(std::fs::read(machine.path("console.log")).unwrap(), b"S");
}

#[tokio::test]
async fn silent_guest_misses_its_deadline_and_leaves_nothing() {
    let machine = Machine::new();
    let started = Instant::now();
    let error = machine
        .backend()
        .accelerator(Accelerator::Tcg)
        .start(&machine.config(&pvh_kernel(SPINS)), &|_| {})
        .await
        .err()
        .expect("a guest without a sign of life must not count as started");
    assert!(matches!(error, Error::Deadline { stage: Stage::FirstSign, .. }), "{error:?}");
    assert_eq!(error.to_string(), "waited 3 s in vain for the guest's first sign of life (tcg)");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(machine.left_over(), Vec::<String>::new());
}

#[tokio::test]
async fn kernel_that_is_none_is_refused_in_qemus_words() {
    let machine = Machine::new();
    let error = machine
        .backend()
        .accelerator(Accelerator::Tcg)
        .start(&machine.config(b"not a kernel at all"), &|_| {})
        .await
        .err()
        .expect("garbage does not boot");
    assert!(matches!(error, Error::Ended { stage: Stage::Monitor, .. }), "{error:?}");
    assert!(error.to_string().contains("kernel"), "{error}");
    assert_eq!(machine.left_over(), Vec::<String>::new());
}

#[tokio::test]
async fn missing_qemu_says_what_to_install() {
    let machine = Machine::new();
    let backend = machine.backend().program("/nonexistent/qemu");
    let error = backend.start(&machine.config(b""), &|_| {}).await.err().unwrap();
    assert_eq!(error.to_string(), "cannot start /nonexistent/qemu");
    assert_eq!(machine.left_over(), Vec::<String>::new());
}

#[tokio::test]
async fn guest_that_resets_is_gone_with_a_reason() {
    let machine = Machine::new();
    let backend = machine.backend().accelerator(Accelerator::Tcg);
    let guest = backend.start(&machine.config(&pvh_kernel(WRITES_AND_RESETS)), &|_| {}).await.unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(10), guest.wait()).await.unwrap();
    assert_eq!(exit.reason, ExitReason::Reset);
    assert!(exit.tail.starts_with('S'), "{exit:?}");
    guest.stop(Duration::from_secs(1)).await.unwrap();
    assert_eq!(machine.left_over(), Vec::<String>::new());
}

#[tokio::test]
async fn running_guest_is_found_again_and_a_dead_one_is_cleaned_up() {
    let machine = Machine::new();
    let first = machine.backend().accelerator(Accelerator::Tcg);
    assert!(first.adopt().await.unwrap().is_none());
    let guest = first.start(&machine.config(&pvh_kernel(WRITES_A_BYTE)), &|_| {}).await.unwrap();
    let pid = guest.description().pid;
    drop((guest, first));

    let second = machine.backend();
    let guest = second.adopt().await.unwrap().expect("it still runs");
    let description = guest.description();
    assert_eq!((description.pid, description.adopted), (pid, true));
    assert_eq!(description.version.as_deref().map(|v| v.split('.').count()), Some(3));
    let Transport::Stream(mut link) = guest.open_transport().await.unwrap() else { panic!("not a stream") };
    link.write_all(b"x").await.unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let exit = guest.wait().await;
    assert_eq!(exit.reason, ExitReason::Died);
    assert_eq!(link.read(&mut [0]).await.unwrap_or(0), 0, "the link ends with the guest");
    drop(guest);

    assert!(machine.backend().adopt().await.unwrap().is_none());
    assert_eq!(machine.left_over(), Vec::<String>::new());
}

/// `mov dx, 0x3f8; mov al, '@'`, then for ever: `out dx, al`, the next of 32 letters, and a pause of a loop.
const COUNTS: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03, 0xb0, b'@', 0xee, 0xfe, 0xc0, 0x24, 0x1f, 0x0c, 0x40, 0xb9, 0, 0, 8, 0, 0xe2,
    0xfe, 0xeb, 0xf0,
];

impl Machine {
    /// What was written so far, once it is longer than `length`.
    async fn console_beyond(&self, length: usize) -> Vec<u8> {
        for _ in 0..2000 {
            let log = std::fs::read(self.path("console.log")).unwrap();
            if log.len() > length {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the guest stands still");
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_saved_guest_goes_on_at_the_very_instruction_in_another_process() {
    let machine = Machine::new();
    let backend = machine.backend().accelerator(Accelerator::Tcg);
    assert_eq!(backend.cannot_save(), None);
    let mut config = machine.config(&pvh_kernel(COUNTS));
    let guest = backend.start(&config, &|_| {}).await.unwrap();
    machine.console_beyond(3).await;
    let path = machine.path("initramfs.ram");
    let key = guest.save(&path).await.unwrap();
    assert!(guest.is_halted());
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o77,
        0
    );

    // One that could not be used goes on as if nothing had happened.
    let length = machine.console_beyond(0).await.len();
    guest.resume().await.unwrap();
    machine.console_beyond(length + 3).await;
    let key_again = guest.save(&path).await.unwrap();
    assert_eq!(key, key_again);
    guest.stop(Duration::from_secs(5)).await.unwrap();
    let before = machine.console_beyond(0).await;

    // Another machine is not tried.
    config.memory_mib += 1;
    config.restore = Some(Restore { path: path.clone(), key: key.clone(), template: false });
    let error = backend.start(&config, &|_| {}).await.err().unwrap();
    assert_eq!(error.to_string(), "the machine is not the same as when the guest was saved");
    config.memory_mib -= 1;
    config.image_id.push('2');
    assert!(matches!(backend.start(&config, &|_| {}).await, Err(Error::Changed { what: "the guest image" })));
    config.image_id.pop();

    // Whoever dies before it goes on leaves nothing that runs, and the state good.
    let guest = backend.start(&config, &|_| {}).await.unwrap();
    assert!(guest.is_halted());
    drop(guest);
    assert!(backend.adopt().await.unwrap().is_none());
    let guest = backend.start(&config, &|_| {}).await.unwrap();
    assert_eq!(std::fs::read(machine.path("console.log")).unwrap(), before, "it stands still");
    guest.resume().await.unwrap();
    let after = machine.console_beyond(before.len() + 8).await;
    for pair in after.windows(2) {
        assert_eq!(pair[1], (pair[0] + 1) & 0x1f | 0x40, "{}", String::from_utf8_lossy(&after));
    }
    assert!(!guest.is_halted());
    guest.stop(Duration::from_secs(5)).await.unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(machine.left_over(), Vec::<String>::new());
}

#[tokio::test]
async fn a_guest_whose_saver_died_is_found_halted_and_goes_on_and_damage_is_no_guest() {
    let machine = Machine::new();
    let backend = machine.backend().accelerator(Accelerator::Tcg);
    let mut config = machine.config(&pvh_kernel(COUNTS));
    let guest = backend.start(&config, &|_| {}).await.unwrap();
    let path = machine.path("initramfs.ram");
    let key = guest.save(&path).await.unwrap();
    drop(guest);
    let guest = backend.adopt().await.unwrap().expect("it still exists");
    assert!(guest.is_halted());
    let length = machine.console_beyond(0).await.len();
    guest.resume().await.unwrap();
    machine.console_beyond(length).await;
    kill(guest.description().pid);
    assert_eq!(guest.wait().await.reason, ExitReason::Died);
    assert!(guest.save(&path).await.is_err());
    drop(guest);
    assert!(backend.adopt().await.unwrap().is_none());

    for damage in [&b""[..], b"QEVM", &[0; 4096]] {
        std::fs::write(&path, damage).unwrap();
        config.restore = Some(Restore { path: path.clone(), key: key.clone(), template: false });
        assert!(backend.start(&config, &|_| {}).await.is_err(), "{} bytes are no guest", damage.len());
    }
    std::fs::remove_file(path).unwrap();
    assert_eq!(machine.left_over(), Vec::<String>::new());
}

#[tokio::test]
async fn abandoned_start_leaves_nothing() {
    let machine = Machine::new();
    let backend = machine.backend().accelerator(Accelerator::Tcg);
    let config = machine.config(&pvh_kernel(SPINS));
    let start = backend.start(&config, &|_| {});
    assert!(tokio::time::timeout(Duration::from_millis(700), start).await.is_err());
    for _ in 0..100 {
        if machine.left_over().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", machine.left_over());
}

/// An accelerator that spins for ever is what the staged deadlines are for: a QEMU that ignores `-accel kvm` and is
/// given a silent guest for it stands in, so that the test holds on every machine.
#[tokio::test]
async fn accelerator_that_hangs_is_given_up_at_its_deadline() {
    let machine = Machine::new();
    let silent = machine.path("initramfs");
    std::fs::write(&silent, pvh_kernel(SPINS)).unwrap();
    let script = format!(
        "#!/bin/bash\ncase \" $* \" in\n*' -accel kvm '*) set -- \"${{@/kvm/tcg}}\"; set -- \"${{@/host/max}}\"; \
         set -- \"${{@/#*\\/kernel/{}}}\";;\nesac\nexec qemu-system-x86_64 \"$@\"\n",
        silent.display().to_string().replace('/', "\\/")
    );
    let program = machine.path("qemu.sh");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        eprintln!("skipped: without /dev/kvm nothing tries kvm");
        return;
    }
    let backend = machine.backend().program(&program);
    let config = machine.config(&pvh_kernel(WRITES_A_BYTE));
    let began = Instant::now();
    let guest = backend.start(&config, &|_| {}).await.unwrap();
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&took), "{took:?}");
    let description = guest.description();
    assert_eq!(description.accelerator, Some(Accelerator::Tcg));
    let note = description.accelerator_note.unwrap();
    assert!(note.starts_with("kvm does not run guests here: waited 2 s in vain"), "{note}");
    guest.stop(Duration::from_secs(5)).await.unwrap();

    let began = Instant::now();
    let guest = backend.start(&config, &|_| {}).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "the verdict is remembered: {:?}", began.elapsed());
    assert_eq!(guest.description().accelerator_note, Some(note));
    guest.stop(Duration::from_secs(5)).await.unwrap();

    // The user may insist.
    let insist = GuestConfig { retry_accelerator: true, ..config };
    let began = Instant::now();
    let guest = backend.start(&insist, &|_| {}).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2));
    guest.stop(Duration::from_secs(5)).await.unwrap();
    std::fs::remove_file(&program).unwrap();
    assert_eq!(machine.left_over(), Vec::<String>::new());
}

/// The same with this machine's own KVM and a processor model that some nested ones spin on for ever.
#[tokio::test]
async fn whatever_this_machines_kvm_does_the_guest_runs_within_seconds() {
    let machine = Machine::new();
    let program = machine.path("qemu.sh");
    std::fs::write(&program, "#!/bin/bash\nexec qemu-system-x86_64 \"${@/#host/qemu64}\"\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let backend = machine.backend().program(&program);
    let config = machine.config(&pvh_kernel(WRITES_A_BYTE));
    let began = Instant::now();
    let guest = backend.start(&config, &|_| {}).await.unwrap();
    eprintln!("{:?} {:?}", began.elapsed(), guest.description());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    guest.stop(Duration::from_secs(5)).await.unwrap();
    std::fs::remove_file(&program).unwrap();
    assert_eq!(machine.left_over(), Vec::<String>::new());
}

/// Whether this machine's KVM works or not, the guest must run in the end, and soon.
#[tokio::test]
async fn broken_accelerator_costs_seconds_once_and_is_remembered() {
    let machine = Machine::new();
    let config = machine.config(&pvh_kernel(WRITES_A_BYTE));
    let started = Instant::now();
    let guest = machine.backend().start(&config, &|_| {}).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let description = guest.description();
    guest.stop(Duration::from_secs(5)).await.unwrap();
    if description.accelerator == Some(Accelerator::Tcg) {
        let note = description.accelerator_note.expect("the user is told why");
        let again = machine.backend();
        let guest = again
            .start(&config, &|step| {
                assert!(!matches!(step, Step::AcceleratorFailed { .. }), "tried again");
            })
            .await
            .unwrap();
        if machine.path("verdict.json").exists() {
            assert_eq!(guest.description().accelerator_note, Some(note));
        }
        guest.stop(Duration::from_secs(5)).await.unwrap();
    }
    assert_eq!(machine.left_over(), Vec::<String>::new());
}
