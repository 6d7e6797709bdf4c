//! The mounts that a container is created with: what clients write, as records.

use std::path::{Component, Path};

use bollard_stubs::models::{ContainerConfig, HostConfig, Mount as MountModel, MountType};

use crate::error::{Error, Result};
use crate::names;
use crate::state::{Mount, MountKind};
use crate::volumes::{check_name, check_new};

/// All mounts of a container: binds, mounts, tmpfs, and anonymous volumes for what the image declares.
pub fn all(
    config: &ContainerConfig,
    host: &HostConfig,
    volumes: &dyn Fn(&str) -> std::path::PathBuf,
) -> Result<Vec<Mount>> {
    let mut mounts: Vec<Mount> = Vec::new();
    let mut add = |mount: Mount| -> Result<()> {
        if mounts.iter().any(|other| other.destination == mount.destination) {
            return Err(Error::invalid(format!("Duplicate mount point: {}", mount.destination)));
        }
        mounts.push(mount);
        Ok(())
    };
    for text in host.binds.iter().flatten() {
        add(parse_bind(text, volumes)?)?;
    }
    for model in host.mounts.iter().flatten() {
        add(from_model(model, volumes)?)?;
    }
    for (destination, options) in host.tmpfs.iter().flatten() {
        check_tmpfs(options)?;
        let mut mount = blank(MountKind::Tmpfs, destination)?;
        mount.options = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
        mount.options.extend(options.split(',').filter(|option| !option.is_empty()).map(str::to_owned));
        mount.writable = !mount.options.iter().any(|option| option == "ro");
        mount.mode.clone_from(options);
        add(mount)?;
    }
    for destination in config.volumes.iter().flatten() {
        let destination = clean(destination)?;
        if !mounts.iter().any(|mount| mount.destination == destination) {
            mounts.push(volume(names::random_id(), &destination, true, volumes)?);
        }
    }
    Ok(mounts)
}

fn blank(kind: MountKind, destination: &str) -> Result<Mount> {
    Ok(Mount {
        kind,
        name: None,
        source: String::new(),
        destination: clean(destination)?,
        mode: String::new(),
        writable: true,
        propagation: String::new(),
        recursive: true,
        shallow_read_only: false,
        copy: false,
        anonymous: false,
        options: Vec::new(),
        strict: false,
        subpath: None,
        volume_labels: Default::default(),
        volume_options: Default::default(),
    })
}

fn volume(
    name: String,
    destination: &str,
    anonymous: bool,
    volumes: &dyn Fn(&str) -> std::path::PathBuf,
) -> Result<Mount> {
    check_name(&name)?;
    Ok(Mount {
        source: volumes(&name).display().to_string(),
        name: Some(name),
        copy: true,
        anonymous,
        ..blank(MountKind::Volume, destination)?
    })
}

/// An absolute path without `.`, `..` and doubled slashes.
fn clean(path: &str) -> Result<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Error::invalid(format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.extend(part.to_str()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    if parts.is_empty() {
        return Err(Error::invalid("invalid specification: destination can't be '/'"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Whether a path that a client wrote is a mount's place.
pub(super) fn is_at(mount: &Mount, path: &str) -> bool {
    clean(path).is_ok_and(|path| path == mount.destination)
}

/// Whether a path stays where it begins, as far as its words tell.
fn is_local(path: &str) -> bool {
    let mut depth = 0;
    Path::new(path).components().all(|component| {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
        depth >= 0
    })
}

/// `source:destination[:options]`, or a destination alone.
fn parse_bind(text: &str, volumes: &dyn Fn(&str) -> std::path::PathBuf) -> Result<Mount> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [""] => return Err(invalid()),
        [destination] => return volume(names::random_id(), &clean(destination)?, true, volumes),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(invalid()),
    };
    if source.is_empty() || destination.is_empty() {
        return Err(invalid());
    }
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let refused = |error: Error| {
        Error::invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {}",
            error.message
        ))
    };
    clean(destination).map_err(refused)?;
    let mut mount = if source.starts_with('/') {
        let source = if source == "/" { "/".to_owned() } else { clean(source)? };
        Mount { source, propagation: "rprivate".to_owned(), ..blank(MountKind::Bind, destination)? }
    } else {
        volume(source.to_owned(), destination, false, volumes)?
    };
    // Volumes are shared between containers unless the client says how else.
    mount.mode = if mode.is_empty() && mount.kind == MountKind::Volume { "z" } else { mode }.to_owned();
    check_mode(mode)?;
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.writable = false,
            "rw" => mount.writable = true,
            // Labels of SELinux, which our kernels don't have; consistency, which needs no relaxing here.
            "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" if mount.kind == MountKind::Volume => mount.copy = false,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
                if mount.kind == MountKind::Bind =>
            {
                mount.propagation = option.to_owned();
            }
            "nocopy" => return Err(refused(Error::invalid("field VolumeOptions must not be specified"))),
            _ => return Err(refused(Error::invalid("field BindOptions must not be specified"))),
        }
    }
    Ok(mount)
}

/// Checks the options of a tmpfs as dockerd does: flags of mounts, and what the file system itself takes.
fn check_tmpfs(options: &str) -> Result<()> {
    const FLAGS: [&str; 37] = [
        "defaults",
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "remount",
        "mand",
        "nomand",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "bind",
        "rbind",
        "unbindable",
        "runbindable",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "size",
        "mode",
        "uid",
        "gid",
    ];
    let data = ["nr_inodes", "nr_blocks", "mpol"];
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let takes_value = data.contains(&name) || FLAGS[33..].contains(&name);
        let known = takes_value || FLAGS.contains(&name);
        if !known || takes_value != value.is_some() || value == Some("") {
            return Err(Error::invalid(format!("invalid tmpfs option {name:?}")));
        }
    }
    Ok(())
}

/// Checks the options of a bind: known ones, and one of a kind.
fn check_mode(mode: &str) -> Result<()> {
    let invalid = || Error::invalid(format!("invalid mode: {mode}"));
    let mut seen = Vec::new();
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        let kind = match option {
            "ro" | "rw" => "write",
            "z" | "Z" => "label",
            "cached" | "delegated" | "consistent" => "consistency",
            "nocopy" => "copy",
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => "propagation",
            _ => return Err(invalid()),
        };
        if seen.contains(&kind) {
            return Err(invalid());
        }
        seen.push(kind);
    }
    Ok(())
}

/// Whether a bind's wishes for being read-only agree.
fn check_read_only(
    options: &bollard_stubs::models::MountBindOptions,
    read_only: bool,
) -> Result<(), &'static str> {
    let (shallow, force) =
        (options.read_only_non_recursive == Some(true), options.read_only_force_recursive == Some(true));
    if shallow && !read_only {
        return Err("mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive");
    }
    if force && !read_only {
        return Err("mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive");
    }
    if force && shallow {
        return Err("mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive");
    }
    Ok(())
}

fn from_model(model: &MountModel, volumes: &dyn Fn(&str) -> std::path::PathBuf) -> Result<Mount> {
    let bad =
        |kind: &str, why: &str| Error::invalid(format!("invalid mount config for type \"{kind}\": {why}"));
    let target = model.target.as_deref().unwrap_or("");
    let source = model.source.as_deref().unwrap_or("");
    let kind = model.typ.map(|kind| kind.to_string()).unwrap_or_default();
    if target.is_empty() {
        return Err(bad(&kind, "field Target must not be empty"));
    }
    clean(target).map_err(|error| bad(&kind, &error.message))?;
    let mut mount = match model.typ {
        Some(MountType::BIND) => {
            if source.is_empty() {
                return Err(bad("bind", "field Source must not be empty"));
            }
            if !source.starts_with('/') {
                return Err(bad(
                    "bind",
                    &format!("invalid mount path: '{source}' mount path must be absolute"),
                ));
            }
            let options = model.bind_options.clone().unwrap_or_default();
            check_read_only(&options, model.read_only == Some(true)).map_err(Error::invalid)?;
            let make = options.create_mountpoint == Some(true);
            let propagation =
                options.propagation.map(|propagation| propagation.to_string()).unwrap_or_default();
            Mount {
                source: source.to_owned(),
                propagation: if propagation.is_empty() { "rprivate".to_owned() } else { propagation },
                recursive: options.non_recursive != Some(true),
                shallow_read_only: options.read_only_non_recursive == Some(true),
                strict: !make,
                ..blank(MountKind::Bind, target)?
            }
        }
        Some(MountType::VOLUME) => {
            let options = model.volume_options.clone().unwrap_or_default();
            let anonymous = source.is_empty();
            let name = if anonymous { names::random_id() } else { source.to_owned() };
            let subpath = options.subpath.filter(|path| !path.is_empty());
            if let Some(path) = &subpath {
                if anonymous {
                    return Err(bad("volume", "must not set Subpath when using anonymous volumes"));
                }
                if !is_local(path) {
                    return Err(bad("volume", "subpath must be a relative path within the volume"));
                }
            }
            let mut mount = volume(name, target, anonymous, volumes)?;
            mount.strict = true;
            mount.mode = "z".to_owned();
            mount.copy = options.no_copy != Some(true) && subpath.is_none();
            mount.subpath = subpath;
            mount.volume_labels = options.labels.unwrap_or_default();
            if let Some(driver) = options.driver_config {
                let name = mount.name.as_deref().unwrap_or_default();
                // A 404 here would be taken for a missing image, and pulled.
                check_new(name, driver.name.as_deref(), driver.options.as_ref())
                    .map_err(|error| Error::invalid(error.message))?;
                mount.volume_options = driver.options.unwrap_or_default();
            }
            mount
        }
        Some(MountType::TMPFS) => {
            if !source.is_empty() {
                return Err(bad("tmpfs", "field Source must not be specified"));
            }
            let options = model.tmpfs_options.clone().unwrap_or_default();
            let mut mount = blank(MountKind::Tmpfs, target)?;
            mount.options = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
            mount.options.extend(options.size_bytes.map(|size| format!("size={size}")));
            mount.options.extend(options.mode.map(|mode| format!("mode={mode:o}")));
            for option in options.options.into_iter().flatten() {
                mount.options.push(option.join("="));
            }
            if model.read_only == Some(true) {
                mount.options.push("ro".to_owned());
            }
            mount
        }
        Some(MountType::IMAGE) => {
            if source.is_empty() {
                return Err(bad("image", "field Source must not be empty"));
            }
            let subpath = model.image_options.clone().unwrap_or_default().subpath;
            let subpath = subpath.filter(|path| !path.is_empty());
            if subpath.as_deref().is_some_and(|path| !is_local(path)) {
                return Err(bad("image", "subpath must be a relative path within the image"));
            }
            // Which image it is, the creation finds out.
            Mount {
                name: Some(source.to_owned()),
                source: source.to_owned(),
                writable: false,
                subpath,
                ..blank(MountKind::Image, target)?
            }
        }
        _ => return Err(bad(&kind, "mount type unknown")),
    };
    mount.writable &= model.read_only != Some(true);
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn volumes(name: &str) -> PathBuf {
        PathBuf::from(format!("/v/{name}/_data"))
    }

    #[test]
    fn bind_texts_are_paths_or_volumes_with_options() {
        let mount = parse_bind("/a/b:/c/../d:ro,rslave", &volumes).unwrap();
        assert_eq!((mount.source.as_str(), mount.destination.as_str()), ("/a/b", "/d"));
        assert!(!mount.writable);
        assert_eq!(mount.propagation, "rslave");
        let mount = parse_bind("data:/var/lib:nocopy", &volumes).unwrap();
        assert_eq!((mount.kind, mount.name.as_deref(), mount.copy), (MountKind::Volume, Some("data"), false));
        assert!(parse_bind("/anonymous", &volumes).unwrap().anonymous);
        for wrong in ["", ":", "/a:", "/a:b", "/a:/", "/a:/b:zzz", "/a:/b:c:d", "x:/b", "/a:/b:nocopy"] {
            assert!(parse_bind(wrong, &volumes).is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_mounts_on_one_place_are_refused() {
        let host = HostConfig {
            binds: Some(vec!["/a:/x".to_owned(), "vol:/x/".to_owned()]),
            ..HostConfig::default()
        };
        let error = all(&ContainerConfig::default(), &host, &volumes).unwrap_err();
        assert_eq!(error.message, "Duplicate mount point: /x");
    }

    #[test]
    fn options_of_a_tmpfs_are_known_ones() {
        for right in ["", "rw,noexec,size=64m,mode=1777", "uid=1000,gid=0,nr_inodes=5", "exec"] {
            assert!(check_tmpfs(right).is_ok(), "{right}");
        }
        for wrong in ["bad=1", "size", "size=", "exec=1", "huge=always"] {
            assert_eq!(
                check_tmpfs(wrong).unwrap_err().message,
                format!("invalid tmpfs option {:?}", wrong.split('=').next().unwrap())
            );
        }
    }

    #[test]
    fn declared_volumes_give_way_to_mounts_of_the_user() {
        let host = HostConfig { binds: Some(vec!["/a:/x".to_owned()]), ..HostConfig::default() };
        let config = ContainerConfig {
            volumes: Some(vec!["/x".to_owned(), "/y".to_owned()]),
            ..ContainerConfig::default()
        };
        let all = all(&config, &host, &volumes).unwrap();
        assert_eq!(
            all.iter().map(|mount| mount.kind).collect::<Vec<_>>(),
            [MountKind::Bind, MountKind::Volume]
        );
    }

    proptest! {
        #[test]
        fn any_bind_text_is_parsed_or_refused(text in "[/a-z.:,]{0,24}") {
            if let Ok(mount) = parse_bind(&text, &volumes) {
                prop_assert!(mount.destination.starts_with('/') && mount.destination.len() > 1);
                prop_assert!(!mount.destination.split('/').any(|part| part == ".."));
            }
        }
    }
}
