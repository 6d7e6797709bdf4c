//! The virtio-serial port that carries the link.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use skiff_link::BoxStream;

/// How long the port may take to appear.
const APPEARS: Duration = Duration::from_secs(10);

/// Opens the port of this name. There is no udev in the guest, so names are looked up in sysfs.
pub async fn open(name: &str) -> anyhow::Result<BoxStream> {
    let deadline = Instant::now() + APPEARS;
    loop {
        if let Some(path) = find(name)? {
            let device =
                skiff_link::device::open(&path).with_context(|| format!("open {}", path.display()))?;
            return Ok(Box::new(device));
        }
        if Instant::now() > deadline {
            bail!("the host gave the guest no virtio-serial port {name}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn find(wanted: &str) -> anyhow::Result<Option<PathBuf>> {
    let Ok(ports) = std::fs::read_dir("/sys/class/virtio-ports") else { return Ok(None) };
    for port in ports {
        let port = port?;
        if std::fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == wanted) {
            return Ok(Some(PathBuf::from("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}
