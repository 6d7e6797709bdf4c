//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;

/// Finds `skiff-agent`: `$SKIFF_AGENT`, or the newest one in the target directory.
pub fn agent() -> anyhow::Result<PathBuf> {
    find("SKIFF_AGENT", "skiff-agent", "cargo build -p skiff-agent")
}

/// Finds `skiff`: `$SKIFF_CLI`, or the newest one in the target directory.
pub fn skiff() -> anyhow::Result<PathBuf> {
    find("SKIFF_CLI", "skiff", "cargo build -p skiff")
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

fn find(variable: &str, name: &str, recipe: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        let path = PathBuf::from(path);
        anyhow::ensure!(path.is_file(), "{variable} names {}, which is not a file", path.display());
        return Ok(path);
    }
    let target = target_directory();
    ["debug", "release", "x86_64-unknown-linux-gnu/release", "x86_64-unknown-linux-gnu/debug"]
        .iter()
        .map(|profile| target.join(profile).join(name))
        .filter_map(|path| Some((modified(&path)?, path)))
        .max()
        .map(|(_, path)| path)
        .with_context(|| format!("no {name} below {}: run `{recipe}`, or set {variable}", target.display()))
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok().filter(|metadata| metadata.is_file())?.modified().ok()
}
