//! The guest's data disk: found, mounted, grown to its length, trimmed, and put to rest.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use skiff_linux_sys::ext4;

use crate::layout::GUEST_DATA;

const DEVICE: &str = "/dev/vda";
const BLOCK: &str = "/sys/block/vda";
/// Where devices are bound to the disk's driver and let go.
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_blk";
/// How long the disk may take to appear after its driver is loaded.
const APPEARS: Duration = Duration::from_secs(5);

/// The disk without its driver: the kernel knows nothing of what is on it, nor how long it is.
#[derive(Debug, Clone)]
pub struct Detached {
    device: String,
}

impl Detached {
    /// Takes the disk's driver away. Whatever the kernel has read of the disk goes with it.
    pub fn take() -> anyhow::Result<Self> {
        appears()?;
        let device = fs::read_link(Path::new(BLOCK).join("device")).context("find the disk's device")?;
        let device = device.file_name().and_then(|name| name.to_str()).context("the device has a name")?;
        let detached = Self { device: device.to_owned() };
        fs::write(Path::new(DRIVER).join("unbind"), &detached.device).context("let go of the data disk")?;
        Ok(detached)
    }

    /// The device's name on its bus.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The device of this name.
    pub fn of(device: &str) -> Self {
        Self { device: device.trim().to_owned() }
    }

    /// Gives the disk its driver, which looks at it anew. One that has it already is fine.
    pub fn attach(&self) -> anyhow::Result<()> {
        if !Path::new(BLOCK).exists() {
            fs::write(Path::new(DRIVER).join("bind"), &self.device).context("attach the data disk")?;
        }
        Ok(())
    }
}

fn appears() -> anyhow::Result<()> {
    let deadline = Instant::now() + APPEARS;
    while !Path::new(DEVICE).exists() {
        if Instant::now() > deadline {
            bail!("the data disk {DEVICE} did not appear: the host started the guest without it");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Mounts the disk where the engine has its root, and grows the file system.
pub fn open() -> anyhow::Result<()> {
    appears()?;
    fs::create_dir_all(GUEST_DATA).with_context(|| format!("create {GUEST_DATA}"))?;
    // noinit_itable: growing a fresh disk to many gigabytes must not start a long write of empty inode tables.
    // discard is left to FITRIM in batches: it is cheaper than one request per freed extent.
    mount(DEVICE, GUEST_DATA, "ext4", MountFlags::NOATIME, c"noinit_itable,errors=remount-ro")
        .with_context(|| format!("mount the data disk {DEVICE}: its file system is damaged or no ext4"))?;
    grow().context("grow the data disk")
}

/// Grows the file system to the size of the disk, online (`EXT4_IOC_RESIZE_FS`).
fn grow() -> anyhow::Result<()> {
    let sectors: u64 = fs::read_to_string(Path::new(BLOCK).join("size"))?.trim().parse()?;
    let root = fs::File::open(GUEST_DATA)?;
    let stat = rustix::fs::fstatvfs(&root)?;
    let disk_blocks = sectors * 512 / stat.f_frsize;
    // statvfs leaves the file system's own tables out: only a real difference in size counts.
    if disk_blocks.saturating_sub(stat.f_blocks) > disk_blocks / 16 {
        let started = Instant::now();
        ext4::resize(root.as_fd(), disk_blocks)?;
        let elapsed_ms: u64 = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        tracing::info!(blocks = disk_blocks, elapsed_ms, "data disk grown");
    }
    Ok(())
}

/// Gives the host back what was deleted (`FITRIM`); ext4 looks only at what was freed since the last time.
pub fn trim() {
    let trimmed = fs::File::open(GUEST_DATA).and_then(|root| ext4::trim(root.as_fd()));
    if let Err(error) = trimmed {
        tracing::warn!(%error, "free space of the data disk is not given back");
    }
}

/// Leaves the disk clean. One that was never mounted is.
pub fn put_to_rest() {
    if !is_mounted().unwrap_or(true) {
        return;
    }
    trim();
    rustix::fs::sync();
    if let Err(errno) = unmount(GUEST_DATA, UnmountFlags::empty()) {
        // Something still holds it: what matters is on the disk, and the journal covers the rest.
        println!("skiff-agent: data disk stays mounted: {errno}");
        let _ = rustix::mount::mount_remount(GUEST_DATA, MountFlags::RDONLY, c"");
    }
    rustix::fs::sync();
}

/// Whether there is another file system below the root's directory.
pub fn is_mounted() -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    match fs::metadata(GUEST_DATA) {
        Ok(data) => Ok(data.dev() != fs::metadata("/")?.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
