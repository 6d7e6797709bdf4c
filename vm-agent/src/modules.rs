//! Kernel modules of the guest.
//!
//! Under emulation each costs tens of milliseconds, so only what the disk needs is loaded before the engine starts. The
//! kernel asks for everything else by itself (`request_module`, through `/sbin/modprobe`) when it is first used; the
//! likely ones are loaded as soon as nobody waits any more.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use skiff_linux_sys::module::{self, Compression};

const DIRECTORY: &str = "/lib/modules";
/// The first call came before the engine was ready, and is answered now: it must not share the processor with us.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// Whether this is a guest of ours: its image alone has the lists.
pub fn is_guest() -> bool {
    Path::new(DIRECTORY).join("boot").is_file()
}

/// Loads what the data disk needs.
pub fn load_for_boot() -> anyhow::Result<()> {
    load_list("boot")
}

/// Loads what will be needed soon. A failure is only told: the kernel asks again for what is really used.
pub fn load_when_ready() {
    std::thread::sleep(FIRST_ANSWER);
    if let Err(error) = load_list("ready") {
        tracing::warn!(error = format!("{error:#}"), "kernel modules are missing");
    }
}

fn load_list(name: &str) -> anyhow::Result<()> {
    let directory = Path::new(DIRECTORY);
    let list = directory.join(name);
    let files = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
    for file in files.lines().filter(|line| !line.is_empty()) {
        let path = directory.join(file);
        let opened = fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        module::load(opened.as_fd(), c"", Compression::None)
            .with_context(|| format!("load kernel module {}", path.display()))?;
    }
    Ok(())
}
