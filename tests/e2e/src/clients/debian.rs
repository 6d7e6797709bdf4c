//! An image of the machine's own Debian with clients and servers in it, made once and kept in the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use skiff_testkit::{Program, binaries, image};

use crate::Subject;

/// The image.
pub(super) const DEBIAN: &str = "skiff-debian:latest";
/// The image with what a build installed into it.
pub(super) const INSTALLED: &str = "skiff-debian:installed";

/// What is in it beside Debian's essential packages and apt.
const PACKAGES: &str = "ca-certificates,git,nginx-light,nodejs,postgresql,python3-pip";
/// What nobody reads in tests. Without the library for compiling queries, PostgreSQL interprets them.
const LEFT_OUT: [&str; 6] = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/llvm-*",
];
/// The authorities that this machine trusts.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// After that, apt would replace most of what is in it.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// Loads the image into the engine, unless it is there. Says why where it can't be had.
pub(super) fn load(on: &Subject) -> anyhow::Result<Result<(), String>> {
    if on.docker.args(&["image", "inspect", DEBIAN])?.code == 0 {
        return Ok(Ok(()));
    }
    let tree = match tree() {
        Ok(tree) => tree,
        Err(error) => return Ok(Err(format!("no image of Debian: {error:#}"))),
    };
    let import = on.docker.command("import --change").args(["CMD [\"bash\"]"]);
    import.args([tree.as_os_str(), DEBIAN.as_ref()]).timeout(super::patience(on)).run()?.ok()?;
    Ok(Ok(()))
}

/// The tree as a tar.
fn tree() -> anyhow::Result<PathBuf> {
    let sources = sources()?;
    ensure!(!sources.is_empty(), "apt has no sources of Debian here");
    let mut options = vec!["--variant=apt".to_owned(), format!("--include={PACKAGES}")];
    options.extend(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    options.push("--dpkgopt=force-unsafe-io".into());
    options.extend(apt_options()?.iter().map(|option| format!("--aptopt={option}")));
    if Path::new(ROOTS).is_file() {
        options.push(format!("--customize-hook=upload {ROOTS} {ROOTS}"));
    }
    let recipe = format!("{options:?} {sources:?}");
    let directory = binaries::target_directory().join("clients");
    let name = image::digest(recipe.as_bytes()).replace("sha256:", "debian-");
    let kept = directory.join(format!("{}.tar", &name[..20]));
    let is_fresh = || Some(kept.metadata().ok()?.modified().ok()?.elapsed().unwrap_or_default() < OLD);
    if is_fresh() == Some(true) {
        return Ok(kept);
    }
    // Whatever an earlier recipe made.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let new = directory.join("new.tar");
    let made = Program::new("mmdebstrap").args(options).args([String::new()]).args([new.as_os_str()]);
    made.args(sources).timeout(Duration::from_secs(900)).run()?.ok()?;
    fs::rename(&new, &kept).with_context(|| format!("keep {}", kept.display()))?;
    Ok(kept)
}

/// The files that name Debian's archives, and no one else's.
fn sources() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
        files.push(entry.path());
    }
    files.sort();
    files.retain(|path| {
        let wanted = path.extension().is_some_and(|end| end == "list" || end == "sources");
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = || text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let names_debian = |line: &str| line.contains("://") && line.contains("/debian");
        let is_other = |line: &str| line.contains("://") && !line.contains("/debian");
        wanted && lines().any(names_debian) && !lines().any(is_other) && !text.contains("-backports")
    });
    Ok(files)
}

/// How apt gets at them from here: proxies, and what it may overlook.
fn apt_options() -> anyhow::Result<Vec<String>> {
    let dump = Program::new("apt-config").args(["dump"]).run()?.ok()?.out();
    let wanted = |line: &&str| {
        line.starts_with("Acquire::Check-")
            || (line.starts_with("Acquire::http") && line.to_lowercase().contains("proxy"))
    };
    let has_value = |line: &&str| !line.ends_with("\"\";");
    Ok(dump
        .lines()
        .filter(wanted)
        .filter(has_value)
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect())
}
