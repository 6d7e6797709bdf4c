//! Room on the disk. The standard library can't tell it, and only unix has one call for it.

use std::path::Path;

use super::Finding;

/// Room that pulling a few images takes.
const WANTED: u64 = 5 << 30;

/// Finds out how much room there is where the state is, or will be.
pub fn space(state: &Path) -> Option<Finding> {
    let existing = state.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let text = format!("{:.1} GiB", free as f64 / f64::from(1 << 30));
    Some(if free >= WANTED {
        Finding::good(format!("disk space: {text} free"))
    } else {
        let what = format!("disk space: only {text} free at {}", existing.display());
        Finding::bad(what, "free some space, or move the state directory")
    })
}
