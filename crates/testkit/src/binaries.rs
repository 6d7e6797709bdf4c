//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;

/// Finds `skiff-agent` in [`programs`].
pub fn agent() -> anyhow::Result<PathBuf> {
    Ok(programs()?.join("skiff-agent"))
}

/// Finds `skiff` in [`programs`].
pub fn skiff() -> anyhow::Result<PathBuf> {
    Ok(programs()?.join("skiff"))
}

/// The directory that holds both programs: `$SKIFF_PROGRAMS`, or the one of the newest build in the target
/// directory. One directory for both, because `skiff` looks for the agent beside itself.
pub fn programs() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("SKIFF_PROGRAMS") {
        let directory = PathBuf::from(path);
        anyhow::ensure!(
            built(&directory).is_some(),
            "SKIFF_PROGRAMS names {}, where skiff and skiff-agent are not both",
            directory.display()
        );
        return Ok(directory);
    }
    let target = target_directory();
    ["debug", "release"]
        .iter()
        .map(|profile| target.join(profile))
        .filter_map(|directory| Some((built(&directory)?, directory)))
        .max()
        .map(|(_, directory)| directory)
        .with_context(|| {
            let target = target.display();
            format!("skiff and skiff-agent are not both in debug or release of {target}: run scripts/build, or set SKIFF_PROGRAMS")
        })
}

/// Finds `skiff-desktop`: `$SKIFF_DESKTOP` or the one that `scripts/build --desktop` makes.
pub fn desktop() -> anyhow::Result<PathBuf> {
    let path = match env::var_os("SKIFF_DESKTOP") {
        Some(path) => PathBuf::from(path),
        None => target_directory().join("desktop").join("skiff-desktop"),
    };
    anyhow::ensure!(path.is_file(), "{} is missing: run scripts/build --desktop", path.display());
    Ok(path)
}

/// Finds the guest image: `$SKIFF_GUEST_IMAGE` or `target/guest`.
pub fn guest_image() -> anyhow::Result<PathBuf> {
    let directory = match env::var_os("SKIFF_GUEST_IMAGE") {
        Some(path) => PathBuf::from(path),
        None => target_directory().join("guest"),
    };
    let manifest = directory.join("manifest.json");
    anyhow::ensure!(
        manifest.is_file(),
        "no guest image: {} is missing (build one with guest-image/build, or set SKIFF_GUEST_IMAGE to its directory)",
        manifest.display()
    );
    Ok(directory)
}

/// The workspace's target directory, seen from a test program in `target/<profile>/deps`.
pub fn target_directory() -> PathBuf {
    if let Some(path) = env::var_os("CARGO_TARGET_DIR") {
        return path.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    workspace.join("target")
}

/// When the newer of both programs was built; nothing where one is missing.
fn built(directory: &Path) -> Option<SystemTime> {
    let modified = |name: &str| directory.join(name).metadata().ok()?.modified().ok();
    Some(modified("skiff")?.max(modified("skiff-agent")?))
}
