//! From nothing to the first answer, beside the least that the same kernel can do.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::http::Api;
use crate::process::{Running, check, guest_image, program};
use crate::sample::Sample;

const ROUNDS: usize = 7;

/// Prints the figures.
pub fn bench() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let initramfs = empty_init(directory.path())?;
    let state = directory.path().join("state");
    // A start from the template is no boot; `wake` compares the two.
    std::fs::create_dir(&state)?;
    std::fs::write(state.join("settings.json"), r#"{"machine": {"template": false}}"#)?;
    // The first boot makes the disk and learns which accelerator works; users pay that once.
    let (_, arguments) = boot(&state)?;
    let (mut ours, mut floor) = (Sample::default(), Sample::default());
    for _ in 0..ROUNDS {
        floor.push(boot_empty(&arguments, &initramfs)?);
        ours.push(boot(&state)?.0);
    }
    println!("boot: process start to the first /_ping");
    println!("  skiff daemon  {ours}");
    println!("  empty init    {floor}   (same QEMU, same kernel)");
    println!("  ratio         {:8.2}     (goal ≤ 1.50)", ours.ratio(&floor));
    Ok(())
}

/// Boots a guest under a daemon of its own; returns how long it took and QEMU's arguments.
fn boot(state: &Path) -> anyhow::Result<(Duration, Vec<String>)> {
    let socket = state.with_extension("sock");
    let mut command = Command::new(program("skiff")?);
    command.args(["daemon", "--backend", "qemu", "--state"]).arg(state).arg("--socket").arg(&socket);
    command
        .env("SKIFF_GUEST_IMAGE", guest_image()?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let started = Instant::now();
    let daemon = Running(command.spawn()?);
    Api::wait(&socket, Duration::from_secs(120))?;
    let took = started.elapsed();
    let arguments = qemu_of(state)?;
    drop(daemon);
    Ok((took, arguments))
}

/// The command line of the QEMU whose files lie in the state directory.
pub fn qemu_of(state: &Path) -> anyhow::Result<Vec<String>> {
    let state = state.to_str().context("a temporary path is text")?;
    for entry in std::fs::read_dir("/proc")? {
        let Ok(line) = std::fs::read(entry?.path().join("cmdline")) else { continue };
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        if words[0].contains("qemu-system") && words.iter().any(|word| word.contains(state)) {
            return Ok(words);
        }
    }
    bail!("found no QEMU for {state}")
}

/// The same machine with another initramfs and nothing but a console, which is the child's output.
pub fn same_machine(arguments: &[String], initramfs: &Path) -> anyhow::Result<Command> {
    let option = |name: &str| -> anyhow::Result<&String> {
        let at = arguments
            .iter()
            .position(|word| word == name)
            .with_context(|| format!("QEMU was started without {name}"))?;
        arguments.get(at + 1).with_context(|| format!("{name} has no value"))
    };
    let machine = arguments
        .iter()
        .position(|word| word == "-M" || word == "-machine")
        .context("QEMU was started without -M")?;
    let mut command = Command::new(&arguments[0]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    command.args(&arguments[machine..=machine + 1]);
    for name in ["-accel", "-cpu", "-smp", "-m", "-kernel", "-append"] {
        if let Ok(value) = option(name) {
            command.arg(name).arg(value);
        }
    }
    command.arg("-initrd").arg(initramfs);
    command.args([
        "-device",
        "virtio-serial-pci",
        "-chardev",
        "stdio,id=console",
        "-device",
        "virtconsole,chardev=console",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command)
}

/// Boots the same machine with an init that does nothing but say so.
fn boot_empty(arguments: &[String], initramfs: &Path) -> anyhow::Result<Duration> {
    let mut command = same_machine(arguments, initramfs)?;
    let started = Instant::now();
    let mut child = command.spawn()?;
    let output = child.stdout.take().context("piped")?;
    let found = BufReader::new(output).lines().map_while(Result::ok).any(|line| line.contains("empty init"));
    let took = started.elapsed();
    child.kill()?;
    child.wait()?;
    if !found {
        bail!("the kernel with an empty init said nothing");
    }
    Ok(took)
}

fn empty_init(directory: &Path) -> anyhow::Result<PathBuf> {
    let root = directory.join("init-root");
    std::fs::create_dir_all(root.join("dev"))?;
    let source = directory.join("init.c");
    std::fs::write(
        &source,
        r#"#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>
int main(void) {
    mount("dev", "/dev", "devtmpfs", 0, 0);
    int console = open("/dev/hvc0", O_RDWR);
    write(console, "empty init\n", 11);
    for (;;) pause();
}
"#,
    )?;
    check(Command::new("cc").args(["-static", "-O2", "-w", "-o"]).arg(root.join("init")).arg(&source))?;
    pack(&root, &directory.join("empty.cpio"))
}

/// Makes an initramfs of a directory.
pub fn pack(root: &Path, archive: &Path) -> anyhow::Result<PathBuf> {
    let script =
        format!("cd '{}' && find . | cpio -o -H newc --quiet > '{}'", root.display(), archive.display());
    check(Command::new("sh").args(["-c", &script]))?;
    Ok(archive.to_path_buf())
}
