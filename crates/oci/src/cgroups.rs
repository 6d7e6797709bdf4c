//! Which cgroup a container gets.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use oci_spec::runtime::{LinuxResources, Spec};
use skiff_runtime::Cgroup;

use super::state::Record;
use super::{Global, log};

/// Where containers go whose configuration names no place.
const DEFAULT_PARENT: &str = "skiff";

/// The directory for a container; `None` on a machine without cgroup v2, or where this user may not make any.
pub fn path(global: &Global, spec: &Spec, id: &str) -> anyhow::Result<Option<PathBuf>> {
    let Some(root) = Cgroup::root() else { return Ok(None) };
    let wanted = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    let wanted = wanted.filter(|path| !path.as_os_str().is_empty());
    let relative = match wanted {
        None => Path::new(DEFAULT_PARENT).join(id),
        Some(path) if global.systemd_cgroup => scope(&path, id)?,
        Some(path) => clean(&path)?,
    };
    let path = root.join(relative);
    // An ordinary user has only what was delegated, as root of a user namespace, too.
    if !skiff_runtime::owns_machine() {
        let existing = path.ancestors().find(|path| path.is_dir()).unwrap_or(&root);
        if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(path))
}

/// Says so if a container without a cgroup was to have limits.
pub fn without(global: &Global, spec: &Spec) {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    if resources.is_some_and(limits_something) {
        log::warning(global, "limits are not set: the container has no cgroup of its own");
    }
}

/// Device rules apart: they need no controller.
fn limits_something(resources: &LinuxResources) -> bool {
    let mut limits = resources.clone();
    limits.set_devices(None);
    limits != LinuxResources::default()
}

/// Makes the cgroup and sets its limits, as far as the machine can.
pub fn make(global: &Global, path: &Path, spec: &Spec) -> anyhow::Result<Cgroup> {
    let parent = path.parent().context("the cgroup has no parent")?;
    let name = path.file_name().and_then(|name| name.to_str()).context("the cgroup has no name")?;
    if path.is_dir() && Cgroup::open(path)?.procs().is_ok_and(|procs| !procs.is_empty()) {
        bail!("linux.cgroupsPath: {} has processes already", path.display());
    }
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let Some(resources) = resources else { return Ok(Cgroup::create(parent, name)?) };
    let cgroup = Cgroup::create_for(parent, name, resources)?;
    if Cgroup::limits(parent) {
        cgroup.apply(resources)?;
    } else if limits_something(resources) {
        log::warning(global, "limits are not set: this machine's cgroup v2 hierarchy has no controllers");
    }
    if let Some(rules) = resources.devices() {
        cgroup.filter_devices(rules)?;
    }
    Ok(cgroup)
}

/// Kills what is left in a container's cgroup and removes it, with the directories above that were made for it.
pub fn remove(record: &Record) -> anyhow::Result<()> {
    let Some(path) = &record.cgroup else { return Ok(()) };
    if path.is_dir() {
        Cgroup::open(path)?.remove()?;
    }
    let base = record.cgroup_base.as_deref().unwrap_or(path);
    for parent in path.ancestors().skip(1).take_while(|parent| *parent != base && parent.starts_with(base)) {
        // Others may have moved in.
        if std::fs::remove_dir(parent).is_err() {
            break;
        }
    }
    Ok(())
}

/// A path below the hierarchy's root.
fn clean(path: &Path) -> anyhow::Result<PathBuf> {
    use std::path::Component;
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("linux.cgroupsPath: {} leads out of the hierarchy", path.display())
            }
        }
    }
    if clean.as_os_str().is_empty() {
        bail!("linux.cgroupsPath: a container cannot have the root of the hierarchy");
    }
    Ok(clean)
}

/// The place that systemd gives to `slice:prefix:name`: a slice lies in those whose names its own begins with.
fn scope(path: &Path, id: &str) -> anyhow::Result<PathBuf> {
    let text = path.to_str().unwrap_or_default();
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts.as_slice() else {
        bail!("linux.cgroupsPath: expected slice:prefix:name for systemd cgroups, got {text:?}");
    };
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let Some(stem) =
        slice.strip_suffix(".slice").filter(|stem| !slice.contains('/') && !stem.starts_with('-'))
    else {
        bail!("linux.cgroupsPath: {slice:?} is no slice");
    };
    let mut place = PathBuf::new();
    if !stem.is_empty() {
        for (at, _) in stem.match_indices('-') {
            place.push(format!("{}.slice", &stem[..at]));
        }
        place.push(slice);
    }
    let name = if name.is_empty() { id } else { name };
    let unit = match (name.ends_with(".slice"), prefix.is_empty()) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{name}.scope"),
        (false, false) => format!("{prefix}-{name}.scope"),
    };
    clean(&place.join(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_hierarchy() {
        assert_eq!(clean(Path::new("/a/./b")).unwrap(), Path::new("a/b"));
        for wrong in ["/a/../../b", "/", "."] {
            assert!(clean(Path::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn slices_lie_in_slices() {
        let scope = |text: &str| scope(Path::new(text), "id").unwrap();
        assert_eq!(scope("machine.slice:libpod:x"), Path::new("machine.slice/libpod-x.scope"));
        assert_eq!(
            scope("user-1000-a.slice::x"),
            Path::new("user.slice/user-1000.slice/user-1000-a.slice/x.scope")
        );
        assert_eq!(scope(":docker:x"), Path::new("system.slice/docker-x.scope"));
        assert!(super::scope(Path::new("/plain/path"), "id").is_err());
    }
}
